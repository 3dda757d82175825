"""Signs of a collapsed representation: the number of directions that its vectors use."""

from __future__ import annotations

import torch
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
    unit = torch.nn.functional.normalize(vectors.detach().double(), dim=1)  # (M, D)
    pairs = len(unit) * (len(unit) - 1)
    cosine = (unit.sum(0).square().sum() - unit.square().sum()) / pairs  # over all pairs, which are not formed
    return {
        "effective_rank": effective_rank(values),
        "effective_rank_centered": effective_rank(singular_values(vectors, center=True)),
        "top_share": float(energy[0] / energy.sum().clamp_min(torch.finfo(torch.float64).tiny)),
        "mean_cosine": float(cosine),
    }
