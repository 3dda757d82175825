"""BSARec (Shin et al., AAAI 2024, arXiv 2312.10325)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.parts import part


class BSARec(Recommender):
    """Next item by self-attention beside a filter over the newest places (Shin et al. 2024, arXiv 2312.10325).

    Differs from the paper: full softmax over cosines, and the differences that the encoder's documentation names.
    """

    encoder = part(encoders.BSARec)
