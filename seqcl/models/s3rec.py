"""S3-Rec (Zhou et al., CIKM 2020, arXiv 2008.07873)."""

from __future__ import annotations

from seqcl.models.base import Recommender
from seqcl.models.pretraining import Pretraining, Stage
from seqcl.objectives import MutualInformation
from seqcl.parts import Part, chosen, part
from seqcl.types import Windows


class S3Rec(Recommender):
    """Pre-training by mutual information of items, attributes, segments and rows; then next item (Zhou et al. 2020, arXiv 2008.07873).

    Differs from the paper: full softmax over cosines, and the differences that `MutualInformation` names. Pre-training compares
    cosines, whatever training compares: with `next_item.similarity` dot take `mutual.similarity` dot too.
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
        return Pretraining(encoder=self.encoder, objective=objective, stage=self.stage)
