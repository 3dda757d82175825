"""BERT4Rec (Sun et al., CIKM 2019, arXiv 1904.06690)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Parts, Recommender
from seqcl.objectives import ItemLoss, MaskedItems, Objective
from seqcl.parts import part


class BERT4Rec(Recommender):
    """Masked items by bidirectional self-attention (Sun et al. 2019, arXiv 1904.06690).

    A MASK stands behind the row that is read, so the encoder's rows are one item longer than the windows.

    Differs from the paper: cosines instead of dot products with a bias for each item; places counted from the end.
    """

    encoder = part(encoders.BERT4Rec)
    next_item = part(ItemLoss, similarity="cosine", temperature=0.1)
    objective = part(MaskedItems)

    more_items = 1

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        return {"next_item": parts["objective"](item_loss=parts["next_item"]())}
