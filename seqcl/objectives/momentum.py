"""Momentum contrast: keys from a slow copy of the encoder, and a queue of the newest keys (MoCo)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.augment import Pair, View, halves
from seqcl.encoders import Encoder
from seqcl.errors import not_negative, positive
from seqcl.losses import check_negatives, hard_mixes, wide
from seqcl.objectives.base import check_prepared, refuse_unread, rng
from seqcl.objectives.follower import Follower, check_momentum
from seqcl.objectives.heads import Head
from seqcl.objectives.kinship import Rows, masked_share, no_other, own_among_others
from seqcl.objectives.temperature import Schedule, Tempered
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch, Windows


class MoCo(Tempered, ViewsObjective):
    """Each first view must find the key of its second view among a queue of keys: the term `contrast`.

    Source: MoCo, arXiv 1911.05722, eq. 1. With head=mlp it is version 2 (arXiv 2003.04297), with head=linear version 1.
    With `mixed` or `mixed_with_query` each query also has synthetic negatives, mixed of its hardest ones (MoCHi, arXiv 2010.01028).

    Differs from the paper: keys of the same user or with the same last target are no negatives, and no part of a mix. The
    queue starts empty instead of random. Mixes begin with the first step, in the paper with the eleventh epoch.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.07 in the paper.
        queue: Keys kept as negatives; 65536 in the paper, for a million images.
        momentum: Fraction of the key encoder that stays in each step; 0.999 in the paper.
        head: Projection before the contrast: none, linear, mlp, mlp_bn or mlp3.
        hardness: Weight of hard negatives, beta (arXiv 2010.04592); 0 for all alike.
        prior: Chance that a negative is a false one, tau+ (arXiv 2007.00224); 0 for none. See `TwoViews` for its size.
        mixed: Synthetic negatives of each query that are mixed of two hard ones; 0 to 1024 in MoCHi.
        mixed_with_query: Synthetic negatives of each query that are mixed of a hard one and the query; 0 to 256 in MoCHi.
        hardest: Number of the hardest keys of a query that are mixed; 1024 in MoCHi.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
    """

    keys: Tensor  # (Q, D), unit length
    users: Tensor  # (Q,)
    targets: Tensor  # (Q,)
    count: Tensor  # (), number of keys ever put in

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        queue: int = 4096,
        momentum: float = 0.999,
        head: Head = "mlp",
        hardness: float = 0.0,
        prior: float = 0.0,
        mixed: int = 0,
        mixed_with_query: int = 0,
        hardest: int = 256,
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.begin(temperature, schedule, highest, period)
        positive("MoCo", queue=queue, hardest=hardest)
        not_negative("MoCo", mixed=mixed, mixed_with_query=mixed_with_query)
        if not mixed and not mixed_with_query:
            refuse_unread("MoCo", "mixed or mixed_with_query above 0", MoCo, hardest=hardest)
        self.mixed, self.mixed_with_query, self.hardest = mixed, mixed_with_query, hardest
        check_negatives("MoCo", hardness=hardness, prior=prior)
        self.hardness, self.prior = hardness, prior
        check_momentum("MoCo", momentum)
        self.momentum = momentum
        self.register_buffer("keys", torch.zeros(queue, dim))
        self.register_buffer("users", torch.full((queue,), -1))
        self.register_buffer("targets", torch.zeros(queue, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.follower = Follower(encoder, self.head)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        check_prepared(self, hasattr(self, "follower"))
        first, second = halves(self.make_views(batch))
        queries = F.normalize(wide(self.head(encoder.last(first))), dim=1)  # (B, D)
        keys = F.normalize(wide(self.follower(second)), dim=1)  # (B, D)
        rows = Rows.of(batch)
        empty = torch.arange(len(self.keys), device=keys.device) >= self.count  # (Q,)
        queue = Rows(self.users, self.targets)
        masked = (rows.like(queue) | rows.shown_as(first).like(queue)) & ~empty  # (B, Q)
        others = self.keys.clone()  # `put` changes the queue before the backward pass reads it
        mixes = self.mixes(queries, others, ~(masked | empty)) if self.mixed or self.mixed_with_query else None
        loss = own_among_others(
            queries,
            keys,
            others,
            masked=masked,
            empty=empty,
            temperature=self.temperature,
            mixes=mixes,
            hardness=self.hardness,
            prior=self.prior,
        )
        self.observe(queries, keys, masked_share=masked_share(masked, among=~empty), **self.seen())
        self.lack(contrast=no_other(masked, empty))
        self.put(keys, rows.shown_as(second))
        return {"contrast": self.weight * loss}

    def mixes(self, queries: Tensor, keys: Tensor, negatives: Tensor) -> Tensor:
        """Mix the hardest negatives, (B, Q) bool among the keys, of each query: (B, S, D)."""
        return hard_mixes(
            queries,
            keys,
            negatives,
            hardest=self.hardest,
            of_keys=self.mixed,
            with_query=self.mixed_with_query,
            generator=rng(queries.device),
        )

    @torch.no_grad()
    def put(self, keys: Tensor, rows: Rows) -> None:
        """Put new keys (B, D) and their rows in the place of the oldest ones."""
        newest = slice(max(0, len(keys) - len(self.keys)), None)
        keys, users, targets = keys[newest], rows.users[newest], rows.targets[newest]
        place = (self.count + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[place], self.users[place], self.targets[place] = keys, users, targets
        self.count += len(keys)

    def after_step(self, encoder: Encoder) -> None:
        super().after_step(encoder)
        self.follower.follow(encoder, self.momentum)
