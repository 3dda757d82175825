"""S3-Rec (Zhou et al., CIKM 2020, arXiv 2008.07873)."""

from __future__ import annotations

from functools import partial
from typing import Any

from seqcl import encoders
from seqcl.errors import UserError
from seqcl.models.base import Pretraining, Recommender
from seqcl.objectives import MutualInformation, NextItem
from seqcl.types import Windows


def stage(*, epochs: int = 20, lr: float = 1e-3) -> dict[str, Any]:
    """How long and how fast the encoder is pre-trained; all else is as in training.

    Args:
        epochs: passes over the training windows (paper's checkpoints 100 to 150), 0 for none.
        lr: highest learning rate.
    """
    if epochs < 0 or lr < 0:
        raise UserError(f"S3Rec: pretrain.epochs and pretrain.lr must not be negative, not {epochs} and {lr}")
    return {"epochs": epochs, "lr": lr}


class S3Rec(Recommender):
    """Pre-training by mutual information of items, attributes, segments and rows; then next item (Zhou et al. 2020, arXiv 2008.07873).

    Differs from the paper: full softmax over cosines, and what `MutualInformation` says.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        pretrain: partial[dict[str, Any]] = partial(stage),
        mutual: partial[MutualInformation] = partial(MutualInformation),
    ) -> None:
        # A whole row, which pre-training reads, is one longer than a window.
        built = encoder(num_items=train.num_items, max_len=train.max_len + 1)
        super().__init__(train, encoder=built, next_item=next_item())
        self.train_windows, self.stage, self.mutual = train, pretrain(), mutual

    def pretraining(self) -> Pretraining | None:
        if not self.stage["epochs"]:
            return None
        objective = self.mutual(dim=self.encoder.dim)
        objective.prepare(self.encoder, self.train_windows)
        return Pretraining(encoder=self.encoder, objective=objective, **self.stage)
