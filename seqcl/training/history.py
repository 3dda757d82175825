"""What a run leaves behind of every epoch: means of losses, history.csv and TensorBoard events."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqcl.errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, float]
"""An epoch: epoch, step, seconds, train_seconds, lr, items_per_second, loss, loss_TERM, observed_NAME, valid_METRIC."""

log = logging.getLogger("seqcl")


class Meter:
    """Means over the steps of an epoch, with one transfer from the device in `every` steps.

    Args:
        every: steps between two reads of the device; until then a non-finite loss goes unseen.
    """

    def __init__(self, *, every: int = 32) -> None:
        self.every = every
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self._names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Note one step's scalars; they stay on their device."""
        names = tuple(values)
        if names != self._names:
            self.flush()
            self._names = names
        self._pending.append(torch.stack([value.detach().float() for value in values.values()]))

    @property
    def full(self) -> bool:
        """Whether `every` steps wait for a `flush`."""
        return len(self._pending) >= self.every

    def flush(self) -> tuple[int, str] | None:
        """Read what waits; (steps before now, name) of the first loss in it that is not finite, or None.

        The steps are added one by one: the sums must not depend on where a checkpoint fell.
        """
        if not self._pending:
            return None
        rows = torch.stack(self._pending).tolist()  # (steps, names)
        self._pending.clear()
        bad = None
        for index, row in enumerate(rows):
            for name, value in zip(self._names, row, strict=True):
                if math.isfinite(value):
                    self.sums[name] = self.sums.get(name, 0.0) + value
                    self.counts[name] = self.counts.get(name, 0) + 1
                elif name.startswith("loss_") and bad is None:
                    # An observed value may be undefined in a batch, as the uniformity of a single row is.
                    bad = (len(rows) - 1 - index, name.removeprefix("loss_"))
        return bad

    def means(self) -> Row:
        """The mean of every name, over the steps in which it occurred."""
        return {name: self.sums[name] / self.counts[name] for name in self.sums}

    def reset(self) -> None:
        """Begin a new epoch."""
        self.sums.clear()
        self.counts.clear()

    def state(self) -> dict[str, Any]:
        """The sums so far, JSON-able; flush first."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a `state()`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


def put_row(rows: list[Row], row: Row) -> None:
    """Append a row, or replace the row of the same epoch."""
    if rows and rows[-1]["epoch"] == row["epoch"]:
        rows.pop()
    rows.append(row)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write all rows anew, under a temporary name first; a value that an epoch lacks is left empty.

    Raises:
        UserError: it could not be written; what stood under `path` is untouched.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"could not write {path}: {error.strerror}") from error


class Events:
    """TensorBoard events of a run; nothing is imported and no file is made before the first row.

    Args:
        folder: where the event files go.
        step: the step at which this process begins; events of a lost future beyond it are purged from view.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.folder = folder
        self.step = step
        self.broken = False
        self._writer: SummaryWriter | None = None

    def add(self, row: Row) -> None:
        """Write a row's values under loss/, observed/, valid/ and speed/, at its step; a full disk costs the events alone."""
        if self.broken:
            return
        try:
            self._add(row)
        except OSError as error:
            self.broken = True
            log.warning("TensorBoard events cannot be written (%s); going on without them", error)

    def _add(self, row: Row) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self.step + 1 if self.step else None)
        step = int(row["step"])
        for name, value in row.items():
            group, _, rest = name.partition("_")
            if group in ("loss", "observed", "valid"):
                self._writer.add_scalar(f"{group}/{rest or 'total'}", value, step)
            elif name in ("lr", "items_per_second"):
                self._writer.add_scalar(f"speed/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file, if there is one."""
        if self._writer is not None and not self.broken:
            self._writer.close()
