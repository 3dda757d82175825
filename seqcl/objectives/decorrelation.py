"""Two views whose channels agree and differ from one another, without negatives: Barlow Twins and VICReg."""

from __future__ import annotations

from torch import Tensor

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import not_negative
from seqcl.losses import barlow, vicreg
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch


class Decorrelation(ViewsObjective):
    """The base of both: views go through a wide head, and a single row, which has no deviation, gives no term."""

    def __init__(self, *, views: Pair | View, dim: int, weight: float, head: Head, width: int) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head="none")
        self.head = projection(head, dim, width)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views, (B, W) each."""
        raise NotImplementedError

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        first, second = self.head(encoder.last(self.make_views(batch))).chunk(2)  # (B, W), (B, W)
        alone = len(first) < 2
        self.observe(first, second)
        self.lack(decorrelate=first.new_tensor(alone))
        return {"decorrelate": first.sum() * 0 if alone else self.weight * self.loss(first, second)}


class Barlow(Decorrelation):
    """Make the correlation of two views' channels the unit matrix: the term `decorrelate` (Barlow Twins, arXiv 2103.03230).

    Differs from the paper: the loss is a mean over channels. The head has two layers instead of three, and batch norm sees
    both views together.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        redundancy: Factor of the pairs of different channels; 0.005 in the paper, where a channel has 8,191 others.
        head: Projection before the loss, dropped after training.
        width: Channels that the head makes of a state; 8192 in the paper, of 2048.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        redundancy: float = 0.005,
        head: Head = "mlp_bn",
        width: int = 256,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head, width=width)
        not_negative("Barlow", redundancy=redundancy)
        self.redundancy = redundancy

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        return barlow(first, second, redundancy=self.redundancy)


class VICReg(Decorrelation):
    """Make two views agree while channels stay spread and uncorrelated: the term `decorrelate` (VICReg, arXiv 2105.04906).

    Differs from the paper: all factors are over that of the distance, 25. The head has two layers instead of three, and
    batch norm sees both views together.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        variance: Factor of the spread of channels; 25 / 25 in the paper.
        covariance: Factor of the covariances; 1 / 25 in the paper.
        head: Projection before the loss, dropped after training.
        width: Channels that the head makes of a state; 8192 in the paper, of 2048.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        variance: float = 1.0,
        covariance: float = 0.04,
        head: Head = "mlp_bn",
        width: int = 256,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head, width=width)
        not_negative("VICReg", variance=variance, covariance=covariance)
        self.variance, self.covariance = variance, covariance

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        return vicreg(first, second, variance=self.variance, covariance=self.covariance)
