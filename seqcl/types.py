"""What every room shares: ids, batches, windows and the shape legend.

Shapes are written with these letters wherever a tensor is made:
B batch rows, L time, T real positions (no padding), D width, N items, U users, W windows, K neighbours or negatives, C chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

Similarity = Literal["cosine", "dot"]
"""How two vectors are compared."""

PAD = 0
"""Id of the padding slot; items are 1..N and the MASK token is N + 1."""


class SeqBatch(NamedTuple):
    """Right-padded sequences: row b holds items[b, :lengths[b]], then PAD."""

    items: Tensor  # (B, L) int64
    lengths: Tensor  # (B,) int64, >= 1
    targets: Tensor | None = None  # (B, L) in training, PAD where a position has no target; (B,) in evaluation
    users: Tensor | None = None  # (B,) int64, row of the user, 0-based
    times: Tensor | None = None  # (B, L) float64 seconds, 0 at padding

    def last_targets(self) -> Tensor | None:
        """The item after the newest one of each row, PAD where it is not to be learned: (B,)."""
        if self.targets is None or self.targets.dim() == 1:
            return self.targets
        return self.targets.gather(1, self.lengths[:, None] - 1)[:, 0]


class Bag(NamedTuple):
    """Words that R rows have: row r those numbered ids[offsets[r]:offsets[r + 1]], each once, out of names."""

    offsets: np.ndarray  # (R + 1,) int64
    ids: np.ndarray  # (E,) int64
    names: list[str]

    def take(self, rows: np.ndarray) -> Bag:
        """The words of rows (n,), in their order."""
        first = self.offsets[rows]  # (n,)
        sizes = self.offsets[rows + 1] - first
        offsets = np.concatenate(([0], np.cumsum(sizes)))  # (n + 1,)
        places = np.repeat(first - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Bag(offsets, self.ids[places], self.names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """What is known of R rows, a column at a time; what is missing is an empty bag or NaN.

    Of items there are N + 2 rows, PAD and MASK knowing nothing; of users U + 1, the last one being somebody unknown.
    """

    bags: dict[str, Bag]
    numbers: dict[str, np.ndarray]  # (R,) float32 each, mean 0 and deviation 1 over the rows that training knows
    vectors: dict[str, np.ndarray]  # (R, M) float32 each

    @property
    def columns(self) -> list[str]:
        """All columns, in one order wherever they are counted."""
        return [*self.bags, *self.numbers, *self.vectors]

    def fingerprint(self) -> str:
        """Sixteen digits that change with anything that is known."""
        digest = hashlib.sha256()
        for name, bag in self.bags.items():
            digest.update(json.dumps([name, *bag.names]).encode() + bag.offsets.tobytes() + bag.ids.tobytes())
        for name, values in (*self.numbers.items(), *self.vectors.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()[:16]

    @property
    def rows(self) -> int:
        """R, 0 where there are no columns."""
        sizes = [len(bag.offsets) - 1 for bag in self.bags.values()]
        sizes += [len(values) for values in (*self.numbers.values(), *self.vectors.values())]
        return sizes[0] if sizes else 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """W stretches of one packed array: window w reads items[start:stop] and predicts items[t + 1] for t in [first, stop).

    One pass over a row has first == start, a prefix or an evaluation window has first == stop - 1.
    What a split may know of user u is items[offsets[u]:ends[u]] and no more; counts and similarities come from there.
    """

    items: np.ndarray  # (T,) int32, all users behind one another, memory-mappable
    offsets: np.ndarray  # (U + 1,) int64, user u owns items[offsets[u]:offsets[u + 1]]
    ends: np.ndarray  # (U,) int64, exclusive end of what this split may know of user u
    users: np.ndarray  # (W,) int64, the user of each window
    start: np.ndarray  # (W,) int64
    stop: np.ndarray  # (W,) int64, stop - start <= max_len; items[stop] is the last target
    first: np.ndarray  # (W,) int64
    num_items: int
    max_len: int
    times: np.ndarray | None = None  # (T,) float64 seconds
    attributes: Callable[[str | None], Bag] | None = (
        None  # words of PAD, items and MASK, from the columns or file named
    )
    features: Callable[..., Features] | None = None  # what is known of "items" or "users", from the columns named

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_users(self) -> int:
        return len(self.ends)

    @property
    def num_targets(self) -> int:
        """Number of predictions, the positions that an epoch learns from."""
        return int((self.stop - self.first).sum())

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Every (user, item) this split may know, duplicates kept: two arrays of one length."""
        sizes = self.ends - self.offsets[:-1]  # (U,)
        users = np.repeat(np.arange(self.num_users), sizes)
        shift = np.repeat(self.offsets[:-1] - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes)
        return users, self.items[np.arange(len(users)) + shift]

    def item_counts(self) -> np.ndarray:
        """How often each item occurs in what this split may know: (N + 2,), zero for PAD and MASK."""
        return np.bincount(self.known()[1], minlength=self.num_items + 2)

    def target_counts(self) -> np.ndarray:
        """How often each item is to be predicted in these windows: (N + 2,)."""
        edges = np.zeros(len(self.items) + 2, np.int64)
        np.add.at(edges, self.first + 1, 1)
        np.add.at(edges, self.stop + 1, -1)
        times = np.cumsum(edges)[: len(self.items)]  # (T,)
        return np.bincount(self.items, weights=times, minlength=self.num_items + 2).astype(np.int64)


class Batches(Protocol):
    """Every row of a split once, in order: what an objective may look at before an epoch."""

    def __iter__(self) -> Iterator[SeqBatch]: ...
    def __len__(self) -> int: ...
