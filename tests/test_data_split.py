from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqcl.data import Interactions, LeakageError, Sequences, Split, hold_out_items, leave_one_out, pack, temporal
from seqcl.errors import UserError
from tests.reference_data import predicted, random_log

KINDS = ["last", "sliding", "prefix"]


def packed(lengths: list[int], *, times: bool = False) -> Sequences:
    """Users of the given lengths; the item at place t of the packed array is t + 1, so items tell their place."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    table = pd.DataFrame(
        {"user_id": users, "item_id": np.arange(len(users)), "timestamp": np.arange(len(users)) * 10.0}
    )
    return pack(Interactions.from_frame(table, order="time" if times else "file"))


def log(seed: int, *, rows: int = 120, ties: bool = True) -> Sequences:
    table = pd.DataFrame(random_log(seed, rows=rows, ties=ties), columns=["user_id", "item_id", "timestamp"])
    return pack(Interactions.from_frame(table))


def rows(windows: object) -> set[tuple[int, ...]]:
    return set(zip(*(getattr(windows, field).tolist() for field in ("users", "start", "stop", "first")), strict=True))


lengths = st.lists(st.integers(1, 30), min_size=2, max_size=8).filter(lambda sizes: max(sizes) >= 3)


def test_leave_one_out_is_the_textbook_one() -> None:
    split = leave_one_out(packed([5, 2, 3, 1]), max_len=3)
    # Users begin at 0, 5, 7, 10. Of the first, 0 1 2 train, 3 validates, 4 tests with 3 in its history.
    assert rows(split.train) == {(0, 0, 2, 0), (1, 5, 6, 5)}
    assert rows(split.valid) == {(0, 0, 3, 2), (2, 7, 8, 7)}
    assert rows(split.test) == {(0, 1, 4, 3), (2, 7, 9, 8)}
    assert split.train.ends.tolist() == [3, 7, 8, 11]
    assert split.valid.ends.tolist() == [3, 7, 8, 11]
    assert split.test.ends.tolist() == [4, 7, 9, 11]
    assert split.protocol == {"split": "leave_one_out", "max_len": 3, "windows": "last"}


def test_counts_of_training_hold_neither_validation_nor_test_items() -> None:
    split = leave_one_out(packed([5, 2, 3, 1]))
    assert split.train.item_counts().tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0]


@given(lengths, st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_sliding_and_prefix_windows_predict_every_training_target_exactly_once(sizes: list[int], max_len: int) -> None:
    sequences = packed(sizes)
    for kind in ("sliding", "prefix"):
        train = leave_one_out(sequences, max_len=max_len, windows=kind).train
        wanted = Counter(t for u in range(len(sizes)) for t in range(sequences.offsets[u] + 1, train.ends[u]))
        assert predicted(train) == wanted
        assert train.num_targets == sum(wanted.values())


@given(lengths, st.integers(2, 12))
@settings(max_examples=100, deadline=None)
def test_a_sliding_target_sees_half_a_window_or_the_whole_row_before_it(sizes: list[int], max_len: int) -> None:
    train = leave_one_out(packed(sizes), max_len=max_len, windows="sliding").train
    begins = train.offsets[train.users]
    assert ((train.first - train.start + 1 > max_len // 2) | (train.start == begins)).all()
    assert (train.stop - train.start <= max_len).all()


@given(lengths, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_prefix_windows_hold_all_that_came_before_up_to_the_limit(sizes: list[int], max_len: int) -> None:
    train = leave_one_out(packed(sizes), max_len=max_len, windows="prefix").train
    assert (train.first == train.stop - 1).all()
    assert (train.start == np.maximum(train.offsets[train.users], train.stop - max_len)).all()


@given(lengths, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_last_windows_are_the_newest_items_of_every_user_with_two(sizes: list[int], max_len: int) -> None:
    sequences = packed(sizes)
    train = leave_one_out(sequences, max_len=max_len, windows="last").train
    own = train.ends - sequences.offsets[:-1]
    assert train.users.tolist() == np.flatnonzero(own >= 2).tolist()
    assert (train.stop == train.ends[train.users] - 1).all()
    assert (train.stop - train.start == np.minimum(own[train.users] - 1, max_len)).all()
    assert (train.first == train.start).all()


def test_evaluation_windows_stand_shortest_first_and_say_whose_they_are() -> None:
    sequences = packed([9, 3, 30, 4])
    for windows in (leave_one_out(sequences).valid, leave_one_out(sequences).test):
        sizes = windows.stop - windows.start
        assert (np.diff(sizes) >= 0).all()
        assert windows.users.tolist() == [1, 3, 0, 2]
        assert (windows.first == windows.stop - 1).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("targets", ["first", "all"])
@pytest.mark.parametrize("cold", [False, True])
def test_a_temporal_split_has_one_cut_for_all(seed: int, targets: str, cold: bool) -> None:
    sequences = log(seed)
    split = temporal(sequences, max_len=4, windows="prefix", valid=0.2, test=0.2, targets=targets, cold=cold)
    begin_valid, begin_test = split.protocol["valid_from"], split.protocol["test_from"]
    owner = np.repeat(np.arange(sequences.num_users), np.diff(sequences.offsets))
    seen = set(sequences.items[sequences.times < begin_valid].tolist())
    for windows, begin, until in ((split.valid, begin_valid, begin_test), (split.test, begin_test, np.inf)):
        expected = []
        for user in range(sequences.num_users):
            places = [t for t in np.flatnonzero(owner == user) if begin <= sequences.times[t] < until]
            for place in places if targets == "all" else places[:1]:
                if place > sequences.offsets[user] and (cold or int(sequences.items[place]) in seen):
                    expected.append((user, int(max(sequences.offsets[user], place - 4)), int(place), int(place) - 1))
        assert rows(windows) == set(expected)
    train_targets = predicted(split.train)
    assert all(sequences.times[place] < begin_valid for place in train_targets)
    assert split.train.item_counts().sum() == (sequences.times < begin_valid).sum()


def test_the_shares_of_a_temporal_split_are_shares_of_interactions() -> None:
    sequences = log(5, rows=400, ties=False)
    split = temporal(sequences, valid=0.1, test=0.2)
    assert abs((sequences.times < split.protocol["valid_from"]).mean() - 0.7) < 0.02
    assert abs((sequences.times >= split.protocol["test_from"]).mean() - 0.2) < 0.02


def test_a_temporal_cut_may_be_given_in_seconds_and_its_own_second_comes_after_it() -> None:
    sequences = log(1)
    split = temporal(sequences, valid=20.0, test=25.0, targets="all", cold=True)
    assert split.train.times[split.valid.stop].min() == 20.0
    known = np.concatenate([np.arange(a, b) for a, b in zip(split.train.offsets, split.train.ends, strict=False)])
    assert split.train.times[known].max() == 19.0


def test_wrong_options_and_empty_parts_are_said() -> None:
    sequences = log(0)
    for wrong, message in [
        ({"max_len": 0}, "max_len must be 1 or more, not 0"),
        ({"windows": "slidng"}, "unknown windows 'slidng': did you mean sliding"),
    ]:
        for cut in (leave_one_out, temporal):
            with pytest.raises(UserError, match=message):
                cut(sequences, **wrong)
    for wrong, message in [
        ({"targets": "al"}, "unknown targets 'al': did you mean all"),
        ({"valid": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"valid": 0.1, "test": 100.0}, "both be fractions"),
        ({"valid": 0.0}, "above 0"),
        ({"valid": 20.0, "test": 10.0}, "must begin before the test"),
        ({"valid": 1e6, "test": 2e6}, "nothing to validate on"),
        ({"valid": float("nan")}, "above 0"),
    ]:
        with pytest.raises(UserError, match=message):
            temporal(sequences, **wrong)
    with pytest.raises(UserError, match="has no times"):
        temporal(packed([5, 5]))
    with pytest.raises(UserError, match="no user has three items"):
        leave_one_out(packed([2, 2, 1]))


def leaks() -> list[tuple[str, object, str]]:
    """Ways to break a good split, and what the check must say."""

    def bump(part: str, **changes: int) -> object:
        def apply(split: Split) -> dict[str, object]:
            windows = getattr(split, part)
            moved = {field: getattr(windows, field).copy() for field in changes}
            for field, step in changes.items():
                moved[field][-1] += step
            return {part: replace(windows, **moved)}

        return apply

    def more_known(part: str, step: int) -> object:
        def apply(split: Split) -> dict[str, object]:
            windows = getattr(split, part)
            return {part: replace(windows, ends=np.minimum(windows.ends + step, windows.offsets[1:]))}

        return apply

    def other_array(split: Split) -> dict[str, object]:
        return {"test": replace(split.test, items=split.test.items.copy())}

    def unsorted(split: Split) -> dict[str, object]:
        times = split.train.times[::-1].copy()
        return {part: replace(getattr(split, part), times=times) for part in ("train", "valid", "test")}

    def swap(split: Split) -> dict[str, object]:
        return {"valid": split.test, "test": split.valid}

    return [
        (
            "training learns the validation item",
            bump("train", stop=1, start=1, first=1),
            "train window .* learns an item it must not know",
        ),
        ("training reads another user", bump("train", start=-4), "reads another user's items"),
        ("training knows the validation item", more_known("train", 1), "predicts an item that training knows"),
        ("training knows all", more_known("train", 2), "predicts an item that training knows"),
        ("validation may know its target", more_known("valid", 1), "valid window .* predicts an item that it may know"),
        ("test may know its target", more_known("test", 1), "test window .* predicts an item that it may know"),
        ("validation predicts the test item", bump("valid", stop=1, start=1, first=1), "predicts the test's item"),
        ("the test predicts the validation item", bump("test", stop=-1, start=-1, first=-1), "test window"),
        ("the parts are swapped", swap, "valid|test"),
        ("windows too long", bump("test", start=-1), "reads more than max_len items|another user's"),
        ("evaluation with many targets", bump("test", first=-1), "with several targets"),
        ("a window past its user", bump("test", stop=1, first=1), "predicts another user's items"),
        ("a target before what is read", bump("train", first=-1), "predicts from a place it does not read"),
        ("another packed array", other_array, "not windows over one packed array"),
        ("rows out of time order", unsorted, "not in time order"),
    ]


@pytest.mark.parametrize(("change", "message"), [pytest.param(c, m, id=name) for name, c, m in leaks()])
def test_the_leakage_check_fires_on_a_leaking_split(change: object, message: str) -> None:
    split = leave_one_out(packed([6, 9, 7], times=True), max_len=4, windows="sliding")
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    Split(**parts, protocol=split.protocol)
    with pytest.raises(LeakageError, match=message):
        Split(**{**parts, **change(split)}, protocol=split.protocol)


def test_the_leakage_check_sees_a_temporal_cut_that_is_not_one() -> None:
    # Leave-one-out of users that live one after the other: later users train on what is later than others' targets.
    split = leave_one_out(packed([6, 9, 7], times=True))
    protocol = {**split.protocol, "split": "temporal", "valid_from": 0.0, "test_from": 0.0}
    with pytest.raises(LeakageError, match="valid knows rows as late as what it predicts"):
        Split(train=split.train, valid=split.valid, test=split.test, protocol=protocol)


@pytest.mark.parametrize("windows", ["last", "sliding", "prefix"])
def test_items_held_out_are_nowhere_in_training_and_all_else_is_as_it_was(windows):
    sequences = log(3)
    whole = leave_one_out(sequences, max_len=4, windows=windows)
    split = hold_out_items(whole, sequences, 0.3)
    cold = np.flatnonzero((split.train.item_counts() == 0) & (whole.train.item_counts() > 0))
    assert len(cold) > 0 and split.protocol["cold_items"] == 0.3
    assert split.valid is whole.valid and split.test is whole.test
    assert not np.isin(split.train.items, cold).any()
    for user in range(sequences.num_users):
        known = whole.train.items[whole.train.offsets[user] : whole.train.ends[user]]
        mine = split.train.items[split.train.offsets[user] : split.train.ends[user]]
        dropped = sequences.num_items - round(0.7 * sequences.num_items)
        never = np.setdiff1d(known, mine)
        assert len(never) <= dropped and mine.tolist() == [item for item in known if item not in never]
    assert hold_out_items(whole, sequences, 0.3).train.items.tolist() == split.train.items.tolist()
    assert hold_out_items(whole, sequences, 0.0) is whole
    with pytest.raises(UserError, match="cold_items must be from 0 to below 1"):
        hold_out_items(whole, sequences, 1.0)


def test_a_leak_through_an_array_of_its_own_is_seen():
    sequences = log(3)
    split = hold_out_items(leave_one_out(sequences, max_len=4), sequences, 0.2)
    items = split.train.items.copy()
    users, known = split.valid.known()
    user = next(user for user in split.train.users if len(set(known[users == user])) < sequences.num_items)
    strange = min(set(range(1, sequences.num_items + 1)) - set(known[users == user]))
    items[split.train.offsets[user]] = strange
    with pytest.raises(LeakageError, match="train does not know the same as validation without the cold items"):
        replace(split, train=replace(split.train, items=items))
