"""CauseRec (Zhang et al., SIGIR 2021, arXiv 2109.05261)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import Counterfactual, NextItem
from seqcl.types import Windows


class CauseRec(Recommender):
    """Next item and margins between a row and what it might have been (Zhang et al. 2021, arXiv 2109.05261).

    Differs from the paper: any encoder instead of attention over concepts, an item being a concept; full softmax over cosines; the
    last target of a row says which items are indispensable.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        objective: partial[Counterfactual] = partial(Counterfactual),
    ) -> None:
        built = encoder(num_items=train.num_items, max_len=train.max_len)
        super().__init__(train, encoder=built, next_item=next_item(), counterfactual=objective(dim=built.dim))
