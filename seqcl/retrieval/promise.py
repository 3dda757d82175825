"""Choose how widely an index searches, so that it finds a given share of the exact lists."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqcl.errors import UserError
from seqcl.retrieval.faiss_index import FaissIndex
from seqcl.retrieval.pieces import best_scores

RECALL = 0.95
"""Share of the exact list that an exported index finds if nothing else is asked for."""
QUERIES = 1000
"""Queries to choose and to measure with, half of them each."""
WIDEST = 32768
"""Largest width of search in a graph."""
RERANKED = 8192, 200
"""Most items that are found by their codes and ranked again by their vectors: so many, or one in so many of a larger catalogue."""
EQUAL = 1e-5
"""Difference, as a portion of a score, within which two items are equally good."""

log = logging.getLogger("seqcl")

Step = tuple[str, list[int], tuple[float, ...]]
"""An option that sets how widely an index searches, its values from narrow to wide, and the shares to reach, best first."""


def check_recall(recall: float) -> None:
    """Refuse a share that is none.

    Raises:
        UserError: it is not above 0 and at most 1.
    """
    if not 0 < recall <= 1:
        raise UserError(f"--recall {recall:g}: must be above 0 and at most 1, such as {RECALL}")


class Recall:
    """The share of the exact k best of some queries that an index finds; items that score the same count as the same.

    Args:
        vectors: (N, D), what the index is made of.
        queries: (Q, D).
        k: length of the lists.
    """

    def __init__(self, vectors: Tensor, queries: Tensor, k: int) -> None:
        self.vectors, self.queries, self.k = vectors, queries, min(k, len(vectors))
        least = best_scores(vectors, queries, self.k)[:, -1:]  # (Q, 1)
        self.least = least - EQUAL * least.abs()
        self.seconds = 0.0

    def of(self, index: FaissIndex) -> Tensor:
        """The share for each query, (Q,) float64; `seconds` is then what the search took."""
        started = time.perf_counter()
        _, items = index.search(self.queries, self.k)
        self.seconds = time.perf_counter() - started
        found = self.vectors[(items - 1).clamp(min=0)]  # (Q, k, D)
        scores = (found @ self.queries[:, :, None])[:, :, 0]  # (Q, k)
        return ((scores >= self.least) & (items > 0)).double().mean(1)


def keep_promise(index: FaissIndex, vectors: Tensor, queries: Tensor, *, recall: float, k: int) -> dict[str, Any]:
    """Set the narrowest search with which the index finds a share of the exact lists, and tell what it gives.

    Every second query is chosen with: their mean less two standard errors must reach the share. Where no width has that, the
    widest is taken if their mean alone reaches it, with a warning. The other queries measure.

    Args:
        index: the index; its width is set.
        vectors: (N, D), what it is made of; they may be mapped into memory.
        queries: (Q, D), float32, in a random order.
        recall: share of the exact k best to find.
        k: length of the lists.

    Raises:
        UserError: the widest search does not find as many on average; its share and the way out are named.
    """
    check_recall(recall)
    chosen, measured = (Recall(vectors, queries[start::2] if len(queries) > 1 else queries, k) for start in (0, 1))

    def reaches(option: str, goal: float) -> Callable[[int], bool]:
        def good(value: int) -> bool:
            setattr(index, option, value)
            return lower(chosen.of(index)) >= goal

        return good

    plan = steps(index, k, recall)
    for option, values, _ in plan:
        setattr(index, option, values[-1])
    widest = chosen.of(index)
    if (best := float(widest.mean())) < recall:
        others = {"ivfpq": "ivf, hnsw or flat", "hnsw": "ivf or flat"}.get(index.kind, "flat")
        at = ", ".join(f"{option} {getattr(index, option)}" for option, _, _ in plan)
        raise UserError(
            f"--recall {recall:g}: {index.kind} finds {best:.3f} of the exact {chosen.k} best at its widest search "
            f"({at}): ask for less, or choose another index: {others}"
        )
    if (least := lower(widest)) < recall:
        log.warning(
            "%s: its widest search is taken: %.4f on average reaches --recall %g, and %.4f, which is less by two standard "
            "errors, does not", index.kind, best, recall, least,
        )  # fmt: skip
    for option, values, goals in plan:
        found = (narrowest(values, reaches(option, goal)) for goal in goals if least >= goal)
        setattr(index, option, next((value for value in found if value is not None), values[-1]))
    share = float(measured.of(index).mean())
    if share < recall:
        log.warning("%s: recall is %.4f on other queries than it was chosen on, below %g", index.kind, share, recall)
    return {
        "asked": recall,
        "recall": round(share, 4),
        "k": measured.k,
        "queries": len(measured.queries),
        **{option: getattr(index, option) for option, _, _ in plan},
        "queries_per_second": round(len(measured.queries) / measured.seconds, 1),
        "threads": torch.get_num_threads(),
        "build_seconds": round(index.build_seconds, 2),
        "bytes_per_item": round(index.bytes_per_item, 1),
    }


def steps(index: FaissIndex, k: int, recall: float) -> list[Step]:
    """What to choose, one after the other, while the rest searches as widely as it can.

    ivfpq looks into so many cells that half of the allowed loss is left, and then ranks again no more than it must.
    """
    items = int(index.index.ntotal)
    if index.kind == "flat":
        return []
    if index.kind == "hnsw":
        return [("search_width", rising(min(k, items), max(min(items, WIDEST), k)), (recall,))]
    probes = rising(1, index.lists)
    if index.kind == "ivf":
        return [("probes", probes, (recall,))]
    least, part = RERANKED
    factors = rising(1, max(1, min(items, max(least, items // part)) // k))
    return [("probes", probes, ((1 + recall) / 2, recall)), ("rerank", factors, (recall,))]


def rising(low: int, high: int) -> list[int]:
    """Whole numbers from low to high, each about a fifth more than the one before."""
    values = [low]
    while values[-1] < high:
        values.append(min(max(values[-1] + 1, round(values[-1] * 1.19)), high))
    return values


def narrowest(values: Sequence[int], good: Callable[[int], bool]) -> int | None:
    """The first of rising values that is good, where all after it are too; None if the last is not.

    Every fourth is tried from the first on, as narrow searches take the least time, then those between.
    """
    below, at = -1, 0
    while not good(values[at]):
        if at == len(values) - 1:
            return None
        below, at = at, min(at + 4, len(values) - 1)
    while at - below > 1:
        middle = (at + below) // 2
        below, at = (below, middle) if good(values[middle]) else (middle, at)
    return values[at]


def lower(shares: Tensor) -> float:
    """The mean of shares (Q,), less two standard errors."""
    spread = float(shares.std()) if len(shares) > 1 else 0.0
    return float(shares.mean()) - 2 * spread / len(shares) ** 0.5
