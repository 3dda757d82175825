"""Few users and noise: what changes, what stays, and that no held-out item is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from seqcl.data import (
    Interactions,
    LeakageError,
    Preparation,
    Sequences,
    Split,
    add_noise,
    hold_out_items,
    keep_users,
    leave_one_out,
    pack,
)
from seqcl.errors import UserError
from seqcl.report.table import heading_of
from tests.reference_data import random_log

FIELDS = ("users", "start", "stop", "first")


def log(seed: int = 3, rows: int = 300) -> Sequences:
    table = pd.DataFrame(random_log(seed, rows=rows), columns=["user_id", "item_id", "timestamp"])
    return pack(Interactions.from_frame(table))


def rows(windows) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(windows, name).tolist() for name in FIELDS), strict=True))


@pytest.mark.parametrize("windows", ["last", "sliding", "prefix"])
def test_users_that_do_not_train_are_nowhere_in_training_and_all_else_is_as_it_was(windows):
    sequences = log()
    whole = leave_one_out(sequences, max_len=4, windows=windows)
    few, more = keep_users(whole, 0.3), keep_users(whole, 0.6)
    assert few.valid is whole.valid and few.test is whole.test and few.train.items is whole.train.items
    trains = set(few.train.known()[0].tolist())
    assert 0 < len(trains) <= round(0.3 * sequences.num_users) and trains <= set(more.train.known()[0].tolist())
    assert rows(few.train) == [row for row in rows(whole.train) if row[0] in trains]
    users, items = whole.train.known()
    expected = np.bincount(items[np.isin(users, list(trains))], minlength=sequences.num_items + 2)
    np.testing.assert_array_equal(few.train.item_counts(), expected)
    assert few.protocol["train_users"] == 0.3 and keep_users(whole, 1.0) is whole


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_noise_replaces_so_many_training_items_by_others_and_touches_no_target(fraction):
    sequences = log()
    whole = leave_one_out(sequences, max_len=4, windows="sliding")
    noisy = add_noise(whole, fraction)
    known = np.zeros(len(sequences.items), bool)
    for user in range(sequences.num_users):
        known[whole.train.offsets[user] : whole.train.ends[user]] = True
    other = noisy.train.items != sequences.items
    assert other.sum() == round(fraction * known.sum()) and not other[~known].any()
    assert noisy.train.items.min() >= 1 and noisy.train.items.max() <= sequences.num_items
    for part in ("train", "valid", "test"):
        ours, before = getattr(noisy, part), getattr(whole, part)
        assert ours.items is noisy.train.items and rows(ours) == rows(before)
        if part != "train":
            np.testing.assert_array_equal(ours.items[ours.stop], before.items[before.stop])
    assert noisy.protocol["noise"] == fraction and add_noise(whole, 0.0) is whole
    more = add_noise(whole, fraction + 0.2).train.items
    np.testing.assert_array_equal(more[other], noisy.train.items[other])


def test_noise_is_drawn_from_all_other_items_alike():
    sequences = pack(
        Interactions.from_frame(
            pd.DataFrame({"user_id": np.repeat(np.arange(400), 12), "item_id": np.tile(np.arange(6), 800)})
        )
    )
    noisy = add_noise(leave_one_out(sequences), 0.9).train.items
    drawn = noisy[noisy != sequences.items]
    counts = np.bincount(drawn, minlength=7)[1:]
    assert abs(counts / counts.sum() - 1 / 6).max() < 0.02  # five standard deviations


def test_all_hardships_together_are_what_each_does():
    sequences = log()
    split = Preparation(noise=0.2, train_users=0.5, cold_items=0.3, max_len=4).split_windows(sequences)
    noisy = add_noise(leave_one_out(sequences, max_len=4, windows="sliding"), 0.2)
    expected = hold_out_items(keep_users(noisy, 0.5), sequences, 0.3)
    assert split.protocol == expected.protocol and {"noise", "train_users", "cold_items"} <= split.protocol.keys()
    users, items = noisy.train.known()
    gone = set(items.tolist()) - set(hold_out_items(noisy, sequences, 0.3).train.known()[1].tolist())
    trains = set(keep_users(noisy, 0.5).train.known()[0].tolist())
    left = [
        pair for pair in zip(users.tolist(), items.tolist(), strict=True) if pair[0] in trains and pair[1] not in gone
    ]
    assert list(zip(*(part.tolist() for part in split.train.known()), strict=True)) == left
    with pytest.raises(LeakageError, match="train does not know the same"):
        whole = hold_out_items(noisy, sequences, 0.3).train
        Split(train=whole, valid=split.valid, test=split.test, protocol=split.protocol)


def test_what_cannot_be_is_refused():
    sequences = log()
    whole = leave_one_out(sequences)
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="train_users must be above 0"):
            keep_users(whole, wrong)
    with pytest.raises(UserError, match="noise must be from 0"):
        add_noise(whole, 1.0)
    none = replace(whole.train, **{name: getattr(whole.train, name)[:0] for name in FIELDS})
    with pytest.raises(UserError, match=r"none of the \d+ users that train_users 0.5 keeps has a target"):
        keep_users(replace(whole, train=none), 0.5)


def test_every_hardship_stands_over_the_table():
    split = Preparation(noise=0.2, train_users=0.5, cold_items=0.3).split_windows(log())
    told = heading_of({"name": "log"}, split.protocol | {"candidates": "full", "exclude_seen": True}, "seed 0")
    assert "0.5 of the users train, 0.2 of the training items replaced, 0.3 of the items not in training" in told
