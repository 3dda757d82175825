"""The split of a run made once more, user by user, from the rows of its log and its protocol alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from seqcl.data import Sequences


class Target(NamedTuple):
    """An item that is to be predicted from those before it in its row."""

    user: int
    place: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Plain:
    """Says of a log which part training may know, and which is held out.

    Args:
        rows: the items of each user, oldest first.
        known: how many of them, from the first on, training and validation may know.
        cold: items that are taken out of training.
        idle: users who do not train.
        valid: validation targets, those with the shortest input first.
        test: test targets, in the same order.
        num_items: N.
        max_len: longest input.
        cuts: the seconds at which validation and test begin, in a temporal split.
    """

    rows: list[list[int]]
    known: list[int]
    cold: set[int]
    idle: set[int]
    valid: list[Target]
    test: list[Target]
    num_items: int
    max_len: int
    cuts: tuple[float, float] | None = None

    @cached_property
    def train(self) -> list[list[int]]:
        """The items of each user that training may know, oldest first."""
        sizes = [0 if user in self.idle else known for user, known in enumerate(self.known)]
        pairs = zip(self.rows, sizes, strict=True)
        return [[item for item in row[:size] if item not in self.cold] for row, size in pairs]

    @cached_property
    def counts(self) -> Counter[int]:
        """Count the interactions of each item that training may know."""
        found: Counter[int] = Counter()
        for row in self.train:
            found.update(row)
        return found

    def counted(self) -> np.ndarray:
        """The same as an array: (N + 2,) int64, 0 for PAD and MASK."""
        found = np.zeros(self.num_items + 2, np.int64)
        for item, count in self.counts.items():
            found[item] = count
        return found

    def target(self, one: Target) -> int:
        """The item that is to be predicted."""
        return self.rows[one.user][one.place]

    def history(self, one: Target) -> list[int]:
        """All items before a target, oldest first."""
        return self.rows[one.user][: one.place]


def plain_split(sequences: Sequences, protocol: Mapping[str, Any]) -> Plain:
    """Split a log anew, user by user.

    Args:
        sequences: the log of the run.
        protocol: the protocol in the run's metrics.json.
    """
    kinds = {"leave_one_out": leave_one_out, "temporal": temporal, "given": given}
    rows = [sequences.row(user).tolist() for user in range(sequences.num_users)]
    known, valid, test = kinds[protocol["split"]](sequences, rows, protocol)
    cold: set[int] = set()
    if protocol.get("cold_items"):
        random = np.random.default_rng(protocol["cold_items_seed"])
        number = round(protocol["cold_items"] * sequences.num_items)
        cold = {1 + int(item) for item in random.choice(sequences.num_items, number, replace=False)}
    idle: set[int] = set()
    if protocol.get("train_users"):
        order = np.random.default_rng(protocol["train_users_seed"]).permutation(len(rows)).tolist()
        idle = set(order[max(1, round(protocol["train_users"] * len(rows))) :])
    if protocol.get("noise"):
        put_noise(rows, known, sequences.num_items, protocol)
    longest = protocol["max_len"]
    return Plain(
        rows=rows,
        known=known,
        cold=cold,
        idle=idle,
        valid=sorted(valid, key=lambda one: min(one.place, longest)),
        test=sorted(test, key=lambda one: min(one.place, longest)),
        num_items=sequences.num_items,
        max_len=longest,
        cuts=(protocol["valid_from"], protocol["test_from"]) if protocol["split"] == "temporal" else None,
    )


def put_noise(rows: list[list[int]], known: list[int], num_items: int, protocol: Mapping[str, Any]) -> None:
    """Replace items in the known parts of the rows, in the drawn order, until the noise of the protocol is reached."""
    random = np.random.default_rng(protocol["noise_seed"])
    places = [(user, place) for user, row in enumerate(rows) for place in range(len(row))]
    order, steps = random.permutation(len(places)).tolist(), random.integers(1, num_items, len(places)).tolist()
    left = round(protocol["noise"] * sum(known))
    for one in order:
        user, place = places[one]
        if left and place < known[user]:
            rows[user][place] = 1 + (rows[user][place] - 1 + steps[one]) % num_items
            left -= 1


Parts = tuple[list[int], list[Target], list[Target]]
"""The number of items of each user that are known, the validation targets and the test targets, by user and place."""


def leave_one_out(sequences: Sequences, rows: list[list[int]], protocol: Mapping[str, Any]) -> Parts:
    """The last item tests, the one before it validates; users with fewer than three items only train."""
    held = [user for user, row in enumerate(rows) if len(row) >= 3]
    known = [len(row) - 2 if len(row) >= 3 else len(row) for row in rows]
    return (
        known,
        [Target(user, len(rows[user]) - 2) for user in held],
        [Target(user, len(rows[user]) - 1) for user in held],
    )


def temporal(sequences: Sequences, rows: list[list[int]], protocol: Mapping[str, Any]) -> Parts:
    """Two moments cut the log; a target needs an item before it and, unless cold items count, an item that training met."""
    assert sequences.times is not None
    known, later = [], []
    for user in range(len(rows)):
        times = sequences.times[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        known.append(sum(time < protocol["valid_from"] for time in times))
        later.append(sum(time < protocol["test_from"] for time in times))
    met = {item for row, before in zip(rows, known, strict=True) for item in row[:before]}
    parts: list[list[Target]] = [[], []]
    for user, row in enumerate(rows):
        for part, first, end in zip(parts, (known[user], later[user]), (later[user], len(row)), strict=True):
            places = range(first, end if protocol["targets"] == "all" else min(first + 1, end))
            part += [Target(user, place) for place in places if place and (protocol["cold"] or row[place] in met)]
    return known, parts[0], parts[1]


def given(sequences: Sequences, rows: list[list[int]], protocol: Mapping[str, Any]) -> Parts:
    """The log says the part of every interaction; without validation, the last training item of three or more validates."""
    assert sequences.parts is not None
    known, valid, test = [], list[Target](), list[Target]()
    for user in range(len(rows)):
        parts = sequences.parts[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        known.append(parts.count(0))
        valid += [Target(user, place) for place, part in enumerate(parts) if part == 1 and place]
        test += [Target(user, place) for place, part in enumerate(parts) if part == 2 and place]
    if protocol["validation"] != "given":
        valid = [Target(user, count - 1) for user, count in enumerate(known) if count >= 3]
        known = [count - (count >= 3) for count in known]
    return known, valid, test
