"""LooC (Xiao et al., ICLR 2021, arXiv 2008.05659) over the operators of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import LooC
from seqcl.parts import part


class LooCRec(Contrastive):
    """Next item and contrast in a space for each operator, which it alone changes (Xiao et al. 2021, arXiv 2008.05659)."""

    objective = part(LooC)
