"""Binary and pairwise next-item losses against drawn negatives; softmax losses are in `softmax.py` and `sampled.py`.

All take states (T, D), a table (N, D), targets (T,), and negatives (K,), shared by all positions, or (T, K). Targets and
negatives are rows of the table, from 0. A negative that is the position's own target is left out. The result is the mean
over positions. No negative, or shapes that do not fit each other, are a UserError. A position that `real` (T,) marks as False only fills the shape and counts for nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.losses.given import check_positions, check_share, mean


def bce(states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, *, real: Tensor | None = None) -> Tensor:
    """Binary cross entropy of the target (1) and K negatives (0), over K + 1 (SASRec, arXiv 1808.09781, section 3.5).

    Differs from the paper, where K is 1: the sum is divided by K + 1, as in arXiv 2308.07192, so that its scale stays.
    """
    check_positions("bce", states, targets, negatives)
    return _binary(states, table, targets, negatives, power=1.0, real=real)


def gbce(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    t: float = 0.75,
    items: int | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy with the positive probability raised to the power beta, against overconfidence.

    Source: gSASRec, arXiv 2308.07192, section 5; beta = alpha (t (1 - 1 / alpha) + 1 / alpha), alpha = K / (N - 1).

    Args:
        states: (T, D).
        table: (N, D).
        targets: (T,) rows of the table.
        negatives: (K,) or (T, K) rows of the table, drawn uniformly.
        t: Calibration: 0 is bce, 1 is wholly calibrated; 0.75 in the paper, with 256 negatives.
        items: N, if the table holds only some of the rows.
        real: (T,) bool, as above.
    """
    check_positions("gbce", states, targets, negatives)
    check_share("gbce", t=t)
    rate = negatives.shape[-1] / max((items or len(table)) - 1, 1)  # alpha, the part of all negatives that is drawn
    return _binary(states, table, targets, negatives, power=rate * (t * (1 - 1 / rate) + 1 / rate), real=real)


def bpr(states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, *, real: Tensor | None = None) -> Tensor:
    """Mean over positions and negatives of -log sigmoid(target's score - negative's) (arXiv 1205.2618, BPR-Opt)."""
    check_positions("bpr", states, targets, negatives)
    positive, negative, hit = scores(states, table, targets, negatives)
    losses = F.softplus(negative - positive[:, None]).masked_fill(hit, 0.0)  # (T, K)
    return mean_of(losses, real)


def scores(states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of targets (T,) and negatives (T, K), never half; and (T, K) bool, True where a negative is the target."""
    wide = torch.float64 if states.dtype == torch.float64 else torch.float32
    states = states.to(wide)
    positive = (states * F.embedding(targets, table)).sum(1)  # (T,)
    rows = F.embedding(negatives, table).to(wide)  # (K, D) or (T, K, D); quicker backward than of table[negatives]
    negative = states @ rows.T if negatives.dim() == 1 else torch.bmm(rows, states[:, :, None])[:, :, 0]  # (T, K)
    return positive.to(wide), negative.to(wide), negatives == targets[:, None]


def mean_of(losses: Tensor, real: Tensor | None) -> Tensor:
    """The mean of losses (T, ...) over the positions that are real, all if that is None: 0 if none is."""
    if real is None:
        return mean(losses)
    rows = losses.flatten(1).mean(1) if losses.dim() > 1 else losses  # (T,)
    return rows.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def _binary(
    states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, *, power: float, real: Tensor | None
) -> Tensor:
    positive, negative, hit = scores(states, table, targets, negatives)
    losses = power * F.softplus(-positive) + F.softplus(negative).masked_fill(hit, 0.0).sum(1)  # (T,)
    return mean_of(losses, real) / (negatives.shape[-1] + 1)
