"""ICSRec (Qin et al., WSDM 2024, arXiv 2310.14318)."""

from __future__ import annotations

from seqcl.augment import row_and_same_target
from seqcl.models.base import Contrastive
from seqcl.objectives import Prototypes
from seqcl.parts import part


class ICSRec(Contrastive):
    """Next item, contrast of rows with the same target, and of both with their intents (Qin et al. 2024, arXiv 2310.14318).

    Differs from the paper: full softmax over cosines; all positions learn in one pass, and the last target of a row is the
    one that counts; the row's own centre is that of its state without a view, the other row's that of its view; rows of one
    user, target or cluster are no negatives.
    """

    views = part(row_and_same_target)
    objective = part(Prototypes)
