"""CL4SRec (Xie et al., ICDE 2022, arXiv 2010.14395)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, crop_mask_reorder
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


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
