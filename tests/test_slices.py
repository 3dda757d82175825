"""Metrics of a part of the targets, against slices counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seqcl.evaluation import Result, by_slice
from seqcl.evaluation.slices import by_popularity, thirds
from tests.reference_evaluation import windows_of

ROWS = [[1, 2, 3], [2, 1, 3, 4], [1, 3, 2, 5, 1], [5, 4, 3, 2, 1, 2], [4, 3, 1, 5, 1, 2, 3], [3, 1, 2, 4, 1, 2, 3, 4]]
"""Histories of 2, 3, 4, 5, 6 and 7 items; the targets are 3, 4, 1, 2, 3 and 4."""

COUNTS = np.array([0, 9, 2, 5, 1, 0, 0])
"""Of PAD, items 1 to 5 and MASK: one item in five is item 1."""


def result_of(windows, ranks):
    targets = windows.items[windows.stop].astype(np.int64)
    return Result(metrics={}, users=windows.users, targets=targets, ranks=np.array(ranks), protocol={})


def test_slices_are_those_counted_by_hand():
    windows = windows_of(ROWS, num_items=5, max_len=3)  # histories count whole, not only what is read of them
    found = by_slice(result_of(windows, [1, 2, 3, 9, 1, 9]), windows, COUNTS, ks=(2,))
    lengths, popularity = found["history_length"], found["target_popularity"]
    assert {name: (it["users"], it["targets"], it["range"]) for name, it in lengths.items()} == {
        "short": (2, 2, [2, 3]),
        "medium": (2, 2, [4, 5]),
        "long": (2, 2, [6, 7]),
    }
    assert [it["metrics"]["hr@2"] for it in lengths.values()] == [1.0, 0.0, 0.5]
    assert [it["metrics"]["mrr@2"] for it in lengths.values()] == [0.75, 0.0, 0.5]
    assert lengths["short"]["metrics"]["ndcg@2"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert {name: (it["targets"], it["range"]) for name, it in popularity.items()} == {
        "head": (1, [9, 9]),
        "torso": (3, [2, 5]),
        "tail": (2, [1, 1]),
    }
    assert [it["metrics"]["hr@2"] for it in popularity.values()] == [0.0, pytest.approx(2 / 3), 0.5]


def test_slices_of_a_kind_add_up_to_the_whole():
    generator = np.random.default_rng(0)
    windows = windows_of(
        [generator.integers(1, 31, size).tolist() for size in generator.integers(2, 9, 200)], num_items=30
    )
    ranks, counts = generator.integers(1, 31, 200), np.concatenate(([0], generator.integers(0, 50, 30), [0]))
    for slices in by_slice(result_of(windows, ranks), windows, counts, ks=(10,)).values():
        assert sum(it["targets"] for it in slices.values()) == 200
        total = sum(it["targets"] * it["metrics"].get("hr@10", 0.0) for it in slices.values())
        assert total / 200 == pytest.approx((ranks <= 10).mean())


def test_equal_lengths_stay_together():
    slices = thirds(np.array([4, 4, 4, 4, 5, 9]))
    assert {name: rows.tolist() for name, rows in slices.items()} == {
        "short": [True] * 4 + [False] * 2,
        "medium": [False] * 6,
        "long": [False] * 4 + [True] * 2,
    }


def test_an_empty_slice_has_no_metrics():
    windows = windows_of([[1, 2], [2, 1]], num_items=2)
    found = by_slice(result_of(windows, [1, 2]), windows, np.array([0, 3, 3, 0]), ks=(5,))
    assert found["history_length"]["long"] == {"users": 0, "targets": 0, "range": None, "metrics": {}}


def test_a_user_with_two_targets_counts_once():
    windows = windows_of([[1, 2, 3], [1, 2, 3]], num_items=3)
    result = Result(metrics={}, users=np.array([0, 0]), targets=np.array([3, 3]), ranks=np.array([1, 2]), protocol={})
    tail = by_slice(result, windows, np.array([0, 5, 1, 1, 0]), ks=(1,))["target_popularity"]["tail"]
    assert (tail["users"], tail["targets"], tail["metrics"]["hr@1"]) == (1, 2, 0.5)


@pytest.mark.parametrize(("size", "head", "torso"), [(1, 1, 0), (5, 1, 2), (6, 2, 2), (100, 20, 40), (101, 21, 40)])
def test_head_torso_and_tail_have_their_fifths_of_the_items_and_never_pad_or_mask(size, head, torso):
    borders = [0, head, head + torso, size]
    wanted = {name: list(range(*borders[part : part + 2])) for part, name in enumerate(("head", "torso", "tail"))}
    rising = by_popularity(np.concatenate(([99], np.arange(size), [99])))
    assert {name: (size - np.flatnonzero(items)[::-1]).tolist() for name, items in rising.items()} == wanted
    equal = by_popularity(np.ones(size + 2))
    assert {name: (np.flatnonzero(items) - 1).tolist() for name, items in equal.items()} == wanted
