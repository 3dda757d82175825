"""Metrics of parts of the targets: users with short and long histories, popular and rare items."""

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
    """Compute the metrics of a result by slice.

    The kinds are `history_length` (short, medium, long), `target_popularity` (head, torso, tail) and `target_training`
    (warm, and cold: never seen in training). Every target is in one slice of each kind, so means weighted by `targets`
    are those of the whole result. A slice has the number of its users and targets, the range of their lengths or
    training counts, and its metrics; the range of an empty slice is None, and it has no metrics.

    Args:
        result: result of evaluating `windows`.
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
    """Divide rows by history length: a mask (W,) bool for each third.

    A length counts all of a user's items before the target, also those that the window leaves out. Equal lengths stay
    together: short ends with the length at which a third of the rows is reached, medium with the one at two thirds.
    Where few lengths occur, slices are of unequal size and may be empty.
    """
    ordered = np.sort(lengths)
    low, high = (ordered[-(-len(ordered) * part // 3) - 1] for part in (1, 2))
    return {"short": lengths <= low, "medium": (lengths > low) & (lengths <= high), "long": lengths > high}


def by_popularity(item_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Divide the items by how often training has them: a mask (N + 2,) bool for each slice.

    The head is the most frequent fifth, the torso the next two fifths, the tail the rest. Borders are rounded up. Of
    items that occur equally often the lower id comes first, so that the slices have these sizes.
    """
    order = np.argsort(-item_counts[1:-1], kind="stable") + 1
    place = np.full(len(item_counts), -1)  # PAD and MASK have none
    place[order] = np.arange(len(order))
    head, torso = (-(-len(order) * fifths // 5) for fifths in (1, 3))
    return {"head": (place >= 0) & (place < head), "torso": (place >= head) & (place < torso), "tail": place >= torso}


def of_slice(result: Result, rows: np.ndarray, values: np.ndarray, ks: Sequence[int]) -> dict[str, Any]:
    """Describe one slice: the rows (W,) bool."""
    found = values[rows]
    return {
        "users": len(np.unique(result.users[rows])),
        "targets": len(found),
        "range": [int(found.min()), int(found.max())] if len(found) else None,
        "metrics": rank_metrics(result.ranks[rows], ks) if len(found) else {},
    }
