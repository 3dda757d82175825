"""Splits of a packed log into training, validation and test windows, checked for leaks whenever one is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqcl.data.leakage import check_leakage
from seqcl.data.sequences import Sequences
from seqcl.data.windows import check_window_options, evaluation_windows, stretch_positions, training_windows
from seqcl.errors import UserError, unknown
from seqcl.mapped import blocks, let_go, stretches
from seqcl.types import Windows


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Training, validation and test windows over one packed array, and the protocol: how they were made.

    Evaluation windows have one target each. They are sorted by length, the shortest first, so that batches in order
    carry little padding; `users` tells the user of each.

    Raises:
        LeakageError: a part sees what it, or a later part, must predict.
    """

    train: Windows
    valid: Windows
    test: Windows
    protocol: dict[str, Any]

    def __post_init__(self) -> None:
        check_leakage(self.train, self.valid, self.test, self.protocol)

    def without_test(self) -> Split:
        """The same split with no test windows, for work that must not look at the test targets."""
        none = {name: getattr(self.test, name)[:0] for name in ("users", "start", "stop", "first")}
        return replace(self, test=replace(self.test, **none))


def leave_one_out(sequences: Sequences, *, max_len: int = 50, windows: str = "last") -> Split:
    """Test on each user's last item, validate on the one before it, train on the rest.

    The history of a test target includes the validation item. Users with fewer than three items only train.

    Args:
        sequences: the packed log.
        max_len: most items a window reads.
        windows: how training rows are cut: last, sliding or prefix; see `seqcl.data.windows`.

    Raises:
        UserError: an option is not valid, or no user has three items.
    """
    check_window_options(max_len, windows)
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
    """Cut the log at two moments, the same for all users: train before the first, validate between them, test after the second.

    Args:
        sequences: the packed log, with times.
        max_len: most items a window reads.
        windows: how training rows are cut: last, sliding or prefix; see `seqcl.data.windows`.
        valid: fraction of the interactions that validates, the newest before the test; 1 or more: the second it begins at.
        test: fraction of the interactions that tests, the newest; 1 or more: the second it begins at.
        targets: first: each user's first item after the cut; all: every item, each from the items before it.
        cold: predict items that training has never seen as well.

    Raises:
        UserError: an option is not valid, the log has no times, or there is nothing to train, validate or test on.
    """
    check_window_options(max_len, windows)
    if targets not in ("first", "all"):
        raise unknown("targets", targets, ("first", "all"))
    if sequences.times is None:
        raise UserError(f"{sequences.name} has no times, which a temporal split needs; use leave_one_out")
    begin_valid, begin_test = cut_times(sequences, valid, test)
    known_train = count_before(sequences, begin_valid)
    known_test = count_before(sequences, begin_test)
    train = training_windows(sequences, known_train, max_len=max_len, windows=windows)
    warm = np.ones(sequences.num_items + 2, bool) if cold else train.item_counts() > 0
    evaluated, left_out = [], {}
    for name, known, until in (("valid", known_train, known_test), ("test", known_test, sequences.offsets[1:])):
        stops, users = stretch_positions(known, until if targets == "all" else np.minimum(known + 1, until))
        has_history, has_item = stops > sequences.offsets[users], warm[sequences.items[stops]]
        kept = has_history & has_item
        evaluated.append(evaluation_windows(sequences, known, users[kept], stops[kept], max_len=max_len))
        left_out[name] = about_left_out(users, has_history, has_item)
    for purpose, part in zip(("train", "validate", "test"), (train, *evaluated), strict=True):
        if not len(part):
            raise UserError(
                f"{sequences.name}: nothing to {purpose} on when validation begins at second {begin_valid:.0f} and the "
                f"test at {begin_test:.0f}; users need an item before the cut and one after it (cold={cold})"
            )
    return Split(
        train=train,
        valid=evaluated[0],
        test=evaluated[1],
        protocol={
            "split": "temporal", "max_len": max_len, "windows": windows, "targets": targets, "cold": cold,
            "valid_from": begin_valid, "test_from": begin_test, "left_out": left_out,
        },
    )  # fmt: skip


def about_left_out(users: np.ndarray, has_history: np.ndarray, has_item: np.ndarray) -> dict[str, int]:
    """Count the targets and users that a part of a temporal split leaves out, by reason.

    Args:
        users: user of each target after the cut, (W,).
        has_history: true where there is an item before the target, (W,) bool.
        has_item: true where training has the target's item, (W,) bool.
    """
    kept = has_history & has_item
    all_users = len(np.unique(users))
    return {
        "targets": len(users) - int(kept.sum()),
        "of_targets": len(users),
        "no_history": len(users) - int(has_history.sum()),
        "cold": int((has_history & ~has_item).sum()),
        "users": all_users - len(np.unique(users[kept])),
        "of_users": all_users,
    }


def cut_times(sequences: Sequences, valid: float, test: float) -> tuple[float, float]:
    """The seconds at which validation and test begin; an interaction in that very second comes after the cut.

    Raises:
        UserError: the two options do not fit together, or validation would not begin before the test.
    """
    assert sequences.times is not None
    if not (valid > 0 and test > 0):
        raise UserError(f"valid and test must be fractions or seconds above 0, not {valid} and {test}")
    if (valid < 1) != (test < 1):
        raise UserError(f"valid and test must both be fractions (below 1) or both be seconds, not {valid} and {test}")
    if test >= 1:
        begin_valid, begin_test = float(valid), float(test)
    elif valid + test < 1:
        total = sequences.num_interactions
        places = [int(total * (1 - valid - test)), int(total * (1 - test))]
        begin_valid, begin_test = (nth_smallest(sequences.times, place) for place in places)
    else:
        raise UserError(f"valid and test leave nothing to train on: {valid} + {test} is 1 or more")
    if not begin_valid < begin_test:
        raise UserError(f"validation (second {begin_valid:.0f}) must begin before the test (second {begin_test:.0f})")
    return begin_valid, begin_test


def count_before(sequences: Sequences, moment: float) -> np.ndarray:
    """(U,) position of each user's first interaction at or after a moment; rows are in time order."""
    assert sequences.times is not None
    found = np.array(sequences.offsets[:-1])
    for own, begin, end in stretches(sequences.offsets):
        before = np.concatenate(([0], np.cumsum(sequences.times[begin:end] < moment)))
        places = sequences.offsets[own.start : own.stop + 1] - begin
        found[own] += np.diff(before[places])
        let_go(sequences.times)
    return found


def nth_smallest(values: np.ndarray, place: int) -> float:
    """The value at a place, from 0 on, if the values were sorted; found 16 bits at a time, in four passes over them."""
    top, all_bits = np.uint64(1 << 63), np.uint64(2**64 - 1)
    known = np.uint64(0)  # the first bits of the value, in integers that have the order of the values
    for shift in (48, 32, 16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for begin, end in blocks(len(values)):
            bits = (np.asarray(values[begin:end], np.float64) + 0.0).view(np.uint64)
            bits = np.where(bits & top, ~bits, bits | top) >> np.uint64(shift)
            bits = bits[bits >> np.uint64(16) == known] if shift < 48 else bits
            counts += np.bincount((bits & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
            let_go(values)
        ends = np.cumsum(counts)
        digit = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[digit - 1]) if digit else 0
        known = known << np.uint64(16) | np.uint64(digit)
    return float((known ^ (top if known & top else all_bits)).view(np.float64))
