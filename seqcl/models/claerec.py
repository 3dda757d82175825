"""CLAE (Ho and Vasconcelos, NeurIPS 2020, arXiv 2010.12050) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import CLAE
from seqcl.parts import part


class CLAERec(Contrastive):
    """Next item and contrast with views moved to be harder (Ho and Vasconcelos 2020, arXiv 2010.12050)."""

    objective = part(CLAE)
