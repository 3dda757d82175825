"""DIM and AMDIM (Hjelm et al., ICLR 2019, arXiv 1808.06670; Bachman et al., NeurIPS 2019, arXiv 1906.00910) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import DIM
from seqcl.parts import part


class DIMRec(Contrastive):
    """Next item and contrast of a row's vector with its places, across views and layers (Bachman et al. 2019, arXiv 1906.00910)."""

    objective = part(DIM)
