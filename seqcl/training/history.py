"""The rows of history.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from seqcl.disk import whole_file
from seqcl.errors import UserError
from seqcl.training.meter import Meter
from seqcl.training.state import Row, State


def epoch_row(state: State, meter: Meter, *, lr: float, seconds: float) -> Row:
    """The row of the epoch under way, without validation; `lr` is the rate of the next update."""
    means = meter.means()
    means.pop("items", None)
    speed = meter.sums.get("items", 0.0) / max(state.train_seconds, 1e-9)
    row: Row = {"epoch": state.epoch + 1, "step": state.step, "seconds": seconds}
    row |= {"train_seconds": state.train_seconds, "lr": lr, "items_per_second": speed}
    return row | {"loss": means.pop("loss", float("nan"))} | means


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write all rows as a new file in the place of the old one; a value that an epoch lacks is left empty.

    Raises:
        UserError: the file could not be written; the one before it is untouched.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"could not write {path}: {error.strerror}") from error
