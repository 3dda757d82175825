"""Rank of the target among all candidates. Candidate column j is item j + 1, so PAD and MASK have no column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqcl.blocks import exclude_, top_k
from seqcl.data.batches import tensor
from seqcl.data.windows import stretch_positions
from seqcl.errors import ADVICE, Diverged
from seqcl.mapped import let_go
from seqcl.types import Windows

Pairs = tuple[Tensor, Tensor]
"""Rows (P,) and columns (P,) of a block of scores."""


class Ranked(NamedTuple):
    """Results of ranking some rows."""

    ranks: Tensor  # (B,) int64
    best: Tensor  # (B, k) the k best scores, best first; a NaN comes first
    columns: Tensor  # (B, k) their columns
    unreachable: Tensor  # (B,) bool, true where the target itself scores minus infinity


def ranks(scores: Tensor, targets: Tensor, seen: Pairs | None = None) -> Tensor:
    """1 + the number of other candidates that score at least as much as the target: (B,) int64; ties count against us.

    A target that is itself excluded, or scores minus infinity, ranks N.

    Args:
        scores: (B, N), not changed.
        targets: (B,) column of each row's target, 0-based.
        seen: rows and columns to exclude; they get minus infinity.

    Raises:
        Diverged: a ValueError: a score is NaN.
    """
    found = rank_block_(scores.float().clone(memory_format=torch.contiguous_format), targets, seen, k=1)
    broken = found.best[:, 0].isnan()
    if bool(broken.any()):
        raise Diverged(f"row {int(broken.nonzero()[0])}: a score is NaN: the model has diverged. {ADVICE}")
    return found.ranks


def rank_block_(scores: Tensor, targets: Tensor, seen: Pairs | None, *, k: int) -> Ranked:
    """Rank the targets and find the k best columns; columns must be contiguous, and the scores are overwritten."""
    if seen is not None:
        exclude_(scores, *seen)
    own = scores.gather(1, targets[:, None])  # (B, 1)
    best, columns = top_k(scores, k)
    # Comparing in place and summing floats is four times as fast as counting booleans; sums stay whole below 2^24.
    wide = torch.float64 if scores.shape[1] >= 1 << 24 else torch.float32
    found = scores.ge_(own).sum(1, dtype=wide).long()
    return Ranked(ranks=found, best=best, columns=columns, unreachable=own[:, 0].isneginf())


def no_hit(candidates: int, ks: Sequence[int]) -> int:
    """The rank of a target that cannot be found among so many candidates: the last one, or one behind every k."""
    return max(candidates, max(ks) + 1)


def seen_before(windows: Windows, *, chunk: int = 1 << 22) -> np.ndarray:
    """True where the target of an evaluation window is among its user's earlier items: (W,) bool.

    Args:
        windows: one target each.
        chunk: items of histories that are looked at together.
    """
    begin = windows.offsets[windows.users]
    ends = np.cumsum(windows.stop - begin)  # (W,), each history has an item at least
    found = np.empty(len(windows), bool)
    start = 0
    while start < len(windows):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + chunk)))
        where, rows = stretch_positions(begin[start:stop], windows.stop[start:stop])
        same = windows.items[where] == windows.items[windows.stop[start:stop]][rows]
        found[start:stop] = np.logical_or.reduceat(same, np.append(0, ends[start : stop - 1] - done))
        start = stop
        let_go(windows.items)
    return found


class Seen:
    """The history of each window: its user's items from the first one to the one before the target.

    It may be longer than the window: exclusion knows all of a user's earlier items.
    """

    def __init__(self, windows: Windows, device: torch.device) -> None:
        begin = windows.offsets[windows.users]
        self.ends = np.concatenate(([0], np.cumsum(windows.stop - begin)))  # (W + 1,)
        self.items = tensor(windows.items, device)  # (T,) int32; a mapped log stays mapped
        self.sizes = torch.tensor(windows.stop - begin, device=device)  # (W,)
        self.shift = torch.tensor(begin - self.ends[:-1], device=device)  # (W,)

    def pairs(self, start: int, stop: int) -> Pairs:
        """Rows, counted from `start`, and columns that the windows [start, stop) exclude."""
        first, last = int(self.ends[start]), int(self.ends[stop])
        rows = torch.arange(stop - start, device=self.items.device)
        rows = rows.repeat_interleave(self.sizes[start:stop], output_size=last - first)  # (P,)
        where = torch.arange(first, last, device=self.items.device) + self.shift[start:stop][rows]
        return rows, self.items[where].long() - 1
