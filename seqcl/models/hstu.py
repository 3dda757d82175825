"""HSTU (Zhai et al., ICML 2024, arXiv 2402.17152)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.parts import part


class HSTU(Recommender):
    """Next item by gated pointwise attention (Zhai et al. 2024, arXiv 2402.17152).

    Differs from the paper: items alone, without times and actions; full softmax over cosines instead of a sampled one.
    """

    encoder = part(encoders.HSTU)
