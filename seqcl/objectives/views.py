"""The base class of contrastive objectives: two views of every row, encoded in one pass."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import UserError, not_negative
from seqcl.losses import alignment, uniformity
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.heads import Head, projection
from seqcl.types import Batches, SeqBatch, Windows


class ViewsObjective(Objective):
    """A weighted contrastive term over two views of every row, or more, made from `views` and encoded in one pass.

    `observed` holds alignment and uniformity (arXiv 2005.10242) of the views. Where there are negatives it also
    holds `masked_share`: the share of the candidates that are kept from being negatives.
    """

    many_views: bool = False
    """It compares more than two views of a row."""

    def __init__(self, *, views: Pair | View, dim: int, weight: float, head: Head) -> None:
        super().__init__()
        name = type(self).__name__
        not_negative(name, weight=weight)
        self.views = Pair(views=[views]) if isinstance(views, View) else views
        if self.views.number > 2 and not self.many_views:
            raise UserError(f"{name} compares two views of a row, not {self.views.number}; TwoViews compares more")
        self.times_needed = self.views.times_needed
        self.head = projection(head, dim)
        self.weight = weight

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.views.prepare(train)

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        self.views.before_epoch(encoder.item_embeddings(), epoch)

    def make_views(self, batch: SeqBatch) -> SeqBatch:
        """Make all n views as one batch of nB rows, first views first; it has users where they may be others than the rows'."""
        views = self.views.stacked(batch, rng(batch.items.device))
        return views._replace(users=None) if self.views.keeps_users else views

    def lack(self, **terms: Tensor) -> None:
        """Note which terms the batch could not give, as no row has another to differ from; a weight of 0 asks for none."""
        self.missing = terms if self.weight else {}

    def observe(self, *views: Tensor, **others: Tensor) -> None:
        """Note figures that are logged and not minimised: means over the views (B, D) and their pairs, and any others by name."""
        with torch.no_grad():
            gaps = torch.stack([alignment(one, two) for one, two in combinations(views, 2)])
            spread = torch.stack([uniformity(view) for view in views])
            self.observed = {"alignment": gaps.mean(), "uniformity": spread.mean(), **others}
