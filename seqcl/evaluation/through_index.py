"""Metrics of the lists that an index returns, and the cost and the loss of the index."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seqcl.errors import UserError
from seqcl.evaluation.evaluate import Evaluator, Result, base_protocol, in_order
from seqcl.evaluation.metrics import list_metrics, rank_metrics
from seqcl.evaluation.ranks import Seen, no_hit
from seqcl.evaluation.scores import Scorer, evaluating
from seqcl.types import PAD, SeqBatch, Windows


class Searcher(Protocol):
    """An index that finds items by inner product."""

    @property
    def name(self) -> str:
        """Name of the index, for the protocol."""
        ...

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the k best items of each query: scores and item ids (B, k), best first, PAD where fewer are found.

        `exclude` has rows and item ids that must not be found.
        """
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexResult:
    """Metrics through an index; a target that is not in its list, of the largest k, ranks N, or one behind every k."""

    result: Result
    overlap: dict[str, float]  # "overlap@k": share of the exact k best that the index finds
    items: np.ndarray  # (W, k), the items found
    query_seconds: float  # for all windows, without encoding
    exact_seconds: float | None  # the same through the exact index

    @property
    def queries_per_second(self) -> float:
        """Windows answered in a second."""
        return len(self.items) / self.query_seconds


@dataclass(frozen=True, eq=False, kw_only=True)
class Questions:
    """Questions to an index, encoded once: the queries of windows, and the items that they must not find.

    Args:
        windows: one target each.
        queries: (W, D), float32.
        vectors: (N, D), float32, of items 1..N: what an index is made of.
        exclude: rows (P,) and item ids (P,), or None.
        ks: lengths of the list; the largest of them is how many items are asked for.
        item_counts: (N + 2,), how often each item occurs in training.
    """

    windows: Windows
    queries: Tensor
    vectors: Tensor
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
        """Encode windows with a model.

        Raises:
            UserError: the model has no vectors.
        """
        with torch.inference_mode(), evaluating(scorer):
            vectors = scorer.vectors()
            if vectors is None:
                raise UserError(f"{type(scorer).__name__} scores without vectors, so no index can hold its items")
            queries = torch.cat([scorer.queries(batch).float() for _, batch in in_order(windows, batches)])  # (W, D)
        exclude = None
        if evaluator.exclude_seen:
            rows, columns = Seen(windows, queries.device).pairs(0, len(windows))
            exclude = rows, columns + 1
        return cls(
            windows=windows,
            queries=queries,
            vectors=vectors.float().contiguous(),
            exclude=exclude,
            ks=evaluator.ks,
            item_counts=item_counts,
        )

    def ask(self, index: Searcher) -> tuple[np.ndarray, np.ndarray, float]:
        """Search once: scores (W, k), items (W, k) and seconds; a small search goes first, so start-up does not count."""
        k = self.ks[-1]
        index.search(self.queries[:1], k)
        started = time.perf_counter()
        scores, items = index.search(self.queries, k, self.exclude)
        found = scores.cpu().numpy(), items.cpu().numpy()  # this waits for the device
        return *found, time.perf_counter() - started

    def result(self, index: Searcher, truth: tuple[np.ndarray, float] | None = None) -> IndexResult:
        """Measure the lists of an index; `truth` has the exact items and the seconds that they took."""
        scores, items, seconds = self.ask(index)
        windows = self.windows
        targets = windows.items[windows.stop].astype(np.int64)
        ranks = list_ranks(scores, items, targets, no_hit(windows.num_items, self.ks))
        sizes = windows.num_items + 1
        recommended = np.stack([np.bincount(items[:, :k].ravel(), minlength=sizes)[1:] for k in self.ks])
        metrics = rank_metrics(ranks, self.ks) | list_metrics(recommended, self.item_counts[1:-1], self.ks)
        protocol = base_protocol(windows, f"top {self.ks[-1]} of {index.name}", self.exclude is not None)
        exact, exact_seconds = truth or (None, None)
        return IndexResult(
            result=Result(metrics=metrics, users=windows.users, targets=targets, ranks=ranks, protocol=protocol),
            overlap={} if exact is None else {f"overlap@{k}": overlap(items[:, :k], exact[:, :k]) for k in self.ks},
            items=items,
            query_seconds=seconds,
            exact_seconds=exact_seconds,
        )


def list_ranks(scores: np.ndarray, items: np.ndarray, targets: np.ndarray, missed: int) -> np.ndarray:
    """Rank of each target in its list: (W,) int64; ties count against us, a target that is not there ranks `missed`."""
    hit = items == targets[:, None]  # (W, k)
    own = np.where(hit, scores, -np.inf).max(1, keepdims=True)  # (W, 1)
    return np.where(hit.any(1), ((scores >= own) & (items != PAD)).sum(1), missed)


def overlap(items: np.ndarray, truth: np.ndarray) -> float:
    """Share of the items in `truth` that stand in the same row of `items`; PAD does not count."""
    found = (truth[:, :, None] == items[:, None, :]).any(2) & (truth != PAD)
    return float(found.sum() / max(int((truth != PAD).sum()), 1))
