"""Metrics of one target a row from its rank, and metrics of the recommended lists as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from seqcl.errors import UserError, unknown

RANK_METRICS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "recall": lambda rank, k: (rank <= k).astype(np.float64),
    "hr": lambda rank, k: (rank <= k).astype(np.float64),
    "ndcg": lambda rank, k: np.where(rank <= k, 1.0 / np.log2(rank + 1.0), 0.0),
    "mrr": lambda rank, k: np.where(rank <= k, 1.0 / rank, 0.0),
    "map": lambda rank, k: np.where(rank <= k, 1.0 / rank, 0.0),
    "precision": lambda rank, k: (rank <= k) / k,
}
"""Value of each row from its rank (1 is best). With one target a row, hr is recall and map is mrr."""


def row_metric(name: str, ranks: np.ndarray) -> np.ndarray:
    """The value of one metric, such as "ndcg@10", for every row: (W,) float64; what tests and slices average.

    Raises:
        UserError: no such metric, or no k.
    """
    kind, _, k = name.partition("@")
    if kind not in RANK_METRICS:
        raise unknown("metric", kind, RANK_METRICS)
    if not k.isdigit() or int(k) < 1:
        raise UserError(f"metric {name!r}: write {kind}@k with a whole k of at least 1, such as {kind}@10")
    return RANK_METRICS[kind](ranks, int(k))


def rank_metrics(ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Means over the rows of every metric at every k, by names such as "ndcg@10"."""
    return {f"{name}@{k}": float(row_metric(f"{name}@{k}", ranks).mean()) for name in RANK_METRICS for k in ks}


def list_metrics(recommended: np.ndarray, item_counts: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """coverage@k, popularity@k and gini@k of the lists of all rows together.

    Args:
        recommended: (len(ks), N), how many of the top-k lists hold each item.
        item_counts: (N,), how often each item occurs in training.
        ks: one for each row of `recommended`.

    coverage is the share of items that stand in any list, popularity the mean training count of what is recommended,
    gini 0 where every item is recommended equally often and near 1 where one item takes all.
    """
    found: dict[str, float] = {}
    for name, of in (("coverage", coverage), ("popularity", popularity), ("gini", gini)):
        found |= {f"{name}@{k}": of(counts, item_counts) for k, counts in zip(ks, recommended, strict=True)}
    return found


def coverage(recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Share of the items that are recommended to anyone."""
    return float((recommended > 0).mean())


def popularity(recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean training count over everything recommended; 0 where nothing is."""
    return float(recommended @ item_counts.astype(np.float64) / max(int(recommended.sum()), 1))


def gini(recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Gini index of how often each item is recommended, never recommended ones included; 0 where nothing is."""
    size = len(recommended)
    weights = 2.0 * np.arange(1, size + 1) - size - 1
    return float(weights @ np.sort(recommended) / (size * max(int(recommended.sum()), 1)))
