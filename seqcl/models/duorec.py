"""DuoRec (Qiu et al., WSDM 2022, arXiv 2110.05730)."""

from __future__ import annotations

from functools import partial
from typing import Any

from seqcl import encoders
from seqcl.augment import dropout_and_same_target
from seqcl.models.base import Recommender
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


class DuoRec(Recommender):
    """Next item and contrast between a row and another one with the same target (Qiu et al. 2022, arXiv 2110.05730).

    Differs from the paper: cosines in place of inner products; rows of the same user or with the same target are not negatives of
    each other; in one pass over all positions the last target of a row is the one that counts.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Any] = partial(dropout_and_same_target),
        objective: partial[TwoViews] = partial(TwoViews, temperature=0.2),
    ) -> None:
        built = encoder(num_items=train.num_items, max_len=train.max_len)
        made = views()
        pairs = made if isinstance(made, dict) else {"views": made}  # --views NAME gives one view
        terms = {name: objective(views=pair, dim=built.dim) for name, pair in pairs.items()}
        super().__init__(train, encoder=built, next_item=next_item(), **terms)
