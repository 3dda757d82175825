"""MCLRec (Qin et al., SIGIR 2023, arXiv 2304.07763)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, crop_mask_reorder
from seqcl.models.base import Contrastive
from seqcl.objectives import LearnedViews, NextItem
from seqcl.types import Windows


class MCLRec(Contrastive):
    """Next item, contrast of two views, and of learned versions of them (Qin et al. 2023, arXiv 2304.07763).

    Differs from the paper: full softmax over cosines, cosines in place of inner products in the contrast, and rows of the same user
    or with the same target are not negatives of each other; the encoder is trained once on a batch, where the code trains it
    before and after the augmenters.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder, crop=0.5, mask=0.5, reorder=0.8),
        objective: partial[LearnedViews] = partial(LearnedViews),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
