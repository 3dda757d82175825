"""The margin contrast (Hadsell et al., CVPR 2006) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import Margin
from seqcl.parts import part


class MarginRec(Contrastive):
    """Next item and views that are drawn together, and other rows apart up to a margin (Hadsell et al., CVPR 2006)."""

    objective = part(Margin)
