"""BYOL (Grill et al., NeurIPS 2020, arXiv 2006.07733) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import BYOL
from seqcl.parts import part


class BYOLRec(Contrastive):
    """Next item and prediction of a slow copy's projection, without negatives (Grill et al. 2020, arXiv 2006.07733)."""

    objective = part(BYOL)
