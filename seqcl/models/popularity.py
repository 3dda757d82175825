"""The most frequent items for everyone: the floor that every model must clear."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.models.base import Baseline
from seqcl.parts import Part
from seqcl.types import SeqBatch, Windows


class Popularity(Baseline):
    """Items by their count in training, the same for everyone."""

    counts: Tensor

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        self.register_buffer("counts", torch.from_numpy(train.item_counts()[1:-1]).float())  # (N,)

    def scores(self, batch: SeqBatch) -> Tensor:
        """Training counts: (B, N)."""
        return self.counts.expand(len(batch.items), -1)
