"""ICLRec (Chen et al., WWW 2022, arXiv 2202.02519)."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import Prototypes
from seqcl.parts import part


class ICLRec(Contrastive):
    """Next item, contrast of two views, and of each view with its row's intent, a cluster (Chen et al. 2022, arXiv 2202.02519).

    Differs from the paper: full softmax over cosines instead of one sampled negative; the newest state represents a row,
    where the code takes all states in the contrast (`objective.states` all) and their mean in the intents
    (`objective.intent_states` mean), both with padding; rows of one user, target or cluster are no negatives.
    """

    objective = part(Prototypes)
