"""MMInfoRec (Qiu et al., ICDM 2021, arXiv 2109.00368)."""

from __future__ import annotations

from seqcl.models.cpcrec import CPCRec
from seqcl.objectives import MemoryCPC
from seqcl.parts import part


class MMInfoRec(CPCRec):
    """Next item and contrast of what a memory predicts with instances of the items after a state (Qiu et al. 2021, arXiv 2109.00368)."""

    objective = part(MemoryCPC)
