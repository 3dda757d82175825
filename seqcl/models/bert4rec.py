"""BERT4Rec (Sun et al., CIKM 2019, arXiv 1904.06690)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.objectives import MaskedItems, NextItem
from seqcl.types import Windows


class BERT4Rec(Recommender):
    """Masked items by bidirectional self-attention (Sun et al. 2019, arXiv 1904.06690).

    The encoder's rows are one longer than the windows', since a MASK stands behind what is read: as much is read as by others.
    Differs from the paper: cosines instead of dot products with a bias for each item; places counted from the end.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.BERT4Rec] = partial(encoders.BERT4Rec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        objective: partial[MaskedItems] = partial(MaskedItems),
    ) -> None:
        built = encoder(num_items=train.num_items, max_len=train.max_len + 1)
        super().__init__(train, encoder=built, next_item=objective(next_item=next_item()))
