"""Windows cut out of a packed log: for training in three ways, for evaluation one for each target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seqcl.data.sequences import Sequences
from seqcl.errors import UserError, unknown
from seqcl.types import Windows


class Cuts(NamedTuple):
    """C windows cut out of several rows of the packed array."""

    row: np.ndarray  # (C,) int64, the row that each window is cut from
    start: np.ndarray  # (C,) int64
    stop: np.ndarray  # (C,) int64
    first: np.ndarray  # (C,) int64


def last(begin: np.ndarray, end: np.ndarray, max_len: int) -> Cuts:
    """One window a row: its newest max_len inputs. Older inputs are not learned from."""
    start = np.maximum(begin, end - max_len)
    return Cuts(np.arange(len(begin)), start, end, start)


def sliding(begin: np.ndarray, end: np.ndarray, max_len: int) -> Cuts:
    """Windows half a length apart, the newest first, until the row is covered; each target is predicted exactly once.

    A target is predicted from at least half of max_len inputs, or from the begin of the row.
    """
    stride = max(1, max_len // 2)
    more = -(-np.maximum(end - begin - max_len, 0) // stride)  # windows before the newest
    back, row = stretch_positions(np.zeros_like(more), more + 1)  # 0 is the newest
    stop = end[row] - back * stride
    start = np.maximum(begin[row], stop - max_len)
    return Cuts(row, start, stop, np.where(back == more[row], start, stop - stride))


def prefix(begin: np.ndarray, end: np.ndarray, max_len: int) -> Cuts:
    """One window a target, which reads up to max_len inputs before it."""
    first, row = stretch_positions(begin, end)
    return Cuts(row, np.maximum(begin[row], first + 1 - max_len), first + 1, first)


WINDOWS = {"last": last, "sliding": sliding, "prefix": prefix}
"""Ways to cut training windows, by name."""


def check_window_options(max_len: int, windows: str) -> None:
    """Refuse a max_len below 1 and an unknown way to cut windows.

    Raises:
        UserError: names the value, and the nearest valid name.
    """
    if max_len < 1:
        raise UserError(f"max_len must be 1 or more, not {max_len}")
    if windows not in WINDOWS:
        raise unknown("windows", windows, WINDOWS)


def training_windows(sequences: Sequences, ends: np.ndarray, *, max_len: int, windows: str) -> Windows:
    """Cut windows over items[offsets[u]:ends[u]] of every user u with at least an input and a target there.

    Args:
        sequences: the packed log.
        ends: (U,) where the items end that training may know of each user.
        max_len: most items a window reads.
        windows: a name from `WINDOWS`: last, sliding or prefix.
    """
    begins = sequences.offsets[:-1]
    users = np.flatnonzero(ends - begins >= 2)
    begin, end = begins[users], ends[users] - 1  # inputs are [begin, end); each target stands one place later
    cuts = WINDOWS[windows](begin, end, max_len)
    return windows_over(sequences, ends, cuts._replace(row=users[cuts.row]), max_len)


def evaluation_windows(
    sequences: Sequences, ends: np.ndarray, users: np.ndarray, stops: np.ndarray, *, max_len: int
) -> Windows:
    """Cut one window for each target, which reads up to max_len items before it; the shortest windows come first.

    Args:
        sequences: the packed log.
        ends: (U,) where the items end that this split may know of each user.
        users: (W,) user of each target.
        stops: (W,) position of each target in the packed array.
        max_len: most items a window reads.
    """
    start = np.maximum(sequences.offsets[users], stops - max_len)
    order = np.argsort(stops - start, kind="stable")
    start, stop = start[order], stops[order]
    return windows_over(sequences, ends, Cuts(users[order], start, stop, stop - 1), max_len)


def windows_over(sequences: Sequences, ends: np.ndarray, cuts: Cuts, max_len: int) -> Windows:
    """Windows over a packed log; the row of a cut is its user."""
    return Windows(
        items=sequences.items,
        offsets=sequences.offsets,
        ends=ends,
        users=cuts.row,
        start=cuts.start,
        stop=cuts.stop,
        first=cuts.first,
        num_items=sequences.num_items,
        max_len=max_len,
        times=sequences.times,
        tables=sequences.tables,
    )


def stretch_positions(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List all positions of the stretches [begin, end), one stretch after the other, and the stretch of each position."""
    sizes = np.maximum(end - begin, 0)
    rows = np.repeat(np.arange(len(begin)), sizes)
    first = np.cumsum(sizes) - sizes
    return np.arange(len(rows)) + (begin - first)[rows], rows
