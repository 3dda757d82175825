"""Losses that stop pulling and pushing at a margin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.losses.contrastive import similarities, wide
from seqcl.losses.given import check_above_zero, check_partners, mean
from seqcl.types import Similarity


def triplet(
    anchors: Tensor, positives: Tensor, negatives: Tensor, *, margin: float, keep: Tensor | None = None
) -> Tensor:
    """Mean of max(0, d(anchor, positive) - d(anchor, negative) + margin), d the distance on the unit sphere.

    Source: CauseRec, arXiv 2109.05261. Differs from the paper: unit vectors, so that the margin has a scale.

    Args:
        anchors: (B, D).
        positives: (P, B, D).
        negatives: (Q, B, D); every positive is compared with every negative of its anchor.
        margin: 0 to 2.
        keep: (Q, B) bool, False leaves a negative out.
    """
    check_above_zero("triplet", positives=len(positives))
    anchors, positives, negatives = (_unit(states) for states in (anchors, positives, negatives))
    near = _distance(anchors, positives)  # (P, B)
    far = _distance(anchors, negatives)  # (Q, B)
    return _mean(F.relu(near[:, None] - far + margin).mean(0), keep)


def cosine_margin(
    items: Tensor, positives: Tensor, negatives: Tensor, *, margin: float, keep: Tensor | None = None
) -> Tensor:
    """Mean of 1 - cos(item, positive) plus mean of max(0, cos(item, negative) - margin) (CauseRec, arXiv 2109.05261).

    Args:
        items: (B, D).
        positives: (P, B, D).
        negatives: (Q, B, D).
        margin: -1 to 1.
        keep: (Q, B) bool, False leaves a negative out.
    """
    check_above_zero("cosine_margin", positives=len(positives))
    items, positives, negatives = (_unit(states) for states in (items, positives, negatives))
    return mean(1 - (items * positives).sum(-1)) + _mean(F.relu((items * negatives).sum(-1) - margin), keep)


def margin_contrast(first: Tensor, second: Tensor, *, margin: float, same: Tensor) -> Tensor:
    """Half the mean of d^2 over partners plus half the mean of max(0, margin - d)^2 over other pairs of views: a scalar.

    d is the distance on the unit sphere. Source: Hadsell et al., CVPR 2006, eq. 4. Differs from the paper: unit vectors, so
    that the margin has a scale; a mean over each kind of pair instead of a sum over all.

    Args:
        first: (B, D) one view of each row.
        second: (B, D) the other.
        margin: above 0; two unit vectors are at most 2 apart.
        same: (B, B) bool, symmetric, True where two rows are not driven apart.
    """
    check_partners("margin_contrast", first, second)
    check_above_zero("margin_contrast", margin=margin)
    first, second = _unit(first), _unit(second)
    views = torch.cat((first, second))  # (2B, D)
    gaps = (2 - 2 * similarities(views, views, "dot")).clamp(min=1e-12)  # the root of 0 has no gradient
    keep = ~_and_itself(same).repeat(2, 2)
    push = F.relu(margin - gaps.sqrt()).square()
    return (mean((first - second).square().sum(1)) + _mean(push, keep)) / 2


def spreading(rows: Tensor, views: Tensor, *, temperature: float, same: Tensor) -> Tensor:
    """Mean over rows of -log P(row | its view) less the sum over other rows j of log(1 - P(row | row j)): a scalar.

    P(row i | x) is the softmax over rows of their cosines with x over the temperature. Source: arXiv 1904.03436, section 3.2.

    Args:
        rows: (B, D), the rows themselves.
        views: (B, D), a view of each.
        temperature: Divisor of the cosines; 0.1 in the paper.
        same: (B, B) bool, symmetric, True where two rows are not driven apart.
    """
    check_partners("spreading", rows, views)
    check_above_zero("spreading", temperature=temperature)
    same = _and_itself(same)
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    by_view, by_row = (
        (similarities(one, rows, "cosine") / temperature).masked_fill(others, -torch.inf).log_softmax(1)
        for one in (views, rows)
    )  # (B, B) each, row b: of which row it is
    mistaken = torch.log1p(-by_row.exp().masked_fill(same, 0.0))
    return -(mean(by_view.diagonal()) + mistaken.sum() / max(len(rows), 1))


def view_regularizer(first: Tensor, second: Tensor, same: Tensor, *, similarity: Similarity = "cosine") -> Tensor:
    """Keep the views of different rows from becoming equally similar: a scalar (the regulariser of MCLRec, arXiv 2304.07763).

    `own` is the similarity of a row to its partner, `hardest` the largest one to any other row. The loss is the mean of
    own - min(own, hardest) over rows, plus the mean of max(own, hardest) - similarity over all other rows. Differs from the
    authors' code: the other rows are those of the other view alone, and the first views alone are anchors.

    Args:
        first: (B, D) one view of each row.
        second: (B, D) the other.
        same: (B, B) bool, True where two rows do not count as different.
        similarity: cosine, or dot (the authors' code).
    """
    check_partners("view_regularizer", first, second)
    alike = similarities(first, second, similarity)  # (B, B)
    if not len(alike):
        return alike.sum()
    own = alike.diagonal()  # (B,)
    same = _and_itself(same)
    lonely = same.all(1)  # (B,), rows without any other
    hardest = torch.where(lonely, own, alike.masked_fill(same, -torch.inf).max(1).values)  # (B,)
    low, high = torch.minimum(own, hardest), torch.maximum(own, hardest)
    below = F.relu(high[:, None] - alike).masked_fill(same, 0)  # (B, B)
    return F.relu(own - low).mean() + below.sum() / (~same).sum().clamp(min=1)


def _and_itself(same: Tensor) -> Tensor:
    """The mark (B, B) of rows that belong together, True on the diagonal too: a row is never another one."""
    return same | torch.eye(len(same), dtype=torch.bool, device=same.device)


def _mean(losses: Tensor, keep: Tensor | None) -> Tensor:
    """The mean of those (Q, B) that are kept; 0 if none is."""
    return mean(losses) if keep is None else losses.masked_fill(~keep, 0).sum() / keep.sum().clamp(min=1)


def _unit(states: Tensor) -> Tensor:
    return F.normalize(wide(states), dim=-1)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    # The root of 0 has no gradient.
    return (first - second).square().sum(-1).clamp(min=1e-12).sqrt()
