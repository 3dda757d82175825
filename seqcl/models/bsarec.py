"""BSARec (Shin et al., AAAI 2024, arXiv 2312.10325)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.parts import part


class BSARec(Recommender):
    """Next item by self-attention beside a Fourier filter over the whole row (Shin et al. 2024, arXiv 2312.10325).

    Differs from the paper: full softmax over cosines instead of inner products, and the differences that the encoder's
    documentation names. The paper learns from a row for every prefix, which is `--data.windows prefix`.
    """

    encoder = part(encoders.BSARec)
