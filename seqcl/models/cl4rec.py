"""CL4SRec (Xie et al., ICDE 2022, arXiv 2010.14395)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from seqcl import encoders
from seqcl.augment import Crop, Mask, Pair, Reorder, View
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


def crop_mask_reorder(*, crop: float = 0.6, mask: float = 0.3, reorder: float = 0.6, distinct: bool = False) -> Pair:
    """Two views of a row, each by one operator drawn for that row.

    Args:
        crop: share of a row that a crop keeps; 0 leaves the operator out.
        mask: share of a row that is masked; 0 leaves the operator out.
        reorder: share of a row that is shuffled; 0 leaves the operator out.
        distinct: whether a row's two views come from two different operators.
    """
    operators: list[tuple[Callable[..., View], float]] = [(Crop, crop), (Mask, mask), (Reorder, reorder)]
    views = [operator(rate=rate) for operator, rate in operators if rate]
    return Pair(views=views, distinct=distinct)


class CL4Rec(Contrastive):
    """Next item and contrast between two augmented views of a row (Xie et al. 2022, arXiv 2010.14395).

    Differs from the paper: full softmax over cosines instead of one sampled negative, and rows of the same user or with the same
    target are not negatives of each other.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[TwoViews] = partial(TwoViews, temperature=0.2),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
