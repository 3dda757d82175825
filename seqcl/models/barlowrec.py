"""Barlow Twins (Zbontar et al., ICML 2021, arXiv 2103.03230) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import Barlow
from seqcl.parts import part


class BarlowRec(Contrastive):
    """Next item and views whose channels agree and are uncorrelated (Zbontar et al. 2021, arXiv 2103.03230)."""

    objective = part(Barlow)
