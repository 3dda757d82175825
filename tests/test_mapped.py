"""What is counted a block at a time is what the whole array gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqcl import mapped
from seqcl.data import Interactions, Sequences, leave_one_out, pack, temporal
from seqcl.data.split import count_before, nth_smallest
from tests.reference_data import random_log


@pytest.fixture(autouse=True, params=[1, 5, 64, 1 << 20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "BLOCK", request.param)


@pytest.fixture
def log(tmp_path: Path) -> Sequences:
    """A log that is mapped from disk."""
    users, items, times = (np.array(column) for column in zip(*random_log(1, rows=200), strict=True))
    user_ids, users = np.unique(users, return_inverse=True)
    item_ids, items = np.unique(items, return_inverse=True)
    columns = {"users": users.astype(np.int32), "items": items.astype(np.int32), "times": times.astype(float)}
    pack(Interactions(**columns, user_ids=user_ids, item_ids=item_ids)).save(tmp_path / "packed")
    return Sequences.load(tmp_path / "packed")


def test_stretches_hold_whole_users_and_all_of_them() -> None:
    offsets = np.array([0, 3, 3, 4, 50, 51, 60])
    found = list(mapped.stretches(offsets))
    assert [user for own, _, _ in found for user in range(own.start, own.stop)] == list(range(6))
    assert [(begin, end) for _, begin, end in found] == [(offsets[own.start], offsets[own.stop]) for own, _, _ in found]


@pytest.mark.parametrize("windows", ["last", "sliding", "prefix"])
def test_counts_of_items_and_targets(log: Sequences, windows: str) -> None:
    train = leave_one_out(log, max_len=4, windows=windows).train
    items, targets = np.zeros(train.num_items + 2, int), np.zeros(train.num_items + 2, int)
    for user in range(train.num_users):
        for place in range(train.offsets[user], train.ends[user]):
            items[train.items[place]] += 1
    for first, stop in zip(train.first, train.stop, strict=True):
        for place in range(first, stop):
            targets[train.items[place + 1]] += 1
    assert train.item_counts().tolist() == items.tolist()
    assert train.target_counts().tolist() == targets.tolist()
    users, known = train.known()
    assert np.bincount(known, minlength=train.num_items + 2).tolist() == items.tolist()
    assert users.tolist() == np.repeat(np.arange(train.num_users), train.ends - train.offsets[:-1]).tolist()


def test_the_nth_smallest_is_that_of_the_sorted_values() -> None:
    random = np.random.default_rng(0)
    for values in (random.normal(0, 1e9, 50), random.integers(0, 5, 50).astype(float), np.array([0.0, 1e300, 5e-324])):
        assert [nth_smallest(values, place) for place in range(len(values))] == np.sort(values).tolist()


def test_a_temporal_split_counts_what_is_before_its_cuts(log: Sequences) -> None:
    split = temporal(log, max_len=5)
    moment, begins = split.protocol["valid_from"], log.offsets[:-1]
    assert moment == np.sort(log.times)[int(200 * 0.8)]
    before = [sum(log.times[begin:end] < moment) for begin, end in zip(begins, log.offsets[1:], strict=True)]
    assert (count_before(log, moment) - begins).tolist() == before


def test_pages_are_let_go_and_read_again(log: Sequences) -> None:
    before = log.items.copy()
    mapped.let_go(log.items, before, None)
    assert log.items.tolist() == before.tolist()


def test_stats_are_those_of_the_rows(log: Sequences) -> None:
    stats = log.stats()
    pairs = {(user, item) for user in range(log.num_users) for item in log.row(user).tolist()}
    assert stats["repeats"] == pytest.approx(1 - len(pairs) / log.num_interactions)
    assert stats["item_count_max"] == np.bincount(log.items).max()


@pytest.mark.parametrize("damaged", [b"z'descr'", b"{{descr'", b"  \n  {'d"])
def test_a_damaged_header_is_a_value_error(tmp_path, damaged):
    """numpy reads the header as Python, and lets through what its reader of Python says."""
    file = tmp_path / "ids.npy"
    np.save(file, np.arange(5))
    assert mapped.mapped_array(file).tolist() == [0, 1, 2, 3, 4]
    content = file.read_bytes()
    file.write_bytes(content[:10] + damaged + content[18:])
    with pytest.raises(ValueError, match="header"):
        mapped.mapped_array(file)
