"""Means of an epoch's losses, read from the device now and then."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqcl.errors import ADVICE, Diverged, UserError, all_finite, not_finite
from seqcl.training.state import Row, State

log = logging.getLogger("seqcl")

WITHOUT = "without_"
"""Begin of the name under which the steps that could not give a term are counted; the term follows."""


class Meter:
    """Means over the steps of an epoch, with one transfer from the device in `every` steps.

    Args:
        every: steps between two reads of the device; until then a non-finite loss goes unseen.
    """

    def __init__(self, *, every: int = 32) -> None:
        self.every = every
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.said: set[str] = set()  # the terms of which a warning has said that no batch gives them
        self._names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []
        self._watched, self._finite = -1, list[Tensor]()

    def add_step(
        self,
        losses: Mapping[str, Tensor],
        observed: Mapping[str, Tensor],
        *,
        total: Tensor,
        items: Tensor,
        missing: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Note the losses, the observed scalars, the number of items, and the terms that are missing, of one step."""
        values = {f"loss_{name}": value for name, value in losses.items()}
        values |= {f"observed_{name}": value for name, value in observed.items()}
        values |= {f"{WITHOUT}{name}": value for name, value in (missing or {}).items()}
        self.add(values | {"loss": total, "items": items})

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Note scalars of one step; they stay on their device."""
        names = tuple(values)
        if names != self._names:
            self.flush()
            self._names = names
        self._pending.append(torch.stack([value.detach().float() for value in values.values()]))

    @torch.no_grad()
    def watch(self, model: nn.Module, step: int) -> None:
        """Note, once a step, whether all weights are finite; the next `flush` reads it together with the losses."""
        if self._watched != step:
            self._watched = step
            self._finite = [torch.stack([all_finite(one) for one in model.parameters()]).all().float()]

    @property
    def full(self) -> bool:
        """True where `every` steps wait for a `flush`."""
        return len(self._pending) >= self.every

    def flush(self) -> tuple[int, str] | None:
        """Read the waiting steps; give (steps before now, name) of the first loss that is not finite, or None.

        The steps are added one by one: the sums must not depend on where a checkpoint fell. A weight that is not finite
        is found at the last step, under the name of no loss: "".
        """
        if not self._pending and not self._finite:
            return None
        read = torch.cat([*self._pending, *(flag[None] for flag in self._finite)]).tolist()  # one read of the device
        width = len(self._names)
        rows = [read[start : start + width] for start in range(0, width * len(self._pending), width or 1)]
        bad = (0, "") if self._finite and not read[-1] else None
        self._pending.clear()
        self._finite.clear()
        for index, row in enumerate(rows):
            for name, value in zip(self._names, row, strict=True):
                if math.isfinite(value):
                    self.sums[name] = self.sums.get(name, 0.0) + value
                    self.counts[name] = self.counts.get(name, 0) + 1
                elif name.startswith("loss_") and (bad is None or not bad[1]):
                    # An observed value may be undefined in a batch, as the uniformity of a single row is.
                    bad = (len(rows) - 1 - index, name.removeprefix("loss_"))
        return bad

    def means(self) -> Row:
        """The mean of every name, over the steps in which it occurred; of missing terms the number of steps without them."""
        means = {name: self.sums[name] / self.counts[name] for name in self.sums if not name.startswith(WITHOUT)}
        return means | {name: self.sums[name] for name in self.sums if name.startswith(WITHOUT) and self.sums[name]}

    def never_given(self) -> list[str]:
        """The terms that no step could give."""
        names = [name for name in self.sums if name.startswith(WITHOUT)]
        return [name.removeprefix(WITHOUT) for name in names if self.sums[name] == self.counts[name]]

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


def raise_if_diverged(meter: Meter, state: State, last: Path | None, model: nn.Module | None = None) -> None:
    """Read the meter and stop a run whose loss is not finite; call it before anything is saved.

    Args:
        meter: the losses since the last call.
        state: of the run.
        last: its newest checkpoint.
        model: its weights are looked at too: one that the newest step broke would show in the loss of the next step only.

    Raises:
        Diverged: names the loss or the weight, its step, and the last good checkpoint if `last` is there.
    """
    if model is not None:
        meter.watch(model, state.step)
    bad = meter.flush()
    if bad is None:
        return
    ago, name = bad
    place = f"(epoch {state.epoch + 1}, batch {state.batch - ago} of {state.batches})"
    what = f"the loss {name!r}" if name or model is None else f"the weight {not_finite(dict(model.named_parameters()))}"
    raise Diverged(f"{what} is not finite at step {state.step - ago} {place}; {last_good(last)}. {ADVICE}.")


def last_good(last: Path | None) -> str:
    """The checkpoint to go on from, in words."""
    return f"the last good checkpoint is {last}" if last and last.exists() else "nothing was saved before it"


def say_never_given(meter: Meter, state: State) -> None:
    """Warn of a term that no batch of the epoch could give, once; call it at the end of an epoch.

    Raises:
        UserError: no batch could give any term.
    """
    never = meter.never_given()
    terms = [name.removeprefix("loss_") for name in meter.sums if name.startswith("loss_")]
    if never and set(never) >= set(terms):
        raise UserError(
            f"nothing was learned in epoch {state.epoch + 1}: none of its {state.batches} batches could give "
            f"{', '.join(repr(name) for name in terms)}, as no row has a target and another row to differ from"
        )
    for name in sorted(set(never) - meter.said):
        meter.said.add(name)
        log.warning(
            "the loss %r is 0: none of the %d batches of epoch %d has what it compares, such as rows of different users "
            "and targets; a larger train.batch_size may help",
            name,
            state.batches,
            state.epoch + 1,
        )
