"""MoCo (He et al., CVPR 2020, arXiv 1911.05722) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import MoCo
from seqcl.parts import part


class MoCoRec(Contrastive):
    """Next item and momentum contrast against a queue of keys (He et al. 2020, arXiv 1911.05722; Chen et al. 2020, 2003.04297)."""

    objective = part(MoCo)
