"""Measures of a representation: directions that its vectors use, hardness of negatives, and the place of popular items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def singular_values(vectors: Tensor, *, center: bool = False) -> Tensor:
    """Compute the singular values of a matrix of vectors, largest first: (min(M, D),) float64.

    Args:
        vectors: (M, D), such as an embedding table without PAD and MASK, or the states of many rows.
        center: subtract the mean vector first, so that a common offset does not count as a direction.

    Raises:
        ValueError: a value is not finite.
    """
    wide = vectors.detach().double()
    if not bool(wide.isfinite().all()):
        raise ValueError("vectors hold values that are not finite")
    return torch.linalg.svdvals(wide - wide.mean(0) if center else wide)


def effective_rank(values: Tensor) -> float:
    """Compute exp of the entropy of the singular values, as shares of their sum.

    It is 1 if all vectors lie on a line, D if no direction is favoured, 0 if all are zero.

    Roy and Vetterli, EUSIPCO 2007; as a measure of representations RankMe, arXiv 2210.02885 eq. 1.

    Args:
        values: (D,), as `singular_values` gives them.
    """
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def spectrum(vectors: Tensor) -> dict[str, float]:
    """Measure a collapse: effective rank, share of the energy in the largest direction, mean cosine of all pairs.

    Args:
        vectors: (M, D) with M at least 2; a row of zeros has cosine 0 with all.
    """
    values = singular_values(vectors)
    energy = values.square()
    unit = F.normalize(vectors.detach().double(), dim=1)  # (M, D)
    pairs = len(unit) * (len(unit) - 1)
    cosine = (unit.sum(0).square().sum() - unit.square().sum()) / pairs  # over all pairs, which are not formed
    return {
        "effective_rank": effective_rank(values),
        "effective_rank_centered": effective_rank(singular_values(vectors, center=True)),
        "top_share": float(energy[0] / energy.sum().clamp_min(torch.finfo(torch.float64).tiny)),
        "mean_cosine": float(cosine),
    }


def quantiles(values: Tensor) -> dict[str, float]:
    """The mean of values (M,), and the values that 10 and 90 of 100 do not exceed; NaN of none."""
    if not len(values):
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    low, high = np.quantile(values.double().cpu().numpy(), (0.1, 0.9))
    return {"mean": float(values.double().mean()), "low": float(low), "high": float(high)}


def hardest_share(cosines: Tensor, negatives: Tensor, *, temperature: float, parts: Sequence[float]) -> list[float]:
    """The share of InfoNCE's gradient that falls on the hardest part of each anchor's negatives, meaned over anchors.

    The gradient by the similarity of a negative is its share in the softmax, over the temperature (arXiv 2012.09740, section
    3.2); so the shares among negatives do not depend on the positive. An anchor without negatives is left out.

    Args:
        cosines: (M, C) similarities of anchors and candidates.
        negatives: (M, C) bool, which candidates are negatives of an anchor.
        temperature: divisor of the similarities.
        parts: fractions of the negatives, the hardest ones; ceil(part * n) of n.
    """
    logits = (cosines.double() / temperature).masked_fill(~negatives, -torch.inf)  # (M, C)
    count = negatives.sum(1)  # (M,)
    logits, count = logits[count > 0], count[count > 0]
    ordered = logits.softmax(1).sort(dim=1, descending=True).values.cumsum(1)  # (M, C)
    shares = []
    for part in parts:
        taken = (count * part - 1e-9).ceil().long().clamp(min=1)
        shares.append(float(ordered.gather(1, taken[:, None] - 1).mean()) if len(ordered) else float("nan"))
    return shares


def by_count(vectors: Tensor, counts: np.ndarray, *, groups: int = 10) -> dict[str, Any]:
    """Norms of item vectors, and their angles to the mean vector, by how often training has the items.

    Args:
        vectors: (N, D), such as the item table without PAD and MASK.
        counts: (N,) training counts.
        groups: parts of equal size, from rare to popular.

    Returns:
        The norms and angles (degrees) of all items, rows of the groups, and the rank correlations with the counts (Spearman);
        None where one of them is the same for all items.
    """
    from scipy import stats

    wide = vectors.detach().double()
    norms = wide.norm(dim=1)  # (N,)
    cosine = F.cosine_similarity(wide, wide.mean(0, keepdim=True), dim=1).clamp(-1, 1)
    found = {"norm": norms.cpu().numpy(), "angle": cosine.arccos().rad2deg().cpu().numpy()}
    rows = []
    for part in np.array_split(np.argsort(counts, kind="stable"), min(groups, len(counts))):
        means = {name: float(values[part].mean()) for name, values in found.items()}
        rows.append({"from": int(counts[part].min()), "to": int(counts[part].max()), "items": len(part), **means})
    same = {name: np.ptp(values) <= 1e-9 or np.ptp(counts) == 0 for name, values in found.items()}
    correlation = {
        name: None if same[name] else float(stats.spearmanr(values, counts).statistic) for name, values in found.items()
    }
    return {**found, "count": counts, "groups": rows, "correlation": correlation}
