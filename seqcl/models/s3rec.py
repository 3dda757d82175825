"""S3-Rec (Zhou et al., CIKM 2020, arXiv 2008.07873)."""

from __future__ import annotations

from dataclasses import dataclass

from seqcl.errors import UserError
from seqcl.models.base import Pretraining, Recommender
from seqcl.objectives import MutualInformation
from seqcl.parts import Part, chosen, part
from seqcl.types import Windows


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Options of pre-training, which runs for all its epochs without validation; everything else is as in training.

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

    Differs from the paper: full softmax over cosines, and the differences that `MutualInformation` names.
    """

    pretrain = part(Stage)
    mutual = part(MutualInformation)

    more_items = 1  # pre-training reads whole rows, with their last target
    contrast_off = ("pretrain.epochs",)

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        own = chosen(type(self), parts)
        self.train_windows, self.stage, self.mutual = train, own["pretrain"](), own["mutual"]

    def pretraining(self) -> Pretraining | None:
        """The stage before training; None where it has no epochs."""
        if not self.stage.epochs:
            return None
        objective = self.mutual(dim=self.encoder.dim)
        objective.prepare(self.encoder, self.train_windows)
        return Pretraining(encoder=self.encoder, objective=objective, epochs=self.stage.epochs, lr=self.stage.lr)
