"""The conformance check of ranking metrics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

KS = (1, 5, 10, 100)


def check_metric(metric: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Check a metric `metric(ranks, k)`: the value of each row from the rank (W,) of its target, 1 being the best.

    A higher value is better.

    Raises:
        AssertionError: names the rule that is broken.
    """
    ranks = np.concatenate((np.arange(1, 60), [99, 100, 101, 10_000, 10_000_000])).astype(np.int64)  # (W,)
    order = np.random.default_rng(0).permutation(len(ranks))
    for k in KS:
        before = ranks.copy()
        values = valued(metric, ranks, k)
        assert np.array_equal(before, ranks), "the metric writes into the ranks"
        worse = np.flatnonzero(np.diff(values) > 0)
        assert not len(worse), f"at k={k} rank {ranks[worse[0] + 1]} has a better value than rank {ranks[worse[0]]}"
        assert values[0] > values[-1], f"at k={k} rank 1 must have a better value than rank {ranks[-1]}"
        shuffled = valued(metric, ranks[order], k)
        assert np.array_equal(shuffled, values[order]), f"at k={k} the value of a row depends on the order of rows"
        alone = [valued(metric, ranks[row : row + 1], k)[0] for row in range(len(ranks))]
        assert np.array_equal(alone, values), f"at k={k} the value of a row depends on other rows"


def valued(metric: Callable[[np.ndarray, int], np.ndarray], ranks: np.ndarray, k: int) -> np.ndarray:
    """Compute the values of a metric and check that there is one finite value a row."""
    values = np.asarray(metric(ranks, k), dtype=np.float64)  # as a run takes them
    assert values.shape == ranks.shape, f"a metric must give a value a row, {ranks.shape}, not {values.shape}"
    assert bool(np.isfinite(values).all()), f"at k={k} the metric gives values that are not finite"
    return values
