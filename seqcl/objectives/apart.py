"""The loss of each of several encoders side by side, so that each learns as if it were alone."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.encoders import Encoder, Scoring, dealt
from seqcl.objectives.base import Objective
from seqcl.types import Batches, SeqBatch, Windows


class Apart(Objective):
    """The mean of an objective's terms over the members of an ensemble; no member sees what another one scores.

    Args:
        ranker: the objective; what it learns beside the encoder, such as biases of items, all members share.
    """

    def __init__(self, ranker: Objective) -> None:
        super().__init__()
        self.ranker = ranker
        self.times_needed = ranker.times_needed

    @property
    def scoring(self) -> Scoring:  # type: ignore[override]
        """The scoring by which items are ranked."""
        return self.ranker.scoring

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        found = [self.ranker(dealt(one), batch) for one in encoder.each()]
        self.observed, self.missing = self.ranker.observed, self.ranker.missing
        return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.ranker.prepare(encoder.each()[0], train)

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        for one in encoder.each():
            self.ranker.before_epoch(one, batches, epoch=epoch, epochs=epochs)

    def after_step(self, encoder: Encoder) -> None:
        for one in encoder.each():
            self.ranker.after_step(one)
