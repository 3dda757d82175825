"""SpCL (Ge et al., NeurIPS 2020, arXiv 2006.02713) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import SpCL
from seqcl.parts import part


class SpCLRec(Contrastive):
    """Next item and contrast with clusters that are reliable, and with other rows one by one (Ge et al. 2020, arXiv 2006.02713)."""

    objective = part(SpCL)
