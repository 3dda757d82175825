"""CL4SRec (Xie et al., ICDE 2022, arXiv 2010.14395)."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import TwoViews
from seqcl.parts import part


class CL4Rec(Contrastive):
    """Next item and contrast between two augmented views of a row (Xie et al. 2022, arXiv 2010.14395).

    Differs from the paper: full softmax over cosines instead of one sampled negative; rows of one user or with one target
    are no negatives of each other.
    """

    objective = part(TwoViews, temperature=0.2)
