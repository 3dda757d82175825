"""Checks of what training and evaluation read: windows, counts, cuts in time and cold items, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from seqcl.config import Experiment
from seqcl.data import Sequences, Split
from seqcl.experiment.audit.plain import Plain, Target
from seqcl.experiment.audit.verdict import Broken, Unused
from seqcl.types import PAD, SeqBatch


def check_targets(part: str, plain: Plain, targets: list[Target], batches: Iterable[SeqBatch]) -> str:
    """Compare the rows of an evaluation, one by one, with the targets and the items before them."""
    done = 0
    for batch in batches:
        assert batch.targets is not None and batch.users is not None
        columns = (batch.users, batch.items, batch.lengths, batch.targets)
        for user, items, length, target in zip(*(column.tolist() for column in columns), strict=True):
            if done == len(targets):
                raise Broken(f"{part} ranks more than the {len(targets):,} targets of the protocol")
            one = targets[done]
            found, expected = (
                (user, items[:length], target),
                (one.user, plain.history(one)[-plain.max_len :], plain.target(one)),
            )
            if found != expected:
                raise Broken(
                    f"{part} row {done}: it predicts item {target} of user {user} from {length} items, "
                    f"not item {expected[2]} of user {one.user} from the {len(expected[1])} before it"
                )
            done += 1
    if done < len(targets):
        raise Broken(f"{part} ranks {done:,} of the {len(targets):,} targets of the protocol")
    return f"all {done:,} {part} rows read the items before their target, and predict it"


def check_training_rows(plain: Plain, batches: Iterable[SeqBatch]) -> Counter[int]:
    """Find every training row, with its last target, in what training may know of its user; count the targets by item."""
    learned: Counter[int] = Counter()
    for batch in batches:
        assert batch.targets is not None and batch.users is not None
        columns = (batch.users, batch.items, batch.lengths, batch.targets)
        for user, items, length, targets in zip(*(column.tolist() for column in columns), strict=True):
            row, targets = [*items[:length], targets[length - 1]], targets[:length]
            if not stretch_of(row, plain.train[user]):
                raise Broken(
                    f"a training row of user {user} ends with items {row[-3:]}; "
                    f"the last ones that training may know are {plain.train[user][-3:]}"
                )
            wrong = [place for place, target in enumerate(targets) if target not in (PAD, row[place + 1])]
            if wrong:
                raise Broken(
                    f"a training row of user {user} learns an item that does not come next, at place {wrong[0]}"
                )
            learned.update(target for target in targets if target != PAD)
    return learned


def stretch_of(part: list[int], whole: list[int]) -> bool:
    """True if a list stands in another one, without a gap."""
    size = len(part)
    return any(whole[first : first + size] == part for first in range(len(whole) - size + 1) if whole[first] == part[0])


def check_counts(plain: Plain, split: Split) -> str:
    """Compare the counts of items, from which popularity is taken, with those of the rows that training may know."""
    refuse_other_counts("item", split.train.item_counts(), plain.counted())
    return f"counts of {plain.num_items:,} items are those of {sum(map(len, plain.train)):,} training interactions"


def refuse_other_counts(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Refuse counts (N + 2,) that differ from the expected ones.

    Raises:
        Broken: names the first item that differs.
    """
    other = np.flatnonzero(found != expected)
    if len(other):
        first = int(other[0])
        raise Broken(
            f"{len(other):,} items have another {what} count: item {first} has {found[first]:g}, "
            f"and {expected[first]:g} in what training may know"
        )


def check_times(plain: Plain, sequences: Sequences, experiment: Experiment) -> str:
    """Find the two moments in the sorted times again, and no training interaction at or after the first."""
    if plain.cuts is None:
        raise Unused(f"the split is {experiment.data.split}")
    assert sequences.times is not None
    valid, test = experiment.data.valid, experiment.data.test
    expected = (valid, test)
    if test < 1:
        ordered = sorted(sequences.times.tolist())
        expected = (ordered[int(len(ordered) * (1 - valid - test))], ordered[int(len(ordered) * (1 - test))])
    if plain.cuts != expected:
        raise Broken(
            f"the cuts are at seconds {plain.cuts[0]:.0f} and {plain.cuts[1]:.0f}, not {expected[0]:.0f} and {expected[1]:.0f}"
        )
    starts = sequences.offsets[:-1].tolist()

    def time(one: Target) -> float:
        return float(sequences.times[starts[one.user] + one.place])  # type: ignore[index]

    latest = max(time(Target(user, known - 1)) for user, known in enumerate(plain.known) if known)
    first_valid, first_test = (min(map(time, targets)) for targets in (plain.valid, plain.test))
    if not latest < first_valid <= max(map(time, plain.valid)) < first_test:
        raise Broken(
            f"training ends at second {latest:.0f}, validation begins at {first_valid:.0f}, the test at {first_test:.0f}"
        )
    return f"training ends at second {latest:.0f}, validation begins at {first_valid:.0f}, the test at {first_test:.0f}"


def check_idle_users(plain: Plain, split: Split) -> str:
    """Find no interaction of a user who does not train in anything that training knows."""
    if not plain.idle:
        raise Unused("all users train (data.train_users)")
    met = sorted(plain.idle & (set(split.train.known()[0].tolist()) | set(split.train.users.tolist())))
    if met:
        raise Broken(
            f"training knows {len(met):,} of {len(plain.idle):,} users who do not train, such as user {met[0]}"
        )
    return f"none of the {len(plain.idle):,} users who do not train is among the training interactions"


def check_cold_items(plain: Plain, split: Split) -> str:
    """Find no cold item in anything that training knows."""
    if not plain.cold:
        raise Unused("no items are taken out of training (data.cold_items)")
    met = sorted(plain.cold & set(split.train.known()[1].tolist()))
    if met:
        raise Broken(f"training knows {len(met):,} of {len(plain.cold):,} cold items, such as item {met[0]}")
    return f"none of the {len(plain.cold):,} cold items is among the training interactions"
