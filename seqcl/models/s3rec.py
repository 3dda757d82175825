"""S3-Rec (Zhou et al., CIKM 2020, arXiv 2008.07873)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from seqcl import encoders
from seqcl.errors import UserError
from seqcl.models.base import Pretraining, Recommender
from seqcl.objectives import MutualInformation, NextItem
from seqcl.types import Windows


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How the encoder is pre-trained: for all its epochs, without validation or an average of the weights; all else as in training.

    Args:
        epochs: passes over the training windows (paper's checkpoints 100 to 150), 0 for none.
        lr: highest learning rate.
    """

    epochs: int = 20
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.lr < 0:
            raise UserError(f"pretrain.epochs and pretrain.lr must not be negative, not {self.epochs} and {self.lr}")


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
        pretrain: partial[Stage] = partial(Stage),
        mutual: partial[MutualInformation] = partial(MutualInformation),
    ) -> None:
        # A whole row, which pre-training reads, is one longer than a window.
        built = encoder(num_items=train.num_items, max_len=train.max_len + 1)
        super().__init__(train, encoder=built, next_item=next_item())
        self.train_windows, self.stage, self.mutual = train, pretrain(), mutual

    def pretraining(self) -> Pretraining | None:
        if not self.stage.epochs:
            return None
        objective = self.mutual(dim=self.encoder.dim)
        objective.prepare(self.encoder, self.train_windows)
        return Pretraining(encoder=self.encoder, objective=objective, epochs=self.stage.epochs, lr=self.stage.lr)
