"""SupCon (Khosla et al., NeurIPS 2020, arXiv 2004.11362) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import SupCon
from seqcl.parts import part


class SupConRec(Contrastive):
    """Next item and contrast where rows with one target are positives (Khosla et al. 2020, arXiv 2004.11362)."""

    objective = part(SupCon)
