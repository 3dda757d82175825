"""SimSiam (Chen and He, CVPR 2021, arXiv 2011.10566) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import SimSiam
from seqcl.parts import part


class SimSiamRec(Contrastive):
    """Next item and prediction of the other view's projection, without negatives (Chen and He 2021, arXiv 2011.10566)."""

    objective = part(SimSiam)
