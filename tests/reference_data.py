"""Slow, obvious versions of what seqcl.data does."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from seqcl.types import Windows

Row = tuple[object, object, float]  # user, item, time


def rows_by_user(log: Sequence[Row]) -> dict[object, list[tuple[object, float]]]:
    """Each user's (item, time) in time order; sorted() keeps file order in ties."""
    users: dict[object, list[tuple[object, float]]] = {}
    for user, item, time in log:
        users.setdefault(user, []).append((item, time))
    return {user: sorted(items, key=lambda pair: pair[1]) for user, items in users.items()}


def k_core(log: Sequence[Row], k: int) -> list[Row]:
    """Take away one thin user or item after the other until none is thin."""
    rows = list(log)
    while True:
        users = Counter(row[0] for row in rows)
        items = Counter(row[1] for row in rows)
        thin_user = next((user for user in users if users[user] < k), None)
        thin_item = next((item for item in items if items[item] < k), None)
        if thin_user is not None:
            rows = [row for row in rows if row[0] != thin_user]
        elif thin_item is not None:
            rows = [row for row in rows if row[1] != thin_item]
        else:
            return rows


def batch(windows: Windows, index: Sequence[int]) -> dict[str, list]:
    """The rows of a batch as lists, padded with 0, read item by item."""
    width = max(int(windows.stop[w] - windows.start[w]) for w in index)
    out: dict[str, list] = {"items": [], "lengths": [], "all": [], "last": [], "users": [], "times": []}
    for w in index:
        start, stop, first = int(windows.start[w]), int(windows.stop[w]), int(windows.first[w])
        padding = [0] * (width - (stop - start))
        out["items"].append([int(windows.items[t]) for t in range(start, stop)] + padding)
        out["lengths"].append(stop - start)
        out["all"].append([int(windows.items[t + 1]) if t >= first else 0 for t in range(start, stop)] + padding)
        out["last"].append(int(windows.items[stop]))
        out["users"].append(int(windows.users[w]))
        if windows.times is not None:
            out["times"].append([float(windows.times[t]) for t in range(start, stop)] + padding)
    return out


def predicted(windows: Windows) -> Counter[int]:
    """Count how often each position of the packed array is a target."""
    return Counter(t + 1 for w in range(len(windows)) for t in range(int(windows.first[w]), int(windows.stop[w])))


def markov_ceiling(
    transition: dict[tuple[int, ...], dict[int, float]],
    histories: Sequence[Sequence[int]],
    k: int,
    order: int,
    exclude_seen: bool,
) -> tuple[float, float]:
    """Expected recall@k and ndcg@k of the best list of k items, found by trying the true chances item by item."""
    recall = ndcg = 0.0
    for history in histories:
        chances = dict(transition[tuple(history[-order:])])
        if exclude_seen:
            chances = {item: chance for item, chance in chances.items() if item not in set(history)}
        best_recall = best_ndcg = 0.0
        for ranking in itertools.permutations(chances):
            best_recall = max(best_recall, sum(chances[item] for item in ranking[:k]))
            best_ndcg = max(best_ndcg, sum(chances[item] / math.log2(r + 2) for r, item in enumerate(ranking[:k])))
        recall += best_recall
        ndcg += best_ndcg
    return recall / len(histories), ndcg / len(histories)


def random_log(seed: int, *, users: int = 12, items: int = 9, rows: int = 90, ties: bool = True) -> list[Row]:
    """A small log with repeats and equal times, users and items numbered from 0."""
    random = np.random.default_rng(seed)
    span = rows // 4 if ties else 10 * rows
    times = random.integers(0, span, rows)
    return [
        (int(u), int(i), float(t))
        for u, i, t in zip(random.integers(0, users, rows), random.integers(0, items, rows), times, strict=True)
    ]
