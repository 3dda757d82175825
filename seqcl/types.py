"""Types that every room shares: ids, batches, windows, tables of features, and the legend of shapes.

Shapes are written with these letters wherever a tensor is made:
B batch rows, L time, T real positions (no padding), D width, N items, U users, W windows, K neighbours or negatives, C chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from seqcl.mapped import blocks, let_go, stretches

if TYPE_CHECKING:
    import pandas as pd

Similarity = Literal["cosine", "dot"]
"""The measure by which two vectors are compared."""

PAD = 0
"""Id of the padding slot; items are 1..N and the MASK token is N + 1."""


class SeqBatch(NamedTuple):
    """Right-padded sequences: row b holds items[b, :lengths[b]], then PAD."""

    items: Tensor  # (B, L) int64
    lengths: Tensor  # (B,) int64, >= 1
    targets: Tensor | None = None  # (B, L) in training, PAD where a position has no target; (B,) in evaluation
    users: Tensor | None = None  # (B,) int64, row of the user, 0-based
    times: Tensor | None = None  # (B, L) float64 seconds, 0 at padding
    positions: Tensor | None = None  # (P,) int64, where targets (B, L) flattened has some, then -1; None: look it up

    def each(self, change: Callable[[Tensor], Tensor]) -> SeqBatch:
        """Change every column of the rows alike, as to take some of them; `positions`, true of these rows alone, is dropped."""
        return SeqBatch._make(None if column is None else change(column) for column in (*self[:-1], None))

    def last_targets(self) -> Tensor | None:
        """The target of each row's newest item, PAD where it has none: (B,)."""
        if self.targets is None or self.targets.dim() == 1:
            return self.targets
        return self.targets.gather(1, self.lengths[:, None] - 1)[:, 0]


class Bag(NamedTuple):
    """A set of words for each of R rows: row r has the words names[i] for i in ids[offsets[r]:offsets[r + 1]]."""

    offsets: np.ndarray  # (R + 1,) int64
    ids: np.ndarray  # (E,) int64
    names: list[str]

    def take(self, rows: np.ndarray) -> Bag:
        """The same words for the given rows (n,), in the given order."""
        first = self.offsets[rows]  # (n,)
        sizes = self.offsets[rows + 1] - first
        offsets = np.concatenate(([0], np.cumsum(sizes)))  # (n + 1,)
        places = np.repeat(first - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Bag(offsets, self.ids[places], self.names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """Encoded columns of a table with R rows; a missing value is an empty set of words, or NaN.

    A table of items has N + 2 rows: PAD, the items, MASK; PAD and MASK have no values.
    A table of users has U + 1 rows; the last one stands for an unknown user and has no values.
    """

    bags: dict[str, Bag]
    numbers: dict[str, np.ndarray]  # (R,) float32 each, mean 0 and standard deviation 1 over the training rows
    vectors: dict[str, np.ndarray]  # (R, M) float32 each

    @property
    def columns(self) -> list[str]:
        """Names of all columns: words, then numbers, then vectors. Wherever columns are numbered, they stand in this order."""
        return [*self.bags, *self.numbers, *self.vectors]

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any value."""
        digest = hashlib.sha256()
        for name, bag in self.bags.items():
            digest.update(json.dumps([name, *bag.names]).encode() + bag.offsets.tobytes() + bag.ids.tobytes())
        for name, values in (*self.numbers.items(), *self.vectors.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()[:16]

    @property
    def known(self) -> np.ndarray:
        """(R,) bool, true for the rows with a value in any column."""
        there = [np.diff(bag.offsets) > 0 for bag in self.bags.values()]
        there += [~np.isnan(values) for values in self.numbers.values()]
        there += [~np.isnan(values).any(1) for values in self.vectors.values()]
        return np.logical_or.reduce(there)

    @property
    def rows(self) -> int:
        """R, the number of rows; 0 if there are no columns."""
        sizes = [len(bag.offsets) - 1 for bag in self.bags.values()]
        sizes += [len(values) for values in (*self.numbers.values(), *self.vectors.values())]
        return sizes[0] if sizes else 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Tables:
    """Tables of users and items that belong to a log; rows are found by raw id.

    A table is a frame indexed by raw id, or the path of the Parquet file that holds this frame.
    """

    name: str  # name of the data set, for messages
    user_ids: np.ndarray  # (U,) raw id of user u at user_ids[u]
    item_ids: np.ndarray  # (N,) raw id of item j at item_ids[j - 1]
    users: pd.DataFrame | Path | None = None
    items: pd.DataFrame | Path | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """W windows over one packed array: window w reads items[start:stop] and predicts items[t + 1] for t in [first, stop).

    A window that learns all its positions has first == start; a prefix or an evaluation window has first == stop - 1.
    This split may know only items[offsets[u]:ends[u]] of user u; counts and similarities are computed from there.
    """

    items: np.ndarray  # (T,) int32, the items of user 0, then those of user 1, ...; may be a memory-mapped file
    offsets: np.ndarray  # (U + 1,) int64, user u owns items[offsets[u]:offsets[u + 1]]
    ends: np.ndarray  # (U,) int64, the end of what this split may know of user u: items[offsets[u]:ends[u]]
    users: np.ndarray  # (W,) int64, the user of each window
    start: np.ndarray  # (W,) int64
    stop: np.ndarray  # (W,) int64, stop - start <= max_len; items[stop] is the last target
    first: np.ndarray  # (W,) int64
    num_items: int
    max_len: int
    times: np.ndarray | None = None  # (T,) float64 seconds
    tables: Tables | None = None  # of the users and items in this log

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_users(self) -> int:
        return len(self.ends)

    @property
    def num_targets(self) -> int:
        """Number of predictions in all windows: the positions that one epoch learns from."""
        return int((self.stop - self.first).sum())

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Every interaction this split may know, repeats included: users and items, two arrays of the same length."""
        sizes = self.ends - self.offsets[:-1]  # (U,)
        users = np.repeat(np.arange(self.num_users), sizes)
        items = np.empty(len(users), self.items.dtype)
        place = 0
        for part in self.known_items():
            items[place : place + len(part)] = part
            place += len(part)
        return users, items

    def known_items(self) -> Iterator[np.ndarray]:
        """The items of `known`, those of some users at a time, (n,) each."""
        for own, begin, end in stretches(self.offsets):
            ends, bounds = self.ends[own] - begin, self.offsets[own.start + 1 : own.stop + 1] - begin
            steps = np.zeros(end - begin + 1, np.int32)
            np.add.at(steps, ends, 1)  # what is not known begins
            np.add.at(steps, bounds, -1)
            yield self.items[begin:end][np.cumsum(steps[:-1]) == 0]
            let_go(self.items)

    def item_counts(self) -> np.ndarray:
        """Count each item in the interactions this split may know: (N + 2,), 0 for PAD and MASK."""
        counts = np.zeros(self.num_items + 2, np.int64)
        for items in self.known_items():
            counts += np.bincount(items, minlength=self.num_items + 2)
        return counts

    def target_counts(self) -> np.ndarray:
        """Count each item among the targets of these windows: (N + 2,)."""
        first, stop = np.sort(self.first) + 1, np.sort(self.stop) + 1
        counts = np.zeros(self.num_items + 2, np.int64)
        for begin, end in blocks(len(self.items)):
            over = np.searchsorted(first, begin) - np.searchsorted(stop, begin)  # windows that reach into the block
            steps = np.zeros(end - begin, np.int64)
            for edges, sign in ((first, 1), (stop, -1)):
                low, high = np.searchsorted(edges, (begin, end))
                steps += sign * np.bincount(edges[low:high] - begin, minlength=end - begin)
            times = over + np.cumsum(steps)  # how often each place is a target
            found = np.bincount(self.items[begin:end], weights=times, minlength=self.num_items + 2)
            counts += found.astype(np.int64)
            let_go(self.items)
        return counts


class Batches(Protocol):
    """Every row of a split once, in order; an objective may read them before an epoch."""

    def __iter__(self) -> Iterator[SeqBatch]: ...
    def __len__(self) -> int: ...
