"""i-Mix (Lee et al., ICLR 2021, arXiv 2010.08887) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import IMix
from seqcl.parts import part


class IMixRec(Contrastive):
    """Next item and contrast of rows whose input vectors are mixed, with keys of both (Lee et al. 2021, arXiv 2010.08887)."""

    objective = part(IMix)
