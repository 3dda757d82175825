"""The check that no part of a split sees what it, or a later part, must predict."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqcl.data.draws import draw_cold_items, draw_users
from seqcl.mapped import let_go, stretches
from seqcl.types import Windows


class LeakageError(RuntimeError):
    """A split shows training or a history what must be predicted: a defect of the split, not of the user's data."""


def check_leakage(train: Windows, valid: Windows, test: Windows, protocol: dict[str, Any]) -> None:
    """Refuse a split in which a window reads or learns what it, or a later part, must predict.

    Args:
        train: training windows.
        valid: validation windows.
        test: test windows.
        protocol: how the split was made.

    Raises:
        LeakageError: names the part, the window, its user and what it sees.
    """
    for part, windows in (("train", train), ("valid", valid), ("test", test)):
        check_bounds(part, windows)
    refuse_windows("train", train, train.stop >= train.ends[train.users], "learns an item it must not know")
    known = train  # what training knows, over the packed array of validation and test
    if "cold_items" in protocol:  # then training has a packed array of its own, and knows no more than validation
        check_cold_items(train, valid, protocol)
        known = valid
    for part, windows, earlier in (("valid", valid, known), ("test", test, valid)):
        if windows.items is not known.items or windows.offsets is not known.offsets:
            raise LeakageError(f"{part} and train are not windows over one packed array")
        stop = windows.stop
        refuse_windows(part, windows, windows.first != stop - 1, "is an evaluation window with several targets")
        refuse_windows(part, windows, stop < windows.ends[windows.users], "predicts an item that it may know")
        refuse_windows(part, windows, stop < known.ends[windows.users], "predicts an item that training knows")
        refuse_windows(part, windows, stop < earlier.ends[windows.users], "predicts an item that an earlier part knows")
        if (windows.ends < earlier.ends).any():
            raise LeakageError(f"{part} knows less than the part before it")
    tested = np.full(test.num_users, np.iinfo(np.int64).max)
    np.minimum.at(tested, test.users, test.stop)
    refuse_windows("valid", valid, valid.stop >= tested[valid.users], "predicts the test's item")
    check_times(train, valid, test, protocol)


def check_bounds(part: str, windows: Windows) -> None:
    """Refuse a window that leaves its user's row, reads too much, or predicts from a place it does not read."""
    begin, end = windows.offsets[windows.users], windows.offsets[windows.users + 1]
    refuse_windows(part, windows, windows.start < begin, "reads another user's items")
    refuse_windows(part, windows, windows.stop >= end, "predicts another user's items")
    refuse_windows(part, windows, windows.start >= windows.stop, "reads nothing")
    refuse_windows(part, windows, windows.stop - windows.start > windows.max_len, "reads more than max_len items")
    refuse_windows(part, windows, windows.first < windows.start, "predicts from a place it does not read")
    refuse_windows(part, windows, windows.first >= windows.stop, "predicts nothing")
    outside = (windows.ends < windows.offsets[:-1]) | (windows.ends > windows.offsets[1:])
    refuse_windows(part, windows, outside[windows.users], "knows items that are not the user's")


def check_cold_items(train: Windows, valid: Windows, protocol: dict[str, Any]) -> None:
    """Refuse a training log that differs from what validation knows without the cold items."""
    if "new_items" in protocol:  # drawn among fewer items, under other ids: all that training lacks is cold
        cold = train.item_counts() == 0
    else:
        cold = draw_cold_items(train.num_items, protocol["cold_items"], protocol["cold_items_seed"])
    users, items = valid.known()
    left = ~cold[items]
    if "train_users" in protocol:
        left &= draw_users(train.num_users, protocol["train_users"], protocol["train_users_seed"])[users]
    if not all(np.array_equal(*pair) for pair in zip(train.known(), (users[left], items[left]), strict=True)):
        raise LeakageError("train does not know the same as validation without the cold items")


def check_times(train: Windows, valid: Windows, test: Windows, protocol: dict[str, Any]) -> None:
    """Refuse rows out of time order and, in a temporal split, a part that knows anything as late as one of its targets."""
    if train.times is None:
        return
    for own, begin, end in stretches(train.offsets):
        falls = train.times[begin + 1 : end] < train.times[begin : end - 1]
        edges = train.offsets[own] - begin - 1
        falls[edges[(edges >= 0) & (edges < len(falls))]] = False  # from one user to the next, time may fall
        if falls.any():
            user = int(np.searchsorted(train.offsets, begin + int(np.flatnonzero(falls)[0]), side="right")) - 1
            raise LeakageError(f"user {user}: items are not in time order, so a history would see what comes after it")
        let_go(train.times)
    if protocol.get("split") != "temporal":
        return
    for part, windows, moment in (("valid", valid, "valid_from"), ("test", test, "test_from")):
        newest = windows.ends[windows.ends > windows.offsets[:-1]] - 1  # each user's: rows are in time order
        if (
            windows.times is not None
            and len(newest)
            and len(windows)
            and windows.times[newest].max() >= windows.times[windows.stop].min()
        ):
            raise LeakageError(f"{part} knows rows as late as what it predicts ({moment} {protocol[moment]})")


def refuse_windows(part: str, windows: Windows, bad: np.ndarray, fault: str) -> None:
    """Raise LeakageError for the first window that is marked in bad (W,), if any is."""
    if bad.any():
        window = int(np.flatnonzero(bad)[0])
        raise LeakageError(f"{part} window {window} of user {int(windows.users[window])} {fault}")
