"""NARM (Li et al., CIKM 2017, arXiv 1711.04725)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import NextItem
from seqcl.types import Windows


class NARM(Recommender):
    """Next item by a gated recurrent network with attention (Li et al. 2017, arXiv 1711.04725).

    Differs from the paper: rows of users instead of sessions, every position instead of the newest, full softmax over cosines
    instead of dot products.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.NARM] = partial(encoders.NARM),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
    ) -> None:
        super().__init__(
            train, encoder=encoder(num_items=train.num_items, max_len=train.max_len), next_item=next_item()
        )
