"""Train, validation and test as windows over one packed array, checked for leaks every time they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from seqcl.data.attributes import item_attributes
from seqcl.data.features import table_features
from seqcl.data.sequences import Sequences
from seqcl.errors import UserError, unknown
from seqcl.types import Windows

Cuts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Start, stop and first of windows."""


class LeakageError(RuntimeError):
    """A split lets training or a history see what is to be predicted: a defect of the split, not of the user's data."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Three sets of windows over the same packed array, and what a result must say of how they were made.

    Evaluation windows hold one target each and stand shortest first, so that batches in order carry little padding;
    `users` says whose they are.
    """

    train: Windows
    valid: Windows
    test: Windows
    protocol: dict[str, Any]

    def __post_init__(self) -> None:
        check_leakage(self)


def leave_one_out(sequences: Sequences, *, max_len: int = 50, windows: str = "last") -> Split:
    """Each user's last item tests, the one before validates (the test history has it), the rest trains.

    Users with fewer than three items only train.

    Args:
        sequences: the packed log.
        max_len: most items a window reads.
        windows: how training rows are cut: last, sliding or prefix; see `training_windows`.

    Raises:
        UserError: an option that is not valid, or no user has three items.
    """
    check_options(max_len, windows)
    begins, ends = sequences.offsets[:-1], sequences.offsets[1:]
    held = np.flatnonzero(ends - begins >= 3)
    if not len(held):
        raise UserError(f"{sequences.name}: no user has three items, which leave-one-out needs to validate and test")
    known = {}
    for part, left_out in (("train", 2), ("valid", 2), ("test", 1)):
        known[part] = ends.copy()
        known[part][held] -= left_out
    protocol = {"split": "leave_one_out", "max_len": max_len, "windows": windows}
    return Split(
        train=training_windows(sequences, known["train"], max_len=max_len, windows=windows),
        valid=evaluation_windows(sequences, known["valid"], held, known["valid"][held], max_len=max_len),
        test=evaluation_windows(sequences, known["test"], held, known["test"][held], max_len=max_len),
        protocol=protocol,
    )


def temporal(
    sequences: Sequences,
    *,
    max_len: int = 50,
    windows: str = "last",
    valid: float = 0.1,
    test: float = 0.1,
    targets: str = "first",
    cold: bool = False,
) -> Split:
    """One global cut in time: what came before it trains, what came after is predicted from what came before.

    Args:
        sequences: the packed log, with times.
        max_len: most items a window reads.
        windows: how training rows are cut: last, sliding or prefix; see `training_windows`.
        valid: share of interactions, newest before the test, that validates; 1 or more: the second at which it begins.
        test: share of interactions, the newest, that tests; 1 or more: the second at which it begins.
        targets: first: each user's first item after the cut; all: every item, each from all that came before it.
        cold: predict items that training has never seen as well.

    Raises:
        UserError: an option that is not valid, a log without times, or nothing to train, validate or test on.
    """
    check_options(max_len, windows)
    if targets not in ("first", "all"):
        raise unknown("targets", targets, ("first", "all"))
    if sequences.times is None:
        raise UserError(f"{sequences.name} has no times, which a temporal split needs; use leave_one_out")
    begin_valid, begin_test = cut_times(sequences, valid, test)
    known_train = count_before(sequences, begin_valid)
    known_test = count_before(sequences, begin_test)
    train = training_windows(sequences, known_train, max_len=max_len, windows=windows)
    warm = np.ones(sequences.num_items + 2, bool) if cold else train.item_counts() > 0
    made = []
    for known, until in ((known_train, known_test), (known_test, sequences.offsets[1:])):
        stops, users = spread(known, until if targets == "all" else np.minimum(known + 1, until))
        kept = warm[sequences.items[stops]] & (stops > sequences.offsets[users])
        made.append(evaluation_windows(sequences, known, users[kept], stops[kept], max_len=max_len))
    for part, made_windows in zip(("train", "validate", "test"), (train, *made), strict=True):
        if not len(made_windows):
            raise UserError(
                f"{sequences.name}: nothing to {part} on when validation begins at second {begin_valid:.0f} and the "
                f"test at {begin_test:.0f}; users need an item before the cut and one after it (cold={cold})"
            )
    return Split(
        train=train,
        valid=made[0],
        test=made[1],
        protocol={
            "split": "temporal", "max_len": max_len, "windows": windows, "targets": targets, "cold": cold,
            "valid_from": begin_valid, "test_from": begin_test,
        },
    )  # fmt: skip


def hold_out_items(split: Split, sequences: Sequences, share: float, *, seed: int = 0) -> Split:
    """The same split with a random share of the items taken out of the training log altogether; validation and test keep them.

    Rows close up where an item was. Who scores such an item has nothing to go by but what is known of it.

    Args:
        split: of the log.
        sequences: the log.
        share: of the items.
        seed: which items; the same ones for every model.

    Raises:
        UserError: share is not from 0 to below 1, or nothing is left to train on.
    """
    if not 0 <= share < 1:
        raise UserError(f"cold_items must be from 0 to below 1, not {share}")
    if share == 0:
        return split
    cold = cold_items(sequences.num_items, share, seed)
    kept = ~cold[sequences.items]  # (T,)
    place = np.concatenate(([0], np.cumsum(kept)))  # (T + 1,), where an interaction went
    rest = replace(
        sequences,
        items=np.ascontiguousarray(sequences.items[kept]),
        offsets=place[sequences.offsets],
        times=None if sequences.times is None else sequences.times[kept],
    )
    options = {"max_len": split.protocol["max_len"], "windows": split.protocol["windows"]}
    train = training_windows(rest, place[split.train.ends], **options)
    if not len(train):
        raise UserError(
            f"{sequences.name}: nothing to train on without {int(cold.sum())} of its {sequences.num_items} items"
        )
    return Split(
        train=train,
        valid=split.valid,
        test=split.test,
        protocol=split.protocol | {"cold_items": share, "cold_items_seed": seed},
    )


def cold_items(num_items: int, share: float, seed: int) -> np.ndarray:
    """A random share of the items, the same for the same seed: (N + 2,) bool."""
    cold = np.zeros(num_items + 2, bool)
    cold[1 + np.random.default_rng(seed).choice(num_items, round(share * num_items), replace=False)] = True
    return cold


def check_options(max_len: int, windows: str) -> None:
    """Refuse a length below 1 and an unknown kind of windows."""
    if max_len < 1:
        raise UserError(f"max_len must be 1 or more, not {max_len}")
    if windows not in WINDOWS:
        raise unknown("windows", windows, WINDOWS)


def cut_times(sequences: Sequences, valid: float, test: float) -> tuple[float, float]:
    """The seconds at which validation and test begin; interactions of the cut's own second come after it."""
    assert sequences.times is not None
    if not (valid > 0 and test > 0):
        raise UserError(f"valid and test must be shares or seconds above 0, not {valid} and {test}")
    if (valid < 1) != (test < 1):
        raise UserError(f"valid and test must both be shares (below 1) or both be seconds, not {valid} and {test}")
    if test >= 1:
        begin_valid, begin_test = float(valid), float(test)
    elif valid + test < 1:
        total = sequences.num_interactions
        places = [int(total * (1 - valid - test)), int(total * (1 - test))]
        begin_valid, begin_test = (float(time) for time in np.partition(sequences.times, places)[places])
    else:
        raise UserError(f"valid and test leave nothing to train on: {valid} + {test} is 1 or more")
    if not begin_valid < begin_test:
        raise UserError(f"validation (second {begin_valid:.0f}) must begin before the test (second {begin_test:.0f})")
    return begin_valid, begin_test


def count_before(sequences: Sequences, moment: float) -> np.ndarray:
    """(U,) position of each user's first interaction at or after a moment; rows are in time order."""
    assert sequences.times is not None
    before = np.concatenate(([0], np.cumsum(sequences.times < moment)))
    begins, ends = sequences.offsets[:-1], sequences.offsets[1:]
    return begins + before[ends] - before[begins]


def spread(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All positions of the stretches [begin, end) behind one another, and the number of the stretch of each."""
    sizes = np.maximum(end - begin, 0)
    rows = np.repeat(np.arange(len(begin)), sizes)
    first = np.cumsum(sizes) - sizes
    return np.arange(len(rows)) + (begin - first)[rows], rows


def training_windows(sequences: Sequences, ends: np.ndarray, *, max_len: int, windows: str) -> Windows:
    """Windows over items[offsets[u]:ends[u]] of every user with an input and a target there.

    - last: one a user, the newest max_len inputs; older ones are not learned from.
    - sliding: the newest, and older ones half a length apart until the row is covered; each target predicted exactly
      once, from at least half of max_len inputs unless the row begins there.
    - prefix: one a target, each from up to max_len inputs.
    """
    begins = sequences.offsets[:-1]
    users = np.flatnonzero(ends - begins >= 2)
    begin, end = begins[users], ends[users] - 1  # inputs are [begin, end), targets one further
    which, (start, stop, first) = WINDOWS[windows](begin, end, max_len)
    return make(sequences, ends, users[which], start, stop, first, max_len)


def last(begin: np.ndarray, end: np.ndarray, max_len: int) -> tuple[np.ndarray, Cuts]:
    start = np.maximum(begin, end - max_len)
    return np.arange(len(begin)), (start, end, start)


def sliding(begin: np.ndarray, end: np.ndarray, max_len: int) -> tuple[np.ndarray, Cuts]:
    stride = max(1, max_len // 2)
    more = -(-np.maximum(end - begin - max_len, 0) // stride)  # windows before the newest
    back, which = spread(np.zeros_like(more), more + 1)  # 0 is the newest
    stop = end[which] - back * stride
    start = np.maximum(begin[which], stop - max_len)
    return which, (start, stop, np.where(back == more[which], start, stop - stride))


def prefix(begin: np.ndarray, end: np.ndarray, max_len: int) -> tuple[np.ndarray, Cuts]:
    first, which = spread(begin, end)
    return which, (np.maximum(begin[which], first + 1 - max_len), first + 1, first)


WINDOWS = {"last": last, "sliding": sliding, "prefix": prefix}


def evaluation_windows(
    sequences: Sequences, ends: np.ndarray, users: np.ndarray, stops: np.ndarray, *, max_len: int
) -> Windows:
    """One window for each target items[stop], reading up to max_len items before it; shortest first."""
    start = np.maximum(sequences.offsets[users], stops - max_len)
    order = np.argsort(stops - start, kind="stable")
    start, stop = start[order], stops[order]
    return make(sequences, ends, users[order], start, stop, stop - 1, max_len)


def make(
    sequences: Sequences,
    ends: np.ndarray,
    users: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    first: np.ndarray,
    max_len: int,
) -> Windows:
    return Windows(
        items=sequences.items,
        offsets=sequences.offsets,
        ends=ends,
        users=users,
        start=start,
        stop=stop,
        first=first,
        num_items=sequences.num_items,
        max_len=max_len,
        times=sequences.times,
        attributes=partial(item_attributes, sequences),
        features=partial(table_features, sequences),
    )


def check_leakage(split: Split) -> None:
    """Assert that no window reads or learns what it, or a later part, is to predict.

    Raises:
        LeakageError: naming the part, the user and what it sees.
    """
    train, valid, test = split.train, split.valid, split.test
    held_out = (
        "cold_items" in split.protocol
    )  # then training is over an array of its own, cut out of one that was checked
    for part, windows in (("train", train), ("valid", valid), ("test", test)):
        begin, end = windows.offsets[windows.users], windows.offsets[windows.users + 1]
        refuse(part, windows, windows.start < begin, "reads another user's items")
        refuse(part, windows, windows.stop >= end, "predicts another user's items")
        refuse(part, windows, windows.start >= windows.stop, "reads nothing")
        refuse(part, windows, windows.stop - windows.start > windows.max_len, "reads more than max_len items")
        refuse(part, windows, windows.first < windows.start, "predicts from a place it does not read")
        refuse(part, windows, windows.first >= windows.stop, "predicts nothing")
        outside = (windows.ends < windows.offsets[:-1]) | (windows.ends > windows.offsets[1:])
        refuse(part, windows, outside[windows.users], "knows items that are not the user's")
    refuse("train", train, train.stop >= train.ends[train.users], "learns an item it must not know")
    if held_out:
        cold = cold_items(train.num_items, split.protocol["cold_items"], split.protocol["cold_items_seed"])
        users, items = valid.known()
        left = ~cold[items]
        if not all(np.array_equal(*pair) for pair in zip(train.known(), (users[left], items[left]), strict=True)):
            raise LeakageError(
                "train knows something else than what validation knows without the items that are held out"
            )
        train = valid  # what follows compares validation and test
    for part, windows, earlier in (("valid", valid, train), ("test", test, valid)):
        if windows.items is not train.items or windows.offsets is not train.offsets:
            raise LeakageError(f"{part} and train are not windows over one packed array")
        refuse(part, windows, windows.first != windows.stop - 1, "is an evaluation window with several targets")
        refuse(part, windows, windows.stop < windows.ends[windows.users], "predicts an item that it may know")
        refuse(part, windows, windows.stop < train.ends[windows.users], "predicts an item that training knows")
        refuse(part, windows, windows.stop < earlier.ends[windows.users], "predicts an item that an earlier part knows")
        if (windows.ends < earlier.ends).any():
            raise LeakageError(f"{part} knows less than the part before it")
    tested = np.full(test.num_users, np.iinfo(np.int64).max)
    np.minimum.at(tested, test.users, test.stop)
    refuse("valid", valid, valid.stop >= tested[valid.users], "predicts the test's item")
    check_times(split)


def check_times(split: Split) -> None:
    """Rows are in time order; under a global cut, nothing that a part knows is as late as anything it predicts."""
    train = split.train
    if train.times is None:
        return
    falls = train.times[1:] < train.times[:-1]
    falls[train.offsets[1:-1] - 1] = False  # from one user to the next time may fall
    if falls.any():
        user = int(np.searchsorted(train.offsets, int(np.flatnonzero(falls)[0]), side="right")) - 1
        raise LeakageError(f"user {user}: items are not in time order, so a history would see what comes after it")
    if split.protocol.get("split") != "temporal":
        return
    for part, windows, moment in (("valid", split.valid, "valid_from"), ("test", split.test, "test_from")):
        known, _ = spread(windows.offsets[:-1], windows.ends)
        if windows.times is not None and len(known) and windows.times[known].max() >= windows.times[windows.stop].min():
            raise LeakageError(f"{part} knows rows as late as what it predicts ({moment} {split.protocol[moment]})")


def refuse(part: str, windows: Windows, bad: np.ndarray, what: str) -> None:
    """Raise for the first window of a part that is bad, if any is."""
    if bad.any():
        window = int(np.flatnonzero(bad)[0])
        raise LeakageError(f"{part} window {window} of user {int(windows.users[window])} {what}")
