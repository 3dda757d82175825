"""Metrics: of each row, from the rank of its target; and of the recommended lists as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqcl import registry
from seqcl.errors import UserError, unknown


def recall(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0; with one target a row also the hit rate."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(rank + 1) where the target is among the first k, else 0."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def mrr(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / rank where the target is among the first k, else 0; with one target a row also the average precision."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def precision(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / k where the target is among the first k, else 0."""
    return (ranks <= k) / k


METRICS = registry.table(
    "metric", {"recall": recall, "hr": recall, "ndcg": ndcg, "mrr": mrr, "map": mrr, "precision": precision}
)
"""Metrics of each row by name: functions of the ranks (W,), 1 being best, and k, with a value (W,) for each row.

A larger value is better: training keeps the epoch with the largest.
"""


ALIASES = {"hit": "hr"}
"""Other names of metrics, as RecBole has them."""


def metric_name(name: str) -> str:
    """Our name of a metric at k: "hit@10" is "hr@10", in any case of letters; a name that is nobody's stays as it is."""
    kind, at, k = name.partition("@")
    if kind in METRICS:
        return name
    kind = ALIASES.get(kind.lower(), kind.lower())
    return f"{kind}{at}{k}" if kind in METRICS else name


def row_metric(name: str, ranks: np.ndarray) -> np.ndarray:
    """The values (W,) float64 of one metric, such as "ndcg@10"; tests and slices average them.

    Raises:
        UserError: there is no such metric, it has no k, or a registered one does not give a number for each row.
    """
    kind, _, k = metric_name(name).partition("@")
    if kind not in METRICS:
        raise unknown("metric", kind, METRICS)
    if not k.isdigit() or int(k) < 1:
        raise UserError(f"metric {name!r}: write {kind}@k with a whole k of at least 1, such as {kind}@10")
    values = np.asarray(METRICS[kind](ranks, int(k)), dtype=np.float64)
    if values.shape != ranks.shape or not np.isfinite(values).all():
        raise UserError(f"metric {name}: it must give a finite number for each of {len(ranks)} ranks")
    return values


def rank_metrics(ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Means over the rows of every metric at every k, by names such as "ndcg@10"."""
    return {f"{name}@{k}": float(row_metric(f"{name}@{k}", ranks).mean()) for name in METRICS for k in ks}


def list_metrics(recommended: np.ndarray, item_counts: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """coverage@k, popularity@k and gini@k of the lists of all rows together.

    Args:
        recommended: (len(ks), N), in how many of the top-k lists each item stands.
        item_counts: (N,), how often each item occurs in training.
        ks: one k for each row of `recommended`.
    """
    found: dict[str, float] = {}
    for name, of in LIST_METRICS.items():
        found |= {f"{name}@{k}": of(counts, item_counts) for k, counts in zip(ks, recommended, strict=True)}
    return found


def coverage(recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Share of the items that stand in any list."""
    return float((recommended > 0).mean())


def popularity(recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean training count of everything recommended; 0 where nothing is."""
    return float(recommended @ item_counts.astype(np.float64) / max(int(recommended.sum()), 1))


def gini(recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Gini index of how often each item is recommended, items never recommended included; 0 where nothing is.

    0 where every item is recommended equally often, near 1 where one item takes all.
    """
    size = len(recommended)
    weights = 2.0 * np.arange(1, size + 1) - size - 1
    return float(weights @ np.sort(recommended) / (size * max(int(recommended.sum()), 1)))


LIST_METRICS = {"coverage": coverage, "popularity": popularity, "gini": gini}
"""Metrics of all lists together, by name."""
