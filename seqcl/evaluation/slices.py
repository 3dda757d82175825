"""The same metrics for a part of the targets: users with short and long histories, popular and rare items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqcl.evaluation.evaluate import Result
from seqcl.evaluation.metrics import rank_metrics
from seqcl.types import Windows


def by_slice(
    result: Result, windows: Windows, item_counts: np.ndarray, ks: Sequence[int]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Metrics of a result by `history_length` (short, medium, long), `target_popularity` (head, torso, tail) and `target_training`
    (warm, and cold: never seen in training).

    Every target is in one slice of each kind, so means weighted by `targets` are those of the whole result. A slice holds
    its users, its targets, the range of lengths or of training counts found in it, and its metrics; an empty one has a
    range of None and no metrics.

    Args:
        result: what the evaluation of `windows` gave.
        windows: one target each, in the order of the result.
        item_counts: (N + 2,), how often each item occurs in training.
        ks: lengths of the list at which metrics are taken.
    """
    lengths = windows.stop - windows.offsets[windows.users]  # (W,)
    popularity = item_counts[result.targets]  # (W,)
    kinds: dict[str, tuple[np.ndarray, Mapping[str, np.ndarray]]] = {
        "history_length": (lengths, thirds(lengths)),
        "target_popularity": (
            popularity,
            {name: items[result.targets] for name, items in by_popularity(item_counts).items()},
        ),
        "target_training": (popularity, {"warm": popularity > 0, "cold": popularity == 0}),
    }
    return {
        kind: {name: of_slice(result, rows, values, ks) for name, rows in slices.items()}
        for kind, (values, slices) in kinds.items()
    }


def thirds(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Rows (W,) bool of each third of the histories, from a user's first item up to the target, read or not.

    Equal lengths stay together: short ends with the length at which a third of the rows is reached, medium with that at
    two thirds. Where few lengths occur, slices are of unequal size and may be empty.
    """
    ordered = np.sort(lengths)
    low, high = (ordered[-(-len(ordered) * part // 3) - 1] for part in (1, 2))
    return {"short": lengths <= low, "medium": (lengths > low) & (lengths <= high), "long": lengths > high}


def by_popularity(item_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Which ids (N + 2,) bool are of the head, the fifth of the items that training holds most often, of the torso, the next two fifths, and of the tail.

    Borders are rounded up; of items that occur equally often the lower id comes first, so that shares are what they are said to be.
    """
    order = np.argsort(-item_counts[1:-1], kind="stable") + 1
    place = np.full(len(item_counts), -1)  # of PAD and MASK: none
    place[order] = np.arange(len(order))
    head, torso = (-(-len(order) * fifths // 5) for fifths in (1, 3))
    return {"head": (place >= 0) & (place < head), "torso": (place >= head) & (place < torso), "tail": place >= torso}


def of_slice(result: Result, rows: np.ndarray, values: np.ndarray, ks: Sequence[int]) -> dict[str, Any]:
    """What is said of the rows (W,) bool of one slice."""
    found = values[rows]
    return {
        "users": len(np.unique(result.users[rows])),
        "targets": len(found),
        "range": [int(found.min()), int(found.max())] if len(found) else None,
        "metrics": rank_metrics(result.ranks[rows], ks) if len(found) else {},
    }
