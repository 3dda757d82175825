"""Losses without negatives: predicting the other view, and codes that use all prototypes evenly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.losses.contrastive import wide
from seqcl.losses.given import check_above_zero, check_partners, mean


def cosine_gap(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos over rows (B, D): the squared distance on the unit sphere, 0 if equal (BYOL, arXiv 2006.07733, eq. 2)."""
    check_partners("cosine_gap", predicted, target)
    with torch.autocast(predicted.device.type, enabled=False):
        one, two = (wide(one) for one in (predicted, target))
        return mean(2 - 2 * F.cosine_similarity(one, two, dim=1))


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int = 3) -> Tensor:
    """Codes (B, K): each row sums to 1, each prototype has B / K of all in the limit (SwAV, arXiv 2006.09882, eq. 3 to 5).

    In logarithms, so that no score overflows however small epsilon is.

    Args:
        scores: (B, K) similarities of rows and prototypes.
        epsilon: Entropy of the codes; 0.05 in the paper.
        iterations: Rounds of columns, then rows; 3 in the paper.

    Raises:
        UserError: epsilon is not above 0, or there is no iteration.
    """
    check_above_zero("sinkhorn", epsilon=epsilon, iterations=iterations)
    logs = wide(scores) / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(0, keepdim=True)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.exp()


def swapped(scores: Tensor, codes: Tensor, *, temperature: float) -> Tensor:
    """Mean cross entropy of one view's scores (B, K) with the other's codes (B, K) (SwAV, arXiv 2006.09882, eq. 2)."""
    check_partners("swapped", scores, codes)
    check_above_zero("swapped", temperature=temperature)
    return -mean((codes * (wide(scores) / temperature).log_softmax(1)).sum(1))
