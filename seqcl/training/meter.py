"""Means of an epoch's losses, read from the device now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqcl.errors import ADVICE, Diverged, not_finite
from seqcl.training.state import Row, State


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

    def add_step(
        self, losses: Mapping[str, Tensor], observed: Mapping[str, Tensor], *, total: Tensor, items: Tensor
    ) -> None:
        """Note the losses, the observed scalars and the number of items of one step."""
        values = {f"loss_{name}": value for name, value in losses.items()}
        values |= {f"observed_{name}": value for name, value in observed.items()}
        self.add(values | {"loss": total, "items": items})

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Note scalars of one step; they stay on their device."""
        names = tuple(values)
        if names != self._names:
            self.flush()
            self._names = names
        self._pending.append(torch.stack([value.detach().float() for value in values.values()]))

    @property
    def full(self) -> bool:
        """True where `every` steps wait for a `flush`."""
        return len(self._pending) >= self.every

    def flush(self) -> tuple[int, str] | None:
        """Read the waiting steps; give (steps before now, name) of the first loss that is not finite, or None.

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


def raise_if_diverged(meter: Meter, state: State, last: Path | None) -> None:
    """Read the meter and stop a run whose loss is not finite; call it before anything is saved.

    Raises:
        Diverged: names the loss, its step, and the last good checkpoint if `last` is there.
    """
    bad = meter.flush()
    if bad is None:
        return
    ago, name = bad
    place = f"(epoch {state.epoch + 1}, batch {state.batch - ago} of {state.batches})"
    raise Diverged(f"the loss {name!r} is not finite at step {state.step - ago} {place}; {last_good(last)}. {ADVICE}.")


def raise_if_weights_diverged(model: nn.Module, state: State, last: Path | None) -> None:
    """Stop a run whose newest step made a weight that is not finite: its loss would show only at the next step.

    Raises:
        Diverged: names the weight, the step, and the last good checkpoint if `last` is there.
    """
    name = not_finite(dict(model.named_parameters()))
    if name is not None:
        raise Diverged(f"the weight {name} is not finite after step {state.step}; {last_good(last)}. {ADVICE}.")


def last_good(last: Path | None) -> str:
    """The checkpoint to go on from, in words."""
    return f"the last good checkpoint is {last}" if last and last.exists() else "nothing was saved before it"
