"""BSARec (Shin et al., AAAI 2024, arXiv 2312.10325)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import NextItem
from seqcl.types import Windows


class BSARec(Recommender):
    """Next item by self-attention beside a filter over the newest places (Shin et al. 2024, arXiv 2312.10325).

    Differs from the paper: what the encoder says, and full softmax over cosines.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.BSARec] = partial(encoders.BSARec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
    ) -> None:
        super().__init__(
            train, encoder=encoder(num_items=train.num_items, max_len=train.max_len), next_item=next_item()
        )
