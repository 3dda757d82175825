"""TiCoSeRec (Dang et al., AAAI 2023, arXiv 2212.08262)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, evened_out
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


class TiCoSeRec(Contrastive):
    """CoSeRec with views that even out the gaps in time; needs timestamps (Dang et al. 2023, arXiv 2212.08262).

    Differs from the paper: full softmax over cosines instead of one sampled negative; every row is augmented, the most even ones too, from the
    first epoch on, where the code begins with 40 epochs without contrast; an inserted item is a neighbour of the one behind the gap,
    in the code of the one before it, and has the time of the item behind it;
    rows of the same user or with the same target are not negatives of each other.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(evened_out),
        objective: partial[TwoViews] = partial(TwoViews, temperature=0.2),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
