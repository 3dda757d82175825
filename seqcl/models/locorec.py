"""LoCo (Xiong et al., NeurIPS 2020, arXiv 2008.01342) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import LoCo
from seqcl.parts import part


class LoCoRec(Contrastive):
    """Next item and contrast after every block, each with a gradient of its own (Xiong et al. 2020, arXiv 2008.01342)."""

    objective = part(LoCo)
