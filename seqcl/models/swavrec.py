"""SwAV (Caron et al., NeurIPS 2020, arXiv 2006.09882) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import SwAV
from seqcl.parts import part


class SwAVRec(Contrastive):
    """Next item and prediction of the other view's prototype code (Caron et al. 2020, arXiv 2006.09882)."""

    objective = part(SwAV)
