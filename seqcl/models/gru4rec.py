"""GRU4Rec (Hidasi et al., ICLR 2016, arXiv 1511.06939)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.parts import part


class GRU4Rec(Recommender):
    """Next item by a gated recurrent network (Hidasi et al. 2016, arXiv 1511.06939).

    Differs from the paper: rows of users instead of parallel sessions; full softmax over cosines instead of BPR or TOP1.
    """

    encoder = part(encoders.GRU)
