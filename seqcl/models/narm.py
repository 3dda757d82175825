"""NARM (Li et al., CIKM 2017, arXiv 1711.04725)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.parts import part


class NARM(Recommender):
    """Next item by a gated recurrent network with attention (Li et al. 2017, arXiv 1711.04725).

    Differs from the paper: rows of users instead of sessions; every position learns, not the newest alone; full softmax over
    cosines instead of dot products.
    """

    encoder = part(encoders.NARM)
