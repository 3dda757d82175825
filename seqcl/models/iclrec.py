"""ICLRec (Chen et al., WWW 2022, arXiv 2202.02519)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, crop_mask_reorder
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, Prototypes
from seqcl.types import Windows


class ICLRec(Contrastive):
    """Next item, contrast of two views, and of each view with its row's intent, a cluster (Chen et al. 2022, arXiv 2202.02519).

    Differs from the paper: full softmax over cosines instead of one sampled negative; a row is represented by its newest state,
    where the code has all states in the contrast (`objective.states` all) and their mean in the intents (`objective.intent_states`
    mean), both with padding; rows of the same user, target or cluster are not negatives.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[Prototypes] = partial(Prototypes),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
