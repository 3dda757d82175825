"""Contrastive losses: one core, `contrast`, and losses made of it; similarities are float32 under autocast too."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.errors import UserError, check_choice
from seqcl.losses.given import check_above_zero, check_negatives, check_partners, mean, shapes
from seqcl.types import Similarity

Reduction = Literal["out", "in"]


def contrast(
    logits: Tensor,
    positives: Tensor,
    *,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    shares: Tensor | None = None,
    reduction: Reduction = "out",
    hardness: float = 0.0,
    prior: float = 0.0,
    lowest: float | Tensor = -math.inf,
) -> Tensor:
    """Mean over anchors of -log of the part that their positives have in sum_j w_j exp(logit_j): a scalar, never half.

    An eye mask is InfoNCE (arXiv 1807.03748, eq. 4), a same-label mask SupCon (arXiv 2004.11362, eq. 2 and 3). Columns
    past the batch are a queue (arXiv 1911.05722), a `keep` mask removes false negatives, `hardness` makes hard negatives (arXiv
    2010.04592) and `prior` debiased ones (arXiv 2007.00224). An anchor without a positive is left out; if no anchor has one, the loss is 0.

    Args:
        logits: (M, C) similarities over the temperature, anchors by candidates.
        positives: (M, C) bool, True where the candidate is a positive of the anchor.
        keep: (M, C) or (C,) bool, False removes a candidate from the denominator; positives always stay.
        weights: (M, C) or (C,), >= 0, factors of the negatives in the denominator; positives have 1. Not with hardness or prior.
        shares: (M, C), the part of each positive in the mean outside the log, 1 in all; None for equal ones (i-Mix, arXiv 2010.08887).
        reduction: average several positives outside the log (out, the better one in the paper) or inside it (in).
        hardness: beta: a negative counts in proportion to exp(beta * logit), and all N of an anchor together as N; 0 is uniform.
        prior: tau+, the chance that a negative is a false one, 0 to below 1: their expected part is taken off the sum.
        lowest: the smallest value that a logit can have, below which no correction takes the mean of the negatives.

    Raises:
        UserError: weights with hardness or prior, which weigh the negatives themselves; one of these is outside its range.
    """
    check_choice("reduction", reduction, Reduction)
    check_negatives("contrast", hardness=hardness, prior=prior)
    if weights is not None and (hardness or prior):
        raise UserError("contrast: weights of negatives cannot be given with hardness or prior, which weigh them too")
    logits = wide(logits)
    found = positives.sum(1)  # (M,)
    some = found > 0  # (M,)
    # A row without a positive keeps its logits, as all -inf would make its gradient NaN; its term is dropped in the end.
    negatives = ~positives & some[:, None]  # (M, C)
    below = logits
    if weights is not None:
        below = torch.where(negatives, below + weights.log(), below)
    if keep is not None:
        below = below.masked_fill(negatives & ~keep, -torch.inf)
    count = found.clamp(min=1).to(logits.dtype)  # (M,)
    if shares is not None:
        above = (logits * shares).masked_fill(~positives, 0.0).sum(1)  # (M,)
    elif reduction == "out":
        above = logits.masked_fill(~positives, 0.0).sum(1) / count  # (M,)
    else:
        above = logits.masked_fill(negatives, -torch.inf).logsumexp(1) - count.log()
    if hardness or prior:
        negatives = negatives if keep is None else negatives & keep
        own = logits.masked_fill(~(positives | ~some[:, None]), -torch.inf).logsumexp(1)  # (M,)
        against = _corrected(below, negatives, own - count.log(), hardness, prior, lowest)
        total = torch.logaddexp(own, against)
    else:
        total = below.logsumexp(1)
    losses = (total - above).masked_fill(~some, 0.0)  # (M,)
    return losses.sum() / some.sum().clamp(min=1)


def _corrected(
    logits: Tensor, negatives: Tensor, positive: Tensor, hardness: float, prior: float, lowest: float | Tensor
) -> Tensor:
    """The log of the sum of exp(logit) over each anchor's negatives (M, C), hard ones first and false ones off: (M,).

    Source: arXiv 2010.04592, eq. 4 and 5; with hardness 0 arXiv 2007.00224, eq. 8. `positive` is the log of the mean of
    exp(logit) over the anchor's positives.
    """
    some = negatives.any(1)
    among = negatives | ~some[:, None]  # an anchor without negatives keeps its logits, as in `contrast`
    logits = logits.masked_fill(~among, -torch.inf)
    number = among.sum(1).to(logits.dtype).log()  # (M,)
    if hardness:
        harder = (hardness * logits).masked_fill(~among, -torch.inf)
        logits = logits + (harder - harder.logsumexp(1, keepdim=True) + number[:, None]).masked_fill(~among, 0.0)
    mass = logits.logsumexp(1) - number  # (M,), log of the mean
    if prior:
        # exp(mass) - prior * exp(positive), over 1 - prior, but not below exp(lowest); the larger term is taken out first.
        top = torch.maximum(mass, positive).detach()
        left = ((mass - top).exp() - prior * (positive - top).exp()) / (1 - prior)
        mass = (top + left.clamp(min=torch.finfo(mass.dtype).tiny).log()).clamp(
            min=torch.as_tensor(lowest, dtype=mass.dtype, device=mass.device)
        )
    return (mass + number).masked_fill(~some, -torch.inf)


def each_positive(logits: Tensor, positives: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """Mean over positives of -log of the part that each has beside the negatives of its anchor alone: a scalar, never half.

    Positives do not compete with each other (S3-Rec, arXiv 2008.07873, section 4.2.1). Without any, the loss is 0.

    Args:
        logits: (M, C) similarities, anchors by candidates.
        positives: (M, C) bool; all others are negatives.
        keep: (M, C) bool, False where a candidate is no negative; None if all are.
    """
    logits = wide(logits)
    # Without negatives a finite floor takes the place of minus infinity, which would make the gradient NaN.
    left_out = positives if keep is None else positives | ~keep
    negatives = logits.masked_fill(left_out, torch.finfo(logits.dtype).min).logsumexp(1)  # (M,)
    losses = F.softplus(negatives[:, None] - logits).masked_fill(~positives, 0.0)  # (M, C)
    return losses.sum() / positives.sum().clamp(min=1)


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor,
    similarity: Similarity = "cosine",
    same: Tensor | None = None,
    hardness: float = 0.0,
    prior: float = 0.0,
) -> Tensor:
    """NT-Xent: each of the 2B views must find its partner among the 2B - 1 others (SimCLR, arXiv 2002.05709, eq. 1).

    2B equal views give log(2B - 1). Differs from the paper: rows that belong together can be kept from being negatives
    of each other.

    Args:
        first: (B, D) one view of each row.
        second: (B, D) the other view.
        temperature: Divisor of the similarities; 0.1 to 1 in the paper.
        similarity: cosine (the paper) or dot product (CL4SRec, arXiv 2010.14395).
        same: (B, B) bool, symmetric, True where two rows are no negatives of each other.
        hardness: as in `contrast`.
        prior: as in `contrast`.

    Raises:
        UserError: the views differ in their shape, or the temperature is not above 0.
    """
    check_partners("nt_xent", first, second)
    check_above_zero("nt_xent", temperature=temperature)
    lowest = -1 / temperature if similarity == "cosine" else -math.inf
    views = torch.cat((first, second))  # (2B, D)
    logits = similarities(views, views, similarity) / temperature  # (2B, 2B)
    eye = torch.eye(len(views), dtype=torch.bool, device=views.device)
    keep = ~eye if same is None else ~(eye | same.repeat(2, 2))
    return contrast(logits, eye.roll(len(first), 1), keep=keep, hardness=hardness, prior=prior, lowest=lowest)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    temperature: float | Tensor,
    similarity: Similarity = "cosine",
    positives: Tensor | None = None,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: Reduction = "out",
) -> Tensor:
    """InfoNCE in one direction: query b must find key b among all C keys.

    Source: CPC, arXiv 1807.03748, eq. 4; with a queue of keys MoCo, arXiv 1911.05722, eq. 1.

    Args:
        queries: (B, D).
        keys: (C, D), C >= B; keys past the batch are a queue of negatives.
        temperature: Divisor of the similarities; 0.07 in MoCo.
        similarity: cosine or dot product.
        positives: (B, C) bool; query b with key b if None.
        keep: (B, C) or (C,) bool, False removes a key from the denominator; positives always stay.
        weights: (B, C) or (C,), >= 0, factors of the negatives.
        reduction: out or in, as in `contrast`.

    Raises:
        UserError: there are fewer keys than queries, and no `positives`; or the temperature is not above 0.
    """
    check_above_zero("info_nce", temperature=temperature)
    logits = similarities(queries, keys, similarity) / temperature  # (B, C)
    if positives is None:
        if len(keys) < len(queries):
            raise UserError(f"info_nce: every query needs its own key, and they have {shapes(queries, keys)}")
        positives = torch.eye(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    return contrast(logits, positives, keep=keep, weights=weights, reduction=reduction)


def alignment(first: Tensor, second: Tensor, *, power: float = 2.0) -> Tensor:
    """Mean distance of partners (B, D) on the unit sphere to `power`: 0 if equal (arXiv 2005.10242, section 4.1)."""
    check_partners("alignment", first, second)
    check_above_zero("alignment", power=power)
    gap = (_unit(first) - _unit(second)).square().sum(1)  # (B,)
    return mean(gap if power == 2 else gap.clamp(min=torch.finfo(gap.dtype).tiny).pow(power / 2))


def uniformity(states: Tensor, *, t: float = 2.0, same: Tensor | None = None) -> Tensor:
    """Log of the mean of exp(-t d^2) over pairs of rows (B, D) on the unit sphere: 0 in collapse, and without any pair.

    Source: arXiv 2005.10242, section 4.1.

    Args:
        states: (B, D).
        t: Sharpness; 2 in the paper.
        same: (B, B) bool, symmetric, True where two rows make no pair.
    """
    check_above_zero("uniformity", t=t)
    gaps = 2 - 2 * similarities(states, states, "cosine")  # (B, B), squared distances
    itself = torch.eye(len(gaps), dtype=torch.bool, device=gaps.device)
    left_out = itself if same is None else itself | same
    rows = len(gaps)
    pairs = rows * (rows - 1) if same is None else int((~left_out).sum())
    if not pairs:
        return gaps.sum() * 0
    return (-t * gaps).masked_fill(left_out, -torch.inf).flatten().logsumexp(0) - math.log(pairs)


def similarities(first: Tensor, second: Tensor, similarity: Similarity) -> Tensor:
    """Cosine or dot product of all pairs, float32 or wider whatever autocast says: (B, D), (C, D) -> (B, C)."""
    check_choice("similarity", similarity, Similarity)
    with torch.autocast(first.device.type, enabled=False):
        unit = _unit if similarity == "cosine" else wide
        return unit(first) @ unit(second).T


def _unit(states: Tensor) -> Tensor:
    return F.normalize(wide(states), dim=1)


def wide(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are that wide.

    Half precision holds a cosine to 1/256; over a temperature of 0.05 that is an error of 8 % in exp.
    """
    return values if values.dtype == torch.float64 else values.float()
