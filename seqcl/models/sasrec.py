"""SASRec (Kang and McAuley, ICDM 2018, arXiv 1808.09781)."""

from __future__ import annotations

from seqcl.models.base import Recommender


class SASRec(Recommender):
    """Next item by causal self-attention (Kang and McAuley 2018, arXiv 1808.09781).

    Differs from the paper: full softmax over cosines instead of one sampled negative; relative positions instead of absolute ones; the
    block is that of BERT, see the encoder for options that make it the paper's.
    """
