"""SASRec (Kang and McAuley, ICDM 2018, arXiv 1808.09781)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import NextItem
from seqcl.types import Windows


class SASRec(Recommender):
    """Next item by causal self-attention (Kang and McAuley 2018, arXiv 1808.09781).

    Differs from the paper: full softmax over cosines instead of one sampled negative; relative positions instead of absolute ones.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
    ) -> None:
        super().__init__(
            train, encoder=encoder(num_items=train.num_items, max_len=train.max_len), next_item=next_item()
        )
