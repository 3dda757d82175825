"""Predict one view from the other: without negatives, BYOL and SimSiam; among the keys of a batch, MoCo v3."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seqcl.augment import Pair, View, halves
from seqcl.encoders import Encoder
from seqcl.losses import cosine_gap, info_nce
from seqcl.objectives.base import check_prepared
from seqcl.objectives.follower import Follower, check_momentum
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.kinship import related, related_share
from seqcl.objectives.temperature import Schedule, Tempered
from seqcl.objectives.views import ViewsObjective
from seqcl.types import Batches, SeqBatch, Windows


class BYOL(ViewsObjective):
    """Each view predicts the other's projection by a slow copy of the encoder: the term `predict` (arXiv 2006.07733).

    The loss is 2 - 2 cos, summed over both directions (eq. 2 and below). The copy's momentum rises from `momentum` to 1
    over the planned epochs, along a cosine (section 3.3).

    Differs from the paper: batch norm sees both views together, and the copy drops out as the encoder does, where the paper's
    networks have no dropout; `norm_each` true and `target_dropout` false change this.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        momentum: Fraction of the copy that stays in the first step; 0.996 in the paper.
        head: Projection of both encoders; mlp_bn in the paper.
        predictor: Map from the encoder's projection to the copy's; the copy has none; mlp_bn in the paper.
        norm_each: Let batch norm see one view at a time, as in the paper.
        target_dropout: Let the copy drop out, as the encoder does.
    """

    step: Tensor  # (), number of updates done
    steps: Tensor  # (), number of updates planned

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        momentum: float = 0.996,
        head: Head = "mlp_bn",
        predictor: Head = "mlp_bn",
        norm_each: bool = False,
        target_dropout: bool = True,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        check_momentum(type(self).__name__, momentum)
        self.momentum, self.norm_each, self.target_dropout = momentum, norm_each, target_dropout
        self.predictor = projection(predictor, dim)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.follower = Follower(encoder, self.head)

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        super().before_epoch(encoder, batches, epoch=epoch, epochs=epochs)
        self.steps.fill_(epochs * len(batches))
        if not epoch:
            self.step.zero_()  # training begins after a stage of pre-training with this objective

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        check_prepared(self, hasattr(self, "follower"))
        both = self.make_views(batch)
        if not self.target_dropout:
            self.follower.encoder.eval()
        states = encoder.last(both)  # (2B, D)
        if self.norm_each:
            predicted = torch.cat([self.predictor(self.head(view)) for view in states.chunk(2)])
            first, second = (self.follower(view) for view in halves(both))  # (B, D), (B, D)
        else:
            predicted = self.predictor(self.head(states))  # (2B, D)
            first, second = self.follower(both).chunk(2)  # (B, D), (B, D)
        loss = 2 * cosine_gap(predicted, torch.cat((second, first)))  # the mean over 2B is half the sum of both ways
        self.observe(*predicted.detach().chunk(2))
        return {"predict": self.weight * loss}

    def rate(self) -> float:
        """Momentum of the next update."""
        done = min(1.0, float(self.step) / max(1, int(self.steps)))
        return 1 - (1 - self.momentum) * (math.cos(math.pi * done) + 1) / 2

    def after_step(self, encoder: Encoder) -> None:
        self.follower.follow(encoder, self.rate())
        self.step += 1


class MoCoV3(Tempered, BYOL):
    """Each view must find the key that a slow copy makes of its partner, among those of the batch: the term `contrast`.

    Source: MoCo v3, arXiv 2104.02057, algorithm 1: no queue, a predictor, both directions. The copy's momentum rises to 1.

    Differs from the paper: the mean over both directions, without the factor of twice the temperature. The projection has two
    layers instead of three, as in the authors' code for convolutional networks; maps are as wide as a state, without a batch
    norm behind the last layer. Rows of one user or with one last target are no negatives of each other. Batch norm sees
    both views together, and the copy drops out as the encoder does.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.2 in the paper.
        momentum: Fraction of the copy that stays in the first step; 0.99 in the paper.
        head: Projection of both encoders.
        predictor: Map from the encoder's projection to the copy's; the copy has none.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        momentum: float = 0.99,
        head: Head = "mlp_bn",
        predictor: Head = "mlp_bn",
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, momentum=momentum, head=head, predictor=predictor)
        self.begin(temperature, schedule, highest, period)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        check_prepared(self, hasattr(self, "follower"))
        both = self.make_views(batch)
        queries = self.predictor(self.head(encoder.last(both))).chunk(2)  # (B, D) each
        keys = self.follower(both).chunk(2)  # (B, D) each
        same = related(batch, both)  # (B, B)
        one, two = (
            info_nce(queries[side], keys[1 - side], temperature=self.temperature, keep=~same) for side in (0, 1)
        )
        self.observe(*(side.detach() for side in queries), masked_share=related_share(same), **self.seen())
        self.lack(contrast=same.all())
        return {"contrast": self.weight * (one + two) / 2}


class SimSiam(ViewsObjective):
    """Each view predicts the other's projection, which takes no gradient: the term `predict` (arXiv 2011.10566, eq. 2).

    Differs from the paper: the loss is 2 - 2 cos instead of - cos, so it is never negative and its gradient is twice as
    large. The projection has two layers instead of three and no batch norm behind the last, the predictor has no bottleneck,
    and batch norm sees both views together.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        head: Projection of both views.
        predictor: Map from one view's projection to the other's.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        head: Head = "mlp_bn",
        predictor: Head = "mlp_bn",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.predictor: nn.Module = projection(predictor, dim)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        projected = self.head(encoder.last(self.make_views(batch)))  # (2B, D)
        first, second = projected.detach().chunk(2)
        loss = cosine_gap(self.predictor(projected), torch.cat((second, first)))
        self.observe(first, second)
        return {"predict": self.weight * loss}
