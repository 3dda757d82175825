"""Contrast with a bank that holds a vector of every user: PIRL and instance discrimination."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.augment import Pair, View, halves, stack
from seqcl.encoders import Encoder
from seqcl.errors import UserError, positive
from seqcl.losses import check_negatives, wide
from seqcl.objectives.base import rng
from seqcl.objectives.follower import check_momentum
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.kinship import Rows, last_of_each, masked_share, no_other, own_among_others
from seqcl.objectives.temperature import Schedule, Tempered
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch, Windows


class PIRL(Tempered, ViewsObjective):
    """A row and a view of it must each find the row's vector in a bank, among drawn others: the term `contrast`.

    Source: PIRL, arXiv 1912.01991, eq. 5; the bank is that of instance discrimination, arXiv 1805.01978.

    Differs from the paper: InfoNCE instead of noise contrastive estimation, and one vector for each user instead of
    each row. These users are no negatives: the row's own user, the user whose row is its view, users whose vector was
    last made with the same last target, and users without a vector yet.

    Args:
        views: Source of the view of a row; of a pair of views the second is used.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.07 in the paper.
        negatives: Vectors drawn from the bank for each batch; 32,000 in the paper.
        momentum: Fraction of a user's vector that stays when its row comes again; 0.5 in the paper.
        balance: Factor of the view's loss; the row's own loss has 1 - balance; 0.5 in the paper.
        head: Projection of the row and, with weights of its own, of the view.
        hardness: Weight of hard negatives, beta (arXiv 2010.04592); 0 for all alike.
        prior: Chance that a negative is a false one, tau+ (arXiv 2007.00224); 0 for none. See `TwoViews` for its size.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
    """

    bank: Tensor  # (U, D), unit length, zero where a user has none yet
    targets: Tensor  # (U,), last target of the row that last changed the vector

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        negatives: int = 4096,
        momentum: float = 0.5,
        balance: float = 0.5,
        head: Head = "linear",
        hardness: float = 0.0,
        prior: float = 0.0,
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.begin(temperature, schedule, highest, period)
        positive("PIRL", negatives=negatives)
        check_momentum("PIRL", momentum)
        if not 0 <= balance <= 1:
            raise UserError(f"PIRL: balance must be from 0 to 1, not {balance}")
        self.negatives, self.momentum, self.balance = negatives, momentum, balance
        check_negatives("PIRL", hardness=hardness, prior=prior)
        self.hardness, self.prior = hardness, prior
        self.view_head = projection(head, dim)
        self.register_buffer("bank", torch.zeros(0, dim))
        self.register_buffer("targets", torch.zeros(0, dtype=torch.int64))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.bank = self.bank.new_zeros(train.num_users, self.bank.shape[1])
        self.targets = self.targets.new_zeros(train.num_users)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        if batch.users is None:
            raise UserError("PIRL: needs a batch with users")
        source = batch._replace(targets=None)
        shown = halves(self.make_views(batch))[1]
        states = encoder.last(stack(source, shown))  # (2B, D)
        row, view = states.chunk(2)
        row = F.normalize(wide(self.head(row)), dim=1)
        view = F.normalize(wide(self.view_head(view)), dim=1)
        mine = self.bank[batch.users]  # (B, D)
        known = mine.abs().sum(1) > 0
        mine = torch.where(known[:, None], mine, row.detach())  # a user seen for the first time
        drawn = torch.randint(len(self.bank), (self.negatives,), generator=rng(row.device), device=row.device)
        others = self.bank[drawn]  # (K, D)
        empty = others.abs().sum(1) == 0
        rows, strangers = Rows.of(batch), Rows(drawn, self.targets[drawn])
        masked = rows.like(strangers) | rows.shown_as(shown).like(strangers)  # (B, K)
        by_view, by_row = (
            own_among_others(
                queries,
                mine,
                others,
                masked=masked,
                empty=empty,
                temperature=self.temperature,
                hardness=self.hardness,
                prior=self.prior,
            )
            for queries in (view, row)
        )
        total = self.balance * by_view + (1 - self.balance) * by_row
        self.observe(row, view, masked_share=masked_share(masked, among=~empty), **self.seen())
        self.lack(contrast=no_other(masked, empty))
        self.put(batch, row.detach())
        return {"contrast": self.weight * total}

    @torch.no_grad()
    def put(self, batch: SeqBatch, rows: Tensor) -> None:
        """Move the vectors of the batch's users towards their rows (B, D); a user's last row counts."""
        assert batch.users is not None
        old = self.bank[batch.users]
        fresh = (old.abs().sum(1, keepdim=True) == 0).to(rows.dtype)
        keep = self.momentum * (1 - fresh)
        new = F.normalize(keep * old + (1 - keep) * rows, dim=1)
        users, place = last_of_each(batch.users)
        self.bank[users], self.targets[users] = new[place], Rows.of(batch).targets[place].clamp(min=0)
