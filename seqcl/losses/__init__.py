"""Losses: pure functions of tensors, each a scalar mean."""

from seqcl.losses.contrastive import (
    Reduction,
    Similarity,
    alignment,
    contrast,
    each_positive,
    info_nce,
    nt_xent,
    similarities,
    uniformity,
)
from seqcl.losses.margin import cosine_margin, spread, triplet
from seqcl.losses.next_item import bce, bpr, gbce
from seqcl.losses.prototypes import cosine_gap, sinkhorn, swapped
from seqcl.losses.sampled import Correction, sampled_softmax
from seqcl.losses.softmax import softmax

__all__ = [
    "Correction",
    "Reduction",
    "Similarity",
    "alignment",
    "bce",
    "bpr",
    "contrast",
    "cosine_gap",
    "cosine_margin",
    "each_positive",
    "gbce",
    "info_nce",
    "nt_xent",
    "sampled_softmax",
    "similarities",
    "sinkhorn",
    "softmax",
    "spread",
    "swapped",
    "triplet",
    "uniformity",
]
