"""VICReg (Bardes et al., ICLR 2022, arXiv 2105.04906) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import VICReg
from seqcl.parts import part


class VICRegRec(Contrastive):
    """Next item and views that agree in channels kept spread and uncorrelated (Bardes et al. 2022, arXiv 2105.04906)."""

    objective = part(VICReg)
