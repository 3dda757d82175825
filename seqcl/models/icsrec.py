"""ICSRec (Qin et al., WSDM 2024, arXiv 2310.14318)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, row_and_same_target
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, Prototypes
from seqcl.types import Windows


class ICSRec(Contrastive):
    """Next item, contrast of rows with the same target, and of both with their intents (Qin et al. 2024, arXiv 2310.14318).

    Differs from the paper: full softmax over cosines; in one pass over all positions the last target of a row is the one that
    counts; the row's own centre is that of its state without a view, the other row's that of its view; rows of the same user,
    target or cluster are not negatives.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(row_and_same_target),
        objective: partial[Prototypes] = partial(Prototypes),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
