"""Whether one model is better than another beyond the luck of users and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired comparison of two models on one metric."""

    difference: float  # mean of the first minus mean of the second, over rows and seeds
    low: float  # 95 % confidence interval of the difference, over rows
    high: float
    p_value: float  # two-sided, of no difference; 1 where all differences are zero
    seeds_better: int  # seeds in which the first has the larger mean
    seeds: int

    @property
    def better(self) -> bool:
        """The first is significantly better at 5 %, and ahead in every seed."""
        return self.difference > 0 and self.p_value < 0.05 and self.seeds_better == self.seeds


def compare(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Comparison:
    """Paired two-sided t test over rows, each row's value averaged over seeds, beside the count of seeds won.

    Averaging over seeds first keeps rows independent: a row's values under several seeds are not new evidence of users.

    Args:
        first: one array of row values (W,) a seed, such as `row_metric("ndcg@10", result.ranks)`.
        second: the same rows in the same order, as many seeds.

    Raises:
        ValueError: the arrays do not pair up, or hold fewer than two rows.
    """
    shapes = {values.shape for values in [*first, *second]}
    if len(first) != len(second) or len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"{len(first)} and {len(second)} seeds with rows {sorted(shapes)}: they do not pair up")
    if first[0].size < 2:
        raise ValueError("a test over rows needs at least two of them")
    from scipy import stats  # dear to import, and wanted only here

    by_seed = np.stack(first) - np.stack(second)  # (seeds, W)
    difference = by_seed.mean(0)  # (W,)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    if error == 0.0:
        p_value, reach = (1.0 if mean == 0.0 else 0.0), 0.0
    else:
        p_value = float(2.0 * stats.t.sf(abs(mean) / error, len(difference) - 1))
        reach = error * float(stats.t.ppf(0.975, len(difference) - 1))
    return Comparison(
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        p_value=p_value,
        seeds_better=int((by_seed.mean(1) > 0).sum()),
        seeds=len(first),
    )
