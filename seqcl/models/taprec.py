"""TapRec: an encoder of our own, after the idea of BSARec (arXiv 2312.10325)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Recommender
from seqcl.parts import part


class TapRec(Recommender):
    """Next item by self-attention beside a weighted sum of the newest places (ours, after Shin et al. 2024, arXiv 2312.10325).

    Differs from the paper: no paper has this model. BSARec's filter reads the whole row by a Fourier transform; this one reads
    a place and the seven before it, with free weights, so that all positions learn in one pass. Its figures are none of BSARec's.
    """

    encoder = part(encoders.TapRec)
