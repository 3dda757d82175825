"""HSTU (Zhai et al., ICML 2024, arXiv 2402.17152)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import NextItem
from seqcl.types import Windows


class HSTU(Recommender):
    """Next item by gated pointwise attention (Zhai et al. 2024, arXiv 2402.17152).

    Differs from the paper: items alone, without times and actions; full softmax over cosines instead of a sampled one.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.HSTU] = partial(encoders.HSTU),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
    ) -> None:
        super().__init__(
            train, encoder=encoder(num_items=train.num_items, max_len=train.max_len), next_item=next_item()
        )
