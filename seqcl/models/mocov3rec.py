"""MoCo v3 (Chen et al., ICCV 2021, arXiv 2104.02057) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import MoCoV3
from seqcl.parts import part


class MoCoV3Rec(Contrastive):
    """Next item and contrast against the batch's keys of a slow copy (Chen et al. 2021, arXiv 2104.02057)."""

    objective = part(MoCoV3)
