"""Test if one model is better than another beyond the luck of users and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired comparison of two models on one metric."""

    difference: float  # mean of the first less mean of the second, over rows and seeds
    low: float  # 95 % confidence interval of the difference, over rows and seeds; with one seed over rows
    high: float
    p_value: float  # two-sided, if there were no difference; 1 where all differences are zero
    seeds_better: int  # seeds in which the first has the larger mean
    seeds: int

    @property
    def better(self) -> bool:
        """True where the first is significantly better at 5 %, and ahead in every seed."""
        return self.difference > 0 and self.p_value < 0.05 and self.seeds_better == self.seeds


def compare(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], *, users: np.ndarray | None = None
) -> Comparison:
    """Test a mean difference over rows and seeds, both drawn at random: paired and two-sided.

    Rows of one user are drawn together, see `by_user`. With one seed and one row a user it is the paired t test over rows. With several, a row's values are not new rows, and all rows of a
    seed share its luck. The error of the mean is therefore that of the balanced two-way layout with random rows and
    seeds (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4), with the degrees of freedom of
    Satterthwaite (Biometrics Bulletin 2, 1946). In simulations with three seeds or more the interval held the truth in
    92 to 99 of 100 cases, with two seeds in 86 to 98.

    Args:
        first: for each seed an array of row values (W,), such as `row_metric("ndcg@10", result.ranks)`.
        second: the same rows in the same order, as many seeds.
        users: (W,) the user of each row; None if every row is of another user.

    Raises:
        ValueError: the arrays do not pair up, or hold rows of fewer than two users.
    """
    shapes = {values.shape for values in [*first, *second]}
    if len(first) != len(second) or len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"{len(first)} and {len(second)} seeds with rows {sorted(shapes)}: they do not pair up")
    if first[0].size < 2:
        raise ValueError("a test over rows needs at least two of them")
    from scipy import stats  # slow to import, and needed only here

    differences = np.stack(first) - np.stack(second)  # (S, W)
    mean = float(differences.mean())
    if users is not None:
        differences = by_user(differences, users)
        if differences.shape[1] < 2:
            raise ValueError("a test over users needs at least two of them")
    error, freedom = standard_error(differences)
    if error == 0.0:
        p_value, reach = (1.0 if mean == 0.0 else 0.0), 0.0
    else:
        p_value = float(2.0 * stats.t.sf(abs(mean) / error, freedom))
        reach = error * float(stats.t.ppf(0.975, freedom))
    return Comparison(
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        p_value=p_value,
        seeds_better=int((differences.mean(1) > 0).sum()),
        seeds=len(first),
    )


def by_user(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """One value a user for the rows of several, (S, W) to (S, U), whose mean and error over users are those of the mean over rows.

    A mean over rows is a ratio of two sums over users. A user's value is that mean, plus what the user's rows add to it, times U
    (linearisation: Cochran, Sampling Techniques, 1977, section 9A.1). Rows come back as they are where every user has one.

    Args:
        values: (S, W) for each seed.
        users: (W,) the user of each row.
    """
    place = np.unique(users, return_inverse=True)[1]
    number = int(place.max()) + 1
    if number == len(users):
        return values
    mean = values.mean()
    sums = np.stack([np.bincount(place, weights=row - mean, minlength=number) for row in values])  # (S, U)
    return mean + sums * (number / len(users))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979)."""
    corrected, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, values[index] * (len(values) - place)))
        corrected[index] = largest
    return corrected


def standard_error(values: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of values (S, W) over random seeds and rows, and its degrees of freedom."""
    seeds, rows = values.shape
    by_row, by_seed = values.mean(0), values.mean(1)  # (W,), (S,)
    of_rows = seeds * float(by_row.var(ddof=1))  # mean squares of the two-way layout
    if seeds == 1:
        return math.sqrt(of_rows / rows), rows - 1
    of_seeds = rows * float(by_seed.var(ddof=1))
    freedoms = np.array([rows - 1, seeds - 1, (rows - 1) * (seeds - 1)])
    rest = float(np.square(values - by_row - by_seed[:, None] + values.mean()).sum()) / freedoms[2]
    # A component of variance that comes out negative counts as zero.
    if max(of_rows, of_seeds) <= rest:
        terms = np.array([0.0, 0.0, rest])
    elif of_seeds <= rest:
        terms = np.array([of_rows, 0.0, 0.0])
    elif of_rows <= rest:
        terms = np.array([0.0, of_seeds, 0.0])
    else:
        terms = np.array([of_rows, of_seeds, -rest])
    total = float(terms.sum())
    freedom = total**2 / float((terms**2 / freedoms).sum()) if total else rows - 1
    return math.sqrt(total / (seeds * rows)), max(freedom, min(rows, seeds) - 1)
