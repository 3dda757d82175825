"""GRU4Rec (Hidasi et al., ICLR 2016, arXiv 1511.06939)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import NextItem
from seqcl.types import Windows


class GRU4Rec(Recommender):
    """Next item by a gated recurrent network (Hidasi et al. 2016, arXiv 1511.06939).

    Differs from the paper: rows of users instead of parallel sessions, full softmax over cosines instead of BPR or TOP1.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.GRU] = partial(encoders.GRU),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
    ) -> None:
        super().__init__(
            train, encoder=encoder(num_items=train.num_items, max_len=train.max_len), next_item=next_item()
        )
