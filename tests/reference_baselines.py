"""Slow, obvious versions of the baselines that count: one pair of items, one training row, one score at a time."""

from __future__ import annotations

import itertools
import math


def markov(rows, row, items, *, backoff):
    """The chance of each item after the newest of `row`, by counts in the training rows and by shares."""
    total = sum(len(one) for one in rows)
    after = [following for one in rows for item, following in itertools.pairwise(one) if item == row[-1]]
    return [
        (after.count(item) + backoff * sum(one.count(item) for one in rows) / total) / (len(after) + backoff)
        for item in range(1, items + 1)
    ]


def session_knn(rows, turns, row, items, own, *, k, recent, cosine, emphasis, fade, idf):
    """Score of each item by the training rows most like `row`.

    Args:
        rows: items of each training row.
        turns: a number for each, 0 for the most recent.
        row: the query, oldest first.
        items: N.
        own: the training row of the query's user, or None.
    """
    weights, ages = {}, {}
    for place, item in enumerate(row):  # of repeats, the newest counts
        weights[item] = ((place + 1) / len(row)) ** emphasis
        ages[item] = len(row) - 1 - place
    sharing = [one for one in range(len(rows)) if one != own and set(rows[one]) & set(row)]
    sharing.sort(key=lambda one: turns[one])
    likeness = {}
    for one in sharing[: recent or None]:
        likeness[one] = sum(weights[item] for item in set(rows[one]) & set(row))
        if cosine:
            length = math.sqrt(sum(weight**2 for weight in weights.values()))
            likeness[one] /= length * math.sqrt(len(set(rows[one])))
    nearest = sorted(likeness, key=lambda one: (-likeness[one], turns[one]))[:k]
    scores = []
    for item in range(1, items + 1):
        score = 0.0
        for one in nearest:
            if item in rows[one]:
                step = 1 + min(ages[shared] for shared in set(rows[one]) & set(row))
                score += likeness[one] / step**fade
        holding = sum(item in one for one in rows)
        scores.append(score * (1 + idf * math.log(len(rows) / max(holding, 1))))
    return scores
