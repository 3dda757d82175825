"""InfoMin (Tian et al., NeurIPS 2020, arXiv 2005.10243) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import InfoMin
from seqcl.parts import part


class InfoMinRec(Contrastive):
    """Next item, contrast of two views, and of versions made to tell little of each other (Tian et al. 2020, arXiv 2005.10243)."""

    objective = part(InfoMin)
