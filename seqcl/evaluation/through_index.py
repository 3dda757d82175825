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
    items: np.ndarray  # (W, k), what was found
    query_seconds: float  # for all windows, without encoding
    exact_seconds: float | None  # the same through the exact index


@dataclass(frozen=True, eq=False, kw_only=True)
class Questions:
    """What indexes are asked, encoded once: the queries of windows, and what they must not find.

    Args:
        windows: one target each.
        queries: (W, D).
        exclude: rows (P,) and item ids (P,), or None.
        ks: cutoffs; the largest is how many items are asked for.
        item_counts: (N + 2,), how often each item occurs in training.
    """

    windows: Windows
    queries: Tensor
    exclude: tuple[Tensor, Tensor] | None
    ks: tuple[int, ...]
    item_counts: np.ndarray

    @classmethod
    def encode(
        cls,
        evaluator: Evaluator,
        windows: Windows,
        batches: Iterable[SeqBatch],
        scorer: Scorer,
        item_counts: np.ndarray,
    ) -> Questions:
        """The queries that a scorer has for windows.

        Raises:
            UserError: the scorer has no vectors to search with.
        """
        if not isinstance(scorer, VectorScorer):
            raise UserError(
                f"{type(scorer).__name__} scores without vectors, so it cannot be searched through an index"
            )
        with torch.inference_mode(), evaluating(scorer):
            queries = torch.cat([scorer.queries(batch).float() for _, batch in in_order(windows, batches)])  # (W, D)
        exclude = None
        if evaluator.exclude_seen:
            rows, columns = Seen(windows, queries.device).pairs(0, len(windows))
            exclude = rows, columns + 1
        return cls(windows=windows, queries=queries, exclude=exclude, ks=evaluator.ks, item_counts=item_counts)

    def ask(self, index: Searcher) -> tuple[np.ndarray, np.ndarray, float]:
        """Scores (W, k), items (W, k) and seconds; one small search first, so that no start-up is measured."""
        k = self.ks[-1]
        index.search(self.queries[:1], k)
        started = time.perf_counter()
        scores, items = index.search(self.queries, k, self.exclude)
        found = scores.cpu().numpy(), items.cpu().numpy()  # waits for the device
        return *found, time.perf_counter() - started

    def result(self, index: Searcher, truth: tuple[np.ndarray, float] | None = None) -> IndexResult:
        """What the index recommends, measured; `truth` is the exact items and seconds."""
        scores, items, seconds = self.ask(index)
        windows = self.windows
        targets = windows.items[windows.stop].astype(np.int64)
        ranks = list_ranks(scores, items, targets, windows.num_items)
        sizes = windows.num_items + 1
        recommended = np.stack([np.bincount(items[:, :k].ravel(), minlength=sizes)[1:] for k in self.ks])
        metrics = rank_metrics(ranks, self.ks) | list_metrics(recommended, self.item_counts[1:-1], self.ks)
        protocol = {
            "candidates": f"top {self.ks[-1]} of {getattr(index, 'name', type(index).__name__)}",
            "exclude_seen": self.exclude is not None,
            "max_len": windows.max_len,
            "ties": "against",
            "num_targets": len(windows),
        }
        exact, exact_seconds = truth or (None, None)
        return IndexResult(
            result=Result(metrics=metrics, users=windows.users, targets=targets, ranks=ranks, protocol=protocol),
            overlap={} if exact is None else {f"overlap@{k}": overlap(items[:, :k], exact[:, :k]) for k in self.ks},
            items=items,
            query_seconds=seconds,
            exact_seconds=exact_seconds,
        )


def list_ranks(scores: np.ndarray, items: np.ndarray, targets: np.ndarray, num_items: int) -> np.ndarray:
    """Rank of each target by its list, ties against us, N where it is not in the list: (W,) int64."""
    hit = items == targets[:, None]  # (W, k)
    own = np.where(hit, scores, -np.inf).max(1, keepdims=True)  # (W, 1)
    return np.where(hit.any(1), ((scores >= own) & (items != PAD)).sum(1), num_items)


def overlap(items: np.ndarray, truth: np.ndarray) -> float:
    """Share of the items in `truth` that stand in the same row of `items`, PAD aside."""
    found = (truth[:, :, None] == items[:, None, :]).any(2) & (truth != PAD)
    return float(found.sum() / max(int((truth != PAD).sum()), 1))
