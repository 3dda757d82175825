"""Losses: pure functions of tensors, each a scalar mean."""

from seqcl.losses.contrastive import Reduction, Similarity, alignment, contrast, info_nce, nt_xent, uniformity
from seqcl.losses.next_item import Correction, bce, bpr, gbce, sampled_softmax
from seqcl.losses.softmax import softmax

__all__ = [
    "Correction",
    "Reduction",
    "Similarity",
    "alignment",
    "bce",
    "bpr",
    "contrast",
    "gbce",
    "info_nce",
    "nt_xent",
    "sampled_softmax",
    "softmax",
    "uniformity",
]
