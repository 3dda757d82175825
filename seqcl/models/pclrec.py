"""PCL (Li et al., ICLR 2021, arXiv 2005.04966) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.objectives import Prototypes
from seqcl.parts import part


class PCLRec(Contrastive):
    """Next item, contrast of two views, and with clusters made by a slow copy (Li et al. 2021, arXiv 2005.04966).

    Differs from the paper: the views are contrasted in the batch, each with the other, instead of with a queue of the slow
    copy's keys, and rows of one cluster are no negatives. Clusters are of states, and of all training rows from the first
    epoch on; in the paper of what the head makes of them, after 20 epochs (`warmup`). A row's cluster is the centre
    nearest to its state by the slow copy now, and not when the clusters were made.
    """

    objective = part(Prototypes, negatives="clusters", clusters=(128, 256, 512), momentum=0.999, head="mlp")
