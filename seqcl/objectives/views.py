"""What all contrastive objectives share: two views of every row, encoded, and rows that are no negatives of each other."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import UserError, check_choice, not_negative
from seqcl.losses import alignment, uniformity
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.heads import Head, projection
from seqcl.types import PAD, Batches, SeqBatch, Windows

States = Literal["newest", "mean", "all"]


class Rows(NamedTuple):
    """What tells that two rows belong together; a negative user and PAD are unknown, and like nothing else."""

    users: Tensor  # (B,)
    targets: Tensor  # (B,), last targets

    @classmethod
    def of(cls, batch: SeqBatch) -> Rows:
        """The rows of a batch."""
        unknown = torch.full_like(batch.lengths, -1)
        targets = batch.last_targets()
        return cls(unknown if batch.users is None else batch.users, unknown if targets is None else targets)

    def like(self, others: Rows) -> Tensor:
        """Which rows are of one user or have one last target: (B, C) bool."""
        users = (self.users[:, None] == others.users) & (self.users[:, None] >= 0)
        return users | self.same_target(others)

    def same_target(self, others: Rows) -> Tensor:
        """Which rows have one last target: (B, C) bool."""
        return (self.targets[:, None] == others.targets) & (self.targets[:, None] > PAD)


class ViewsObjective(Objective):
    """A weighted contrastive term over two views of every row, made from `views` and encoded in one pass.

    `observed` holds alignment and uniformity (arXiv 2005.10242) of the two views and, where there are negatives,
    `masked_share`: the share of the candidates that are kept from being negatives.
    """

    def __init__(self, *, views: Pair | View, dim: int, weight: float, head: Head) -> None:
        super().__init__()
        not_negative(type(self).__name__, weight=weight)
        self.views = Pair(views=[views]) if isinstance(views, View) else views
        self.times_needed = self.views.times_needed
        self.head = projection(head, dim)
        self.weight = weight

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.views.prepare(train)

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        self.views.before_epoch(encoder.item_embeddings(), epoch)

    def make_views(self, batch: SeqBatch) -> SeqBatch:
        """Both views as one batch of 2B rows, first views first."""
        return self.views.stacked(batch, rng(batch.items.device))

    def observe(self, first: Tensor, second: Tensor, **others: Tensor) -> None:
        """Note what is logged and not minimised."""
        with torch.no_grad():
            spread = (uniformity(first) + uniformity(second)) / 2
            self.observed = {"alignment": alignment(first, second), "uniformity": spread, **others}


def row_states(encoder: Encoder, batch: SeqBatch, *kinds: States) -> tuple[Tensor, ...]:
    """What stands for each row, for every kind asked: its newest state, the mean of its states, or all of them.

    newest and mean are (B, D). all is (B, L * D), the newest state first and zeros behind the oldest, so that an inner product
    is the sum over states of one distance to the end. One encoding serves mean and all; of a bidirectional encoder they are
    without the MASK at which its newest state is read.
    """
    others = set(kinds) - {"newest"}
    found: dict[str, Tensor] = {"newest": encoder.last(batch)} if "newest" in kinds else {}
    if others:
        states = encoder(batch)  # (B, L, D)
        behind = batch.lengths[:, None] - 1 - torch.arange(states.shape[1], device=states.device)  # (B, L)
        turned = states.gather(1, behind.clamp(min=0)[..., None].expand_as(states))  # newest first
        turned = turned.masked_fill((behind < 0)[..., None], 0)
        found |= {"mean": turned.sum(1) / batch.lengths[:, None], "all": turned.flatten(1)}
    return tuple(found[kind] for kind in kinds)


def users_of(view: SeqBatch, rows: Rows) -> Tensor:
    """Whose rows the views are: the batch's users, unless a view says otherwise (B,)."""
    return rows.users if view.users is None else view.users


def check_states(name: str, states: States, head: Head) -> None:
    """Refuse an unknown choice, and a head over all states of a row, whose number varies.

    Raises:
        UserError: names the choice or the head.
    """
    check_choice("states", states, States)
    if states == "all" and head != "none":
        raise UserError(f"{name}: states=all takes no head, not {head}: use states=mean, or head=none")


def share(mask: Tensor, of: Tensor | None = None) -> Tensor:
    """The share of a (B, C) mask that is set, among the places of (B, C) or (C,) `of` if given."""
    if of is None:
        return mask.sum() / max(mask.numel(), 1)
    of = of.expand_as(mask)
    return (mask & of).sum() / of.sum().clamp(min=1)
