"""Views that are mild at first and grow stronger over the epochs: a curriculum (CCL, Bian et al., CIKM 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from seqcl.augment.compose import Pair
from seqcl.augment.pairs import crop_mask_reorder
from seqcl.augment.views import Rated, View
from seqcl.errors import positive
from seqcl.types import SeqBatch


class Growing(Pair):
    """A pair of views whose rates grow in equal stairs, from their first part to the whole; then they stay.

    The strength of an epoch multiplies the part of a row that a view changes; of a crop or a subgraph, the part that it takes away.

    Args:
        views: The views to draw from, with their final rates.
        distinct: Take two different entries of `views` for the two views of a row.
        stairs: Number of stairs; on the first one the rates are 1 / stairs of the final ones.
        each: Epochs on a stair.
    """

    strength: Tensor  # (), of the present epoch, above 0 and at most 1

    def __init__(self, *, views: Sequence[View], distinct: bool = False, stairs: int = 20, each: int = 5) -> None:
        super().__init__(views=views, distinct=distinct)
        positive("Growing", stairs=stairs, each=each)
        self.stairs, self.each = stairs, each
        self.final = [(view, view.rate) for view in self.modules() if isinstance(view, Rated)]
        self.register_buffer("strength", torch.tensor(1 / stairs, dtype=torch.float64))

    @torch.no_grad()
    def before_epoch(self, table: Tensor, epoch: int) -> None:
        """Climb to the stair of the epoch."""
        super().before_epoch(table, epoch)
        self.strength.fill_(min(1.0, (epoch // self.each + 1) / self.stairs))

    def stacked(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        """Make both views at the strength of the epoch, as one batch of 2B rows, first views first."""
        for view, rate in self.final:
            view.rate = view.weaker(rate, float(self.strength))
        return super().stacked(batch, generator)


def growing_crop_mask_reorder(
    *,
    crop: float = 0.6,
    mask: float = 0.3,
    reorder: float = 0.6,
    distinct: bool = False,
    stairs: int = 10,
    each: int = 1,
) -> Growing:
    """Make two views of a row, each by one operator drawn for that row, whose rates grow over the epochs (CCL, CIKM 2021).

    Args:
        crop: Part of a row that a crop keeps in the end; 0 leaves the operator out.
        mask: Part of a row that is masked in the end; 0 leaves the operator out.
        reorder: Part of a row that is shuffled in the end; 0 leaves the operator out.
        distinct: Take two different operators for the two views of a row.
        stairs: Number of equal stairs in which the rates grow; 20 in the authors' code, up to 0.3.
        each: Epochs on a stair; 5 in the authors' code.
    """
    views = crop_mask_reorder(crop=crop, mask=mask, reorder=reorder).views
    return Growing(views=list(views), distinct=distinct, stairs=stairs, each=each)
