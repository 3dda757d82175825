"""PIRL (Misra and van der Maaten, CVPR 2020, arXiv 1912.01991) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import PIRL
from seqcl.parts import part


class PIRLRec(Contrastive):
    """Next item and contrast with a bank of users' vectors (Misra and van der Maaten 2020, arXiv 1912.01991)."""

    objective = part(PIRL)
