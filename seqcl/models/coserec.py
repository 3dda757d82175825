"""CoSeRec (Liu et al., 2021, arXiv 2108.06479)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, by_length
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


class CoSeRec(Contrastive):
    """Next item and contrast of views that correlated items make robust (Liu et al. 2021, arXiv 2108.06479).

    Differs from the paper: full softmax over cosines instead of one sampled negative; rows of the same user or with the same target
    are not negatives of each other; a row is represented by its newest state, where the code has all (`objective.states` all); the scores of
    the hybrid are scaled among the neighbours kept, where the code scales them among all pairs.
    As in the code, substitute and insert change one item at least.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(by_length),
        objective: partial[TwoViews] = partial(TwoViews, temperature=0.2),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
