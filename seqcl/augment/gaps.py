"""Even, small and large gaps in time: the places that time-aware operators act on (TiCoSeRec, arXiv 2212.08262)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from seqcl.errors import UserError
from seqcl.types import SeqBatch

Gaps = Literal["any", "small", "large"]
Side = Literal["after", "before"]
"""The item of a gap that is meant: the one after it, or the one before it."""


def times_of(batch: SeqBatch) -> Tensor:
    """Return the times of a batch: (B, L).

    Raises:
        UserError: the batch has no times.
    """
    if batch.times is None:
        raise UserError("a time-aware view needs the times of the items, and the batch has none")
    return batch.times


def even_start(batch: SeqBatch, size: Tensor, generator: Generator) -> Tensor:
    """Find where the window of `size` (B,) items begins whose gaps vary least: (B,).

    Of several such windows each is equally likely.
    """
    times = times_of(batch)
    rows, width = times.shape
    place = torch.arange(width, device=times.device)  # (L,)
    gaps = times.diff(dim=1).masked_fill(place[1:] >= batch.lengths[:, None], 0)  # (B, L - 1)
    gaps = gaps / gaps.mean(1, keepdim=True).clamp(min=1e-9)  # their squares would lose digits
    zero = gaps.new_zeros(rows, 1)
    once, twice = (torch.cat((zero, power.cumsum(1)), 1) for power in (gaps, gaps.square()))  # (B, L) each
    last = place + size[:, None] - 1  # (B, L), the last item of the window that begins here
    last = last.clamp(min=0, max=width - 1)
    count = (size[:, None] - 1).clamp(min=1)
    mean, square = ((sums.gather(1, last) - sums) / count for sums in (once, twice))  # (B, L)
    variance = (square - mean.square()).clamp(min=0)
    variance = variance.masked_fill(place + size[:, None] > batch.lengths[:, None], torch.inf)
    best = variance <= variance.amin(1, keepdim=True) + 1e-9
    return torch.rand(rows, width, generator=generator, device=times.device).masked_fill(~best, -1).argmax(1)


def by_gap(batch: SeqBatch, gaps: Gaps, generator: Generator, side: Side = "after") -> Tensor:
    """Sort positions by the gap before them, smallest or largest first, ties at random: (B, L).

    The first position has no gap before it: it comes behind all others, and padding behind it. With side=before, a position
    counts by the gap behind it, and the newest item has none.
    """
    times = times_of(batch)
    place = torch.arange(times.shape[1], device=times.device)  # (L,)
    gap = times.diff(dim=1, prepend=times[:, :1])  # (B, L), the one before each position
    alone = (place == 0).expand_as(gap)
    if side == "before":
        gap, alone = gap.roll(-1, 1), place == batch.lengths[:, None] - 1
    keys = -gap if gaps == "small" else gap
    keys = keys.masked_fill(alone, -1e300).masked_fill(place >= batch.lengths[:, None], -torch.inf)
    shuffled = torch.rand(times.shape, generator=generator, device=times.device).argsort(1)
    return shuffled.gather(1, keys.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
