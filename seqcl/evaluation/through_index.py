"""The same metrics from the lists that an index returns, and what the index costs and loses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seqcl.errors import UserError
from seqcl.evaluation.evaluate import Evaluator, Result, in_order
from seqcl.evaluation.metrics import list_metrics, rank_metrics
from seqcl.evaluation.ranks import Seen
from seqcl.evaluation.scores import Scorer, VectorScorer, evaluating
from seqcl.types import PAD, SeqBatch, Windows


class Searcher(Protocol):
    """Anything that finds items by inner product."""

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Scores and item ids (B, k), best first, PAD where fewer are found; `exclude` holds rows and item ids."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexResult:
    """Metrics through an index; a target that is not in its list of the largest k ranks N."""

    result: Result
    overlap: dict[str, float]  # "overlap@k": share of the exact top k that the index finds
    query_seconds: float  # for all windows, without encoding
    exact_seconds: float | None  # the same through the exact index


def evaluate_index(
    evaluator: Evaluator,
    index: Searcher,
    windows: Windows,
    batches: Iterable[SeqBatch],
    scorer: Scorer,
    item_counts: np.ndarray,
    *,
    exact: Searcher | None = None,
) -> IndexResult:
    """Evaluate what `index` recommends instead of the full ranking, and how much of the exact lists it finds.

    Args:
        evaluator: its ks and exclude_seen hold here too.
        index: over the vectors of `scorer`.
        windows: one target each.
        batches: their rows in their order.
        scorer: gives the queries.
        item_counts: (N + 2,), how often each item occurs in training.
        exact: an index that misses nothing, to compare with.

    Raises:
        UserError: the scorer has no vectors to search with.
    """
    if not isinstance(scorer, VectorScorer):
        raise UserError(f"{type(scorer).__name__} scores without vectors, so it cannot be searched through an index")
    with torch.inference_mode(), evaluating(scorer):
        queries = torch.cat([scorer.queries(batch).float() for _, batch in in_order(windows, batches)])  # (W, D)
        exclude = None
        if evaluator.exclude_seen:
            rows, columns = Seen(windows, queries.device).pairs(0, len(windows))
            exclude = rows, columns + 1
        k = evaluator.ks[-1]
        scores, items, query_seconds = timed_search(index, queries, k, exclude)
        truth, exact_seconds = None, None
        if exact is not None:
            _, truth, exact_seconds = timed_search(exact, queries, k, exclude)
    targets = windows.items[windows.stop].astype(np.int64)
    ranks = list_ranks(scores, items, targets, windows.num_items)
    sizes = windows.num_items + 1
    recommended = np.stack([np.bincount(items[:, :k].ravel(), minlength=sizes)[1:] for k in evaluator.ks])
    metrics = rank_metrics(ranks, evaluator.ks) | list_metrics(recommended, item_counts[1:-1], evaluator.ks)
    protocol = {
        "candidates": f"top {k} of {getattr(index, 'name', type(index).__name__)}",
        "exclude_seen": evaluator.exclude_seen,
        "max_len": windows.max_len,
        "ties": "against",
        "num_targets": len(windows),
    }
    return IndexResult(
        result=Result(metrics=metrics, users=windows.users, targets=targets, ranks=ranks, protocol=protocol),
        overlap={} if truth is None else {f"overlap@{k}": overlap(items[:, :k], truth[:, :k]) for k in evaluator.ks},
        query_seconds=query_seconds,
        exact_seconds=exact_seconds,
    )


def timed_search(
    index: Searcher, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores, items and seconds; one small search first, so that no start-up is measured."""
    index.search(queries[:1], k)
    started = time.perf_counter()
    scores, items = index.search(queries, k, exclude)
    found = scores.cpu().numpy(), items.cpu().numpy()  # waits for the device
    return *found, time.perf_counter() - started


def list_ranks(scores: np.ndarray, items: np.ndarray, targets: np.ndarray, num_items: int) -> np.ndarray:
    """Rank of each target by its list, ties against us, N where it is not in the list: (W,) int64."""
    hit = items == targets[:, None]  # (W, k)
    own = np.where(hit, scores, -np.inf).max(1, keepdims=True)  # (W, 1)
    return np.where(hit.any(1), ((scores >= own) & (items != PAD)).sum(1), num_items)


def overlap(items: np.ndarray, truth: np.ndarray) -> float:
    """Share of the items in `truth` that stand in the same row of `items`, PAD aside."""
    found = (truth[:, :, None] == items[:, None, :]).any(2) & (truth != PAD)
    return float(found.sum() / max(int((truth != PAD).sum()), 1))
