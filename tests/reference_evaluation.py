"""Slow, obvious versions of ranking and its metrics."""

from __future__ import annotations

import math

import numpy as np

from seqcl.types import Windows


def windows_of(rows: list[list[int]], *, num_items: int, max_len: int = 50) -> Windows:
    """The newest item of every row is the target; up to max_len items before it are read."""
    sizes = np.array([len(row) for row in rows])
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    stop = offsets[1:] - 1
    return Windows(
        items=np.array([item for row in rows for item in row], dtype=np.int32),
        offsets=offsets,
        ends=stop,
        users=np.arange(len(rows)),
        start=np.maximum(offsets[:-1], stop - max_len),
        stop=stop,
        first=stop - 1,
        num_items=num_items,
        max_len=max_len,
    )


def rank_by_sorting(scores: list[float], target: int, seen: set[int]) -> int:
    """Place of the target in the sorted list, last among equals; columns are 0-based."""
    kept = [-math.inf if column in seen else score for column, score in enumerate(scores)]
    order = sorted(range(len(kept)), key=lambda column: (-kept[column], column == target))
    return order.index(target) + 1


def best_columns(scores: list[float], k: int, seen: set[int]) -> list[int]:
    """The k best columns that are not excluded, best first."""
    return sorted(set(range(len(scores))) - seen, key=lambda column: -scores[column])[:k]


def metrics_by_counting(ranks: list[int], k: int) -> dict[str, float]:
    """Means over rows of the metrics of one relevant item, straight from their definitions on a list of hits."""
    totals = dict.fromkeys(["recall", "hr", "ndcg", "mrr", "map", "precision"], 0.0)
    for rank in ranks:
        hits = [int(place == rank) for place in range(1, k + 1)]
        totals["recall"] += sum(hits) / 1
        totals["hr"] += any(hits)
        totals["ndcg"] += sum(hit / math.log2(place + 1) for place, hit in enumerate(hits, 1))
        totals["mrr"] += next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0)
        totals["map"] += sum(hit * sum(hits[:place]) / place for place, hit in enumerate(hits, 1)) / 1
        totals["precision"] += sum(hits) / k
    return {name: total / len(ranks) for name, total in totals.items()}


def gini_by_pairs(counts: list[int]) -> float:
    """Mean absolute difference of all pairs over twice the mean."""
    pairs = [abs(a - b) for a in counts for b in counts]
    return sum(pairs) / len(pairs) / (2 * sum(counts) / len(counts))


def crossed_error(values: list[list[float]]) -> float:
    """Standard error of the mean of values[seed][row], both random; neither component of variance may be negative.

    The variance of the mean is the squared mean less the mean product of two values that share neither seed nor row.
    """
    seeds, rows = range(len(values)), range(len(values[0]))
    mean = sum(sum(row) for row in values) / (len(seeds) * len(rows))
    apart = [values[s][u] * values[t][v] for s in seeds for u in rows for t in seeds for v in rows if s != t and u != v]
    return math.sqrt(mean**2 - sum(apart) / len(apart))
