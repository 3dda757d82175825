"""MiCE (Tsai et al., ICLR 2021, arXiv 2105.01899) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import MiCE
from seqcl.parts import part


class MiCERec(Contrastive):
    """Next item and contrast in the spaces of experts that a gate weighs (Tsai et al. 2021, arXiv 2105.01899)."""

    objective = part(MiCE)
