"""Kinship of rows: find those that are no negatives of each other, in a batch, a queue or a bank."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.losses import contrast, similarities
from seqcl.shapes import fixed
from seqcl.types import PAD, SeqBatch


class Rows(NamedTuple):
    """Users and last targets, by which rows are related; a negative user and PAD are unknown, and like nothing else."""

    users: Tensor  # (B,)
    targets: Tensor  # (B,), last targets

    @classmethod
    def of(cls, batch: SeqBatch) -> Rows:
        """Read users and last targets of a batch; those it lacks are unknown."""
        unknown = torch.full_like(batch.lengths, -1)
        targets = batch.last_targets()
        return cls(unknown if batch.users is None else batch.users, unknown if targets is None else targets)

    def shown_as(self, view: SeqBatch) -> Rows:
        """Take the users of a view of these rows, which may be other users (`SameTarget`), if it has some."""
        return self if view.users is None else self._replace(users=view.users)

    def like(self, others: Rows) -> Tensor:
        """Compare rows: True where two are of one user or have one last target, (B, C) bool."""
        users = (self.users[:, None] == others.users) & (self.users[:, None] >= 0)
        return users | self.same_target(others)

    def same_target(self, others: Rows) -> Tensor:
        """Compare last targets: True where two rows have the same, (B, C) bool."""
        return (self.targets[:, None] == others.targets) & (self.targets[:, None] > PAD)


def related(batch: SeqBatch, views: SeqBatch | None = None) -> Tensor:
    """Mark rows that are no negatives of each other: (B, B) bool, symmetric, True on the diagonal.

    Rows of one user or with one last target are related. A view may be another user's row (`SameTarget`); two rows are
    related too if any of their views are of one user.

    Args:
        batch: B rows.
        views: The nB views of the rows, first views first.
    """
    rows = Rows.of(batch)
    same = rows.like(rows) | torch.eye(len(batch.lengths), dtype=torch.bool, device=batch.lengths.device)
    if views is not None and views.users is not None and (fixed() or of_another(batch, views).any()):
        users = [rows.users, *views.users.split(len(rows.users))]
        for one in users:
            for two in users:
                same = same | ((one[:, None] == two) & (two >= 0))
    return same


def of_another(batch: SeqBatch, views: SeqBatch) -> Tensor:
    """Mark the views, as many of every row, that are another user's row: bool, one for each view."""
    if batch.users is None or views.users is None:
        return torch.zeros_like(views.lengths, dtype=torch.bool)
    return views.users != batch.users.repeat(len(views.users) // len(batch.users))


def last_of_each(users: Tensor) -> tuple[Tensor, Tensor]:
    """The different users among (B,), and the last place of each, on every device: (n,), (n,)."""
    found, number = users.unique(return_inverse=True)
    places = torch.arange(len(users), device=users.device)
    return found, torch.zeros_like(found).scatter_reduce_(0, number, places, "amax")


def different_items(items: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """The different items of rows (B, L), without PAD and MASK: (K,), and which rows have them: (B, K) bool."""
    distinct, place = items.unique(return_inverse=True)  # (K,), (B, L)
    has = torch.zeros(len(items), len(distinct), dtype=torch.bool, device=items.device).scatter_(1, place, True)
    real = (distinct > PAD) & (distinct <= num_items)
    return distinct[real], has[:, real]


def own_among_others(
    queries: Tensor,
    keys: Tensor,
    others: Tensor,
    *,
    masked: Tensor,
    empty: Tensor,
    temperature: float | Tensor,
    mixes: Tensor | None = None,
    hardness: float = 0.0,
    prior: float = 0.0,
) -> Tensor:
    """InfoNCE of queries that must each find their own key among keys that all of them share, in a queue or a bank.

    Args:
        queries: (B, D) of unit length.
        keys: (B, D) of unit length, one for each query.
        others: (C, D), the shared keys.
        masked: (B, C) bool, True where a shared key is related to the query and no negative.
        empty: (C,) bool, True where `others` has no key yet.
        temperature: Divisor of the similarities.
        mixes: (B, S, D) further negatives of each query, of unit length; one of zeros is none.
        hardness: Weight of hard negatives, as in `contrast`.
        prior: Chance that a negative is a false one, as in `contrast`.
    """
    own = (queries * keys).sum(1, keepdim=True)  # (B, 1)
    logits = torch.cat((own, similarities(queries, others, "dot")), 1)  # (B, 1 + C)
    keep = F.pad(~(masked | empty), (1, 0), value=True)
    if mixes is not None:
        logits = torch.cat((logits, (mixes * queries[:, None]).sum(2)), 1)  # (B, 1 + C + S)
        keep = torch.cat((keep, mixes.any(2)), 1)
    positives = torch.zeros_like(keep)
    positives[:, 0] = True
    return contrast(logits / temperature, positives, keep=keep, hardness=hardness, prior=prior, lowest=-1 / temperature)


def no_other(masked: Tensor, empty: Tensor) -> Tensor:
    """1 where no query has a shared key as a negative, 0 where one has, NaN while there are no keys yet: a scalar.

    Args:
        masked: (B, C) bool, as in `own_among_others`.
        empty: (C,) bool, as there.
    """
    return torch.where(empty.all(), torch.nan, (masked | empty).all().float())


def masked_share(mask: Tensor, among: Tensor | None = None) -> Tensor:
    """Share of a (B, C) mask that is set, among the places of `among`, (B, C) or (C,), if it is given."""
    if among is None:
        return mask.sum() / max(mask.numel(), 1)
    among = among.expand_as(mask)
    return (mask & among).sum() / among.sum().clamp(min=1)


def related_share(same: Tensor) -> Tensor:
    """Share of a row's other rows that are related to it: scalar from (B, B)."""
    rows = len(same)
    return (same.sum() - rows) / max(rows * (rows - 1), 1)
