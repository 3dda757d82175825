"""Losses that make the channels of two views agree and differ from one another, without negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.losses.contrastive import wide
from seqcl.losses.given import check_partners


def barlow(first: Tensor, second: Tensor, *, redundancy: float = 0.005) -> Tensor:
    """Mean over channels of (1 - c_ii)^2 + redundancy * sum over j of c_ij^2: a scalar (Barlow Twins, arXiv 2103.03230, eq. 1).

    c is the correlation over rows of channel i of one view with channel j of the other: equal views with uncorrelated
    channels give 0. Differs from the paper: the mean over channels in place of the sum, so that a weight fits every width.

    Args:
        first: (B, W) one view of each row, B at least 2.
        second: (B, W) the other.
        redundancy: Factor of the pairs of different channels; 0.005 in the paper.

    Raises:
        UserError: the views differ in their shape, or there are fewer than two rows.
    """
    check_partners("barlow", first, second, least=2)
    first, second = (_standard(wide(view)) for view in (first, second))
    with torch.autocast(first.device.type, enabled=False):  # half precision would round the correlations
        correlation = first.T @ second / len(first)  # (W, W)
    own = correlation.diagonal()
    others = correlation.square().sum() - own.square().sum()
    return ((1 - own).square().sum() + redundancy * others) / len(own)


def vicreg(first: Tensor, second: Tensor, *, variance: float = 1.0, covariance: float = 0.04) -> Tensor:
    """Mean squared distance of partners, plus terms that keep channels spread and uncorrelated: a scalar.

    Source: VICReg, arXiv 2105.04906, eq. 1 to 6, where the three factors are 25, 25 and 1; here all are divided by the first.
    As in the authors' code, the distance is a mean over channels, and the spread that over both views.

    Args:
        first: (B, W) one view of each row, B at least 2.
        second: (B, W) the other.
        variance: Factor of the mean of max(0, 1 - deviation of a channel), averaged over both views.
        covariance: Factor of the squared covariances of different channels over W, summed over both views.

    Raises:
        UserError: the views differ in their shape, or there are fewer than two rows.
    """
    check_partners("vicreg", first, second, least=2)
    first, second = wide(first), wide(second)
    spread = sum(F.relu(1 - (view.var(0) + 1e-4).sqrt()).mean() for view in (first, second)) / 2
    shared = sum(_off_diagonal(view - view.mean(0)) for view in (first, second))
    return F.mse_loss(first, second) + variance * spread + covariance * shared


def _standard(view: Tensor) -> Tensor:
    """Each channel with mean 0 and deviation 1 over the rows."""
    return (view - view.mean(0)) / (view.var(0, unbiased=False) + 1e-5).sqrt()


def _off_diagonal(centred: Tensor) -> Tensor:
    """The sum of squared covariances of different channels, over their number."""
    with torch.autocast(centred.device.type, enabled=False):
        covariance = centred.T @ centred / (len(centred) - 1)  # (W, W)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / len(covariance)
