"""Alignment and uniformity (Wang and Isola, ICML 2020, arXiv 2005.10242) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import AlignUniform
from seqcl.parts import part


class AlignUniformRec(Contrastive):
    """Next item, and views that are aligned and spread over the sphere (Wang and Isola 2020, arXiv 2005.10242)."""

    objective = part(AlignUniform)
