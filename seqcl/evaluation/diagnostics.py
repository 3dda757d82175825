"""Whether a representation has collapsed: how many directions its vectors use."""

from __future__ import annotations

import torch
from torch import Tensor


def singular_values(vectors: Tensor, *, center: bool = False) -> Tensor:
    """Singular values of the matrix of vectors, largest first: (min(M, D),) float64.

    Args:
        vectors: (M, D), such as an item table without PAD and MASK, or the states of many rows.
        center: take the mean vector off first, so that a common offset does not count as a direction.

    Raises:
        ValueError: a value is not finite.
    """
    wide = vectors.detach().double()
    if not bool(wide.isfinite().all()):
        raise ValueError("vectors hold values that are not finite")
    return torch.linalg.svdvals(wide - wide.mean(0) if center else wide)


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of the singular values' shares: 1 if all vectors lie on a line, D if no direction is favoured.

    Roy and Vetterli, EUSIPCO 2007; as a measure of representations RankMe, arXiv 2210.02885 eq. 1. All zeros give 0.

    Args:
        values: (D,), as `singular_values` gives them.
    """
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def spectrum(vectors: Tensor) -> dict[str, float]:
    """What shows a collapse: effective rank, share of the largest direction in the energy, mean cosine of pairs.

    Args:
        vectors: (M, D) with M at least 2; a row of zeros has cosine 0 with all.
    """
    values = singular_values(vectors)
    energy = values.square()
    unit = torch.nn.functional.normalize(vectors.detach().double(), dim=1)  # (M, D)
    pairs = len(unit) * (len(unit) - 1)
    cosine = (unit.sum(0).square().sum() - unit.square().sum()) / pairs  # of all pairs, without forming them
    return {
        "effective_rank": effective_rank(values),
        "effective_rank_centered": effective_rank(singular_values(vectors, center=True)),
        "top_share": float(energy[0] / energy.sum().clamp_min(torch.finfo(torch.float64).tiny)),
        "mean_cosine": float(cosine),
    }
