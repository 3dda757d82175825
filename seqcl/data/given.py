"""A split that was made elsewhere: the part of every interaction stands in the log."""

from __future__ import annotations

import logging

import numpy as np

from seqcl.data.sequences import Sequences
from seqcl.data.split import Split
from seqcl.data.windows import check_window_options, evaluation_windows, training_windows
from seqcl.errors import UserError

logger = logging.getLogger("seqcl")

PART_WORDS = ("training", "validation", "test")


def given(sequences: Sequences, *, max_len: int = 50, windows: str = "last") -> Split:
    """Train, validate and test on the interactions that the log says; each target is predicted from the items before it.

    Without validation, each user's last training item validates, of users with three or more.

    Args:
        sequences: the packed log, with the part of each interaction.
        max_len: most items a window reads.
        windows: how training rows are cut: last, sliding or prefix; see `seqcl.data.windows`.

    Raises:
        UserError: the log has no parts, one of them is empty, or a user's training comes after validation or test.
    """
    check_window_options(max_len, windows)
    if sequences.parts is None:
        raise UserError(
            f"{sequences.name}: --data.split given needs the part of each row: a column (--data.split_column), or a folder with train, valid and test files"
        )
    parts, offsets = np.asarray(sequences.parts), sequences.offsets
    owner = np.repeat(np.arange(sequences.num_users), np.diff(offsets))  # (T,)
    check_order(sequences, parts, owner)
    begins = offsets[:-1]
    known = [begins + np.bincount(owner[parts < later], minlength=sequences.num_users) for later in (1, 2)]
    targets = [np.flatnonzero((parts == part) & (np.arange(len(parts)) > begins[owner])) for part in (1, 2)]
    protocol = {"split": "given", "max_len": max_len, "windows": windows, "validation": "given"}
    if not (parts == 1).any():
        held = known[0] - begins >= 3
        known = [known[0] - held, known[0]]
        targets[0] = known[0][held]
        protocol["validation"] = "last training item"
        logger.warning(
            "%s: the split has no validation; the last training item of each user with three validates", sequences.name
        )
    alone = int((parts > 0).sum()) - sum(map(len, targets)) if protocol["validation"] == "given" else 0
    if alone:
        logger.warning(
            "%s: %d targets are their user's first item; nothing predicts them, so they are left out",
            sequences.name,
            alone,
        )
    train = training_windows(sequences, known[0], max_len=max_len, windows=windows)
    valid, test = (
        evaluation_windows(sequences, ends, owner[stops], stops, max_len=max_len)
        for ends, stops in zip(known, targets, strict=True)
    )
    for word, part in zip(PART_WORDS, (train, valid, test), strict=True):
        if not len(part):
            raise UserError(
                f"{sequences.name}: the given split has no {word} that can be used: an item and one before it"
            )
    return Split(train=train, valid=valid, test=test, protocol=protocol)


def check_order(sequences: Sequences, parts: np.ndarray, owner: np.ndarray) -> None:
    """Refuse a user whose training comes after validation or test, or validation after the test: a history would see its target.

    Raises:
        UserError: names the first such user, and how many there are.
    """
    falls = np.flatnonzero((parts[1:] < parts[:-1]) & (owner[1:] == owner[:-1]))
    if len(falls):
        users = np.unique(owner[falls])
        first = int(falls[0])
        when = "" if sequences.times is None else f" (second {sequences.times[first + 1]:.0f})"
        raise UserError(
            f"{sequences.name}: the given split leaks: {PART_WORDS[parts[first + 1]]} of user {sequences.user_ids[users[0]]}{when} comes after "
            f"{PART_WORDS[parts[first]]}, and so for {len(users):,} of {sequences.num_users:,} users; cut in time order, or use --data.order file"
        )
