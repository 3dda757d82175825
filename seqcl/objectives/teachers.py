"""Teachers: whoever scores all items for a batch of prefixes, such as a trained network or a counted model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from seqcl.types import PAD, SeqBatch, Windows

Logits = Callable[[slice], Tensor]
"""Logits of all N items for some of the positions: (C, N)."""


class Teacher:
    """Scores all items for a batch of prefixes; a subclass gives `logits`, and `at` where there is a quicker way."""

    counted = False
    """It is a model that is counted: `without` counts it on other users alone."""

    def without(self, train: Windows, users: np.ndarray) -> Teacher:
        """The teacher that has not seen the training rows of some users, (U,) bool; a network stays as it is."""
        return self

    def logits(self, batch: SeqBatch) -> Tensor:
        """Logits of items 1..N behind the newest item of each row: (B, N)."""
        raise NotImplementedError

    def at(self, batch: SeqBatch, places: Tensor) -> Logits:
        """Make the function that gives the logits behind some of the places (T,), which are numbers in the flattened (B, L)."""
        return lambda part: self.logits(prefixes(batch, places[part]))

    def to(self, device: torch.device) -> Teacher:
        """Move what it scores with to a device."""
        return self


def prefixes(batch: SeqBatch, places: Tensor) -> SeqBatch:
    """The rows up to each of the places (C,), which are numbers in the flattened (B, L): C rows."""
    row, last = places // batch.items.shape[1], places % batch.items.shape[1]
    items = batch.items[row, : int(last.max()) + 1 if len(last) else 1]  # (C, L')
    behind = torch.arange(items.shape[1], device=items.device) > last[:, None]
    users = None if batch.users is None else batch.users[row]
    return SeqBatch(items.masked_fill(behind, PAD), last + 1, users=users)


@torch.no_grad()
def joint_chances(
    teachers: Sequence[Teacher], batch: SeqBatch, places: Tensor, *, temperature: float, counted: float = 0.0
) -> Logits:
    """Make the function that gives the teachers' common chances of all items at a temperature: (C, N).

    Args:
        teachers: one or more.
        batch: rows.
        places: numbers in the flattened rows (B, L): (T,).
        temperature: divisor of logits.
        counted: 0: the mean of the teachers' softmax. Else the softmax of the mean logits of networks and, with this weight
            each, the logits of models that are counted.
    """
    each = [teacher.at(batch, places) for teacher in teachers]
    networks = sum(not teacher.counted for teacher in teachers)
    weights = [counted if teacher.counted else 1 / networks for teacher in teachers]

    @torch.no_grad()
    def chances(part: slice) -> Tensor:
        if counted:
            sums = sum(weight * logits(part).float() for weight, logits in zip(weights, each, strict=True))
            return cast(Tensor, sums).div(temperature).softmax(1)
        found = (logits(part).float().div(temperature).softmax(1) for logits in each)
        return torch.stack(list(found)).mean(0) if len(each) > 1 else next(found)

    return chances
