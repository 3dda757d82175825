"""Losses: pure functions of tensors, each a scalar mean; and the negatives that some of them take."""

from seqcl.losses.contrastive import (
    Reduction,
    alignment,
    contrast,
    each_positive,
    info_nce,
    nt_xent,
    similarities,
    uniformity,
    wide,
)
from seqcl.losses.decorrelation import barlow, vicreg
from seqcl.losses.distillation import distillation, kept_distillation
from seqcl.losses.given import check_negatives, check_share
from seqcl.losses.margin import cosine_margin, margin_contrast, spreading, triplet, view_regularizer
from seqcl.losses.mixing import hard_mixes
from seqcl.losses.mixture import mixture
from seqcl.losses.negatives import Negatives, Sampling
from seqcl.losses.next_item import bce, bpr, gbce
from seqcl.losses.prototypes import cosine_gap, sinkhorn, swapped
from seqcl.losses.sampled import Correction, sampled_softmax
from seqcl.losses.softmax import softmax
from seqcl.registry import table

LOSSES = table("loss", {"softmax": softmax, "sampled_softmax": sampled_softmax, "bce": bce, "gbce": gbce, "bpr": bpr})
"""The next-item losses by the name that `--next_item.loss` takes: a new one is one function and one row here.

A loss takes states (T, D), a table (N, D) and targets (T,), which are rows of the table. If it has a parameter `negatives`, it
gets rows of the table, (K,) or (T, K). It gets each of the keywords log_q, correction, t, smoothing, items and real that it has.
"""

__all__ = [
    "LOSSES",
    "Correction",
    "Negatives",
    "Reduction",
    "Sampling",
    "alignment",
    "barlow",
    "bce",
    "bpr",
    "check_negatives",
    "check_share",
    "contrast",
    "cosine_gap",
    "cosine_margin",
    "distillation",
    "each_positive",
    "gbce",
    "hard_mixes",
    "info_nce",
    "kept_distillation",
    "margin_contrast",
    "mixture",
    "nt_xent",
    "sampled_softmax",
    "similarities",
    "sinkhorn",
    "softmax",
    "spreading",
    "swapped",
    "triplet",
    "uniformity",
    "vicreg",
    "view_regularizer",
    "wide",
]
