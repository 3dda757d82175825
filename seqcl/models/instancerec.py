"""Invariant and spreading instance features (Ye et al., CVPR 2019, arXiv 1904.03436) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import Instance
from seqcl.parts import part


class InstanceRec(Contrastive):
    """Next item and rows as classes of their own, which a view must tell (Ye et al. 2019, arXiv 1904.03436)."""

    objective = part(Instance)
