"""The five operators: pure functions from a batch of sequences to a new batch, on the batch's device.

All of them keep `users`, drop `targets`, leave the source untouched and draw from the generator they are given.
Times stay ascending: crop takes them along, an inserted item has the time of the item it stands before, and reorder,
mask and substitute leave the time of every slot. A batch trimmed to its longest row gives a trimmed result.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Generator, Tensor

from seqcl.augment.gaps import Gaps, Side, by_gap, even_start
from seqcl.types import PAD, SeqBatch

Count = TypeVar("Count", int, Tensor)


@lru_cache(maxsize=256)
def _ratio(rate: float) -> tuple[int, int]:
    return Fraction(rate).limit_denominator(10_000).as_integer_ratio()


def portion(count: Count, rate: float) -> Count:
    """Compute floor(rate * count) for the rate as written: 0.29 of 100 is 29, where floating point says 28."""
    numerator, denominator = _ratio(rate)
    return count * numerator // denominator


def sizes(batch: SeqBatch, rate: float, least: int) -> tuple[Tensor, int]:
    """Count the items of each row that an operator acts on: max(least, floor(rate * n)), at most n (B,).

    The second value is a bound: no row of the batch has more. It is known without asking the device.
    """
    width = batch.items.shape[1]
    count = portion(batch.lengths, rate)  # (B,)
    if least:
        count = count.clamp(min=least).minimum(batch.lengths)
    return count, min(max(portion(width, rate), least), width)


def choose(
    batch: SeqBatch, *, rate: float, least: int, generator: Generator, gaps: Gaps = "any", side: Side = "after"
) -> Tensor:
    """Mark max(least, floor(rate * n)) positions of each row, every set of that size equally likely: (B, L) bool.

    With gaps=small or large, mark those after the smallest or largest gaps in time instead, or those before them.
    """
    rows, width = batch.items.shape
    count, bound = sizes(batch, rate, least)  # (B,)
    time = torch.arange(width, device=batch.items.device)  # (L,)
    if gaps == "any":
        keys = torch.rand(rows, width, generator=generator, device=time.device)  # (B, L)
        keys.masked_fill_(time >= batch.lengths[:, None], -1.0)
        order = keys.topk(bound, dim=1).indices  # (B, bound), a random order of the real positions
    else:
        order = by_gap(batch, gaps, generator, side)[:, :bound]  # (B, bound)
    marks = torch.zeros(rows, width, dtype=torch.bool, device=time.device)  # (B, L)
    return marks.scatter_(1, order, time[:bound] < count[:, None])


def random_start(lengths: Tensor, size: Tensor, generator: Generator) -> Tensor:
    """Draw the place where a window of `size` (B,) items begins, each of the n - size + 1 equally likely: (B,)."""
    draw = torch.randint(1 << 31, lengths.shape, generator=generator, device=lengths.device)  # (B,)
    return draw.remainder_((lengths - size).add_(1))


def crop(batch: SeqBatch, *, rate: float, generator: Generator, even: bool = False) -> SeqBatch:
    """Keep one window of max(1, floor(rate * n)) items; every window is equally likely, the newest one included.

    With even=True, keep the window whose gaps in time vary least. Source: CL4SRec, arXiv 2010.14395, eq. 4.
    """
    size = portion(batch.lengths, rate).clamp(min=1)  # (B,)
    width = max(1, portion(batch.items.shape[1], rate))  # W, the window of the widest row there can be
    time = torch.arange(width, device=size.device)  # (W,)
    start = even_start(batch, size, generator) if even else random_start(batch.lengths, size, generator)
    # n - size never falls as n grows: the index stays below L without a clamp.
    index = start[:, None] + time  # (B, W)
    padding = time >= size[:, None]  # (B, W)
    items = batch.items.gather(1, index).masked_fill_(padding, PAD)  # (B, W)
    times = None if batch.times is None else batch.times.gather(1, index).masked_fill_(padding, 0)
    return SeqBatch(items, size, users=batch.users, times=times)


def mask(
    batch: SeqBatch,
    *,
    rate: float,
    token: int,
    generator: Generator,
    least: int = 0,
    gaps: Gaps = "any",
    side: Side = "after",
) -> SeqBatch:
    """Write `token` over max(least, floor(rate * n)) positions, chosen by `gaps`; with any, every set is equally likely.

    Source: CL4SRec, arXiv 2010.14395, eq. 5.
    """
    marks = choose(batch, rate=rate, least=least, generator=generator, gaps=gaps, side=side)  # (B, L)
    return batch._replace(items=batch.items.masked_fill(marks, token), targets=None)


def reorder(batch: SeqBatch, *, rate: float, generator: Generator, least: int = 0, even: bool = False) -> SeqBatch:
    """Shuffle one window of max(least, floor(rate * n)) items, every window and every order equally likely.

    With even=True, shuffle the window whose gaps in time vary least. Source: CL4SRec, arXiv 2010.14395, eq. 6.
    """
    size, _ = sizes(batch, rate, least)  # (B,)
    begin = even_start(batch, size, generator) if even else random_start(batch.lengths, size, generator)
    start = begin[:, None]  # (B, 1)
    time = torch.arange(batch.items.shape[1], device=size.device)  # (L,)
    # Positions of the window share one major key, its start, and sort by the random minor key; the others stay.
    major = torch.where(time < start + size[:, None], time.minimum(start), time)  # (B, L)
    minor = torch.randint(1 << 31, batch.items.shape, generator=generator, device=size.device)  # (B, L)
    order = minor.add_(major, alpha=1 << 31).argsort(dim=1)  # (B, L)
    return batch._replace(items=batch.items.gather(1, order), targets=None)


def _partners(items: Tensor, neighbours: Tensor, generator: Generator) -> Tensor:
    """Draw one of the K neighbours of each item, each equally likely: (B, L)."""
    among = neighbours.shape[1]
    if among == 1:
        return neighbours[:, 0][items]
    column = torch.randint(among, items.shape, generator=generator, device=items.device)  # (B, L)
    return neighbours[items, column]


def substitute(
    batch: SeqBatch,
    *,
    rate: float,
    neighbours: Tensor,
    generator: Generator,
    least: int = 0,
    gaps: Gaps = "any",
    side: Side = "after",
) -> SeqBatch:
    """Replace max(least, floor(rate * n)) items, chosen by `gaps`, by one of their `neighbours` (N + 2, K).

    Source: CoSeRec, arXiv 2108.06479, section 3.2, which has K = 1; its code has least = 1.
    """
    marks = choose(batch, rate=rate, least=least, generator=generator, gaps=gaps, side=side)  # (B, L)
    partners = _partners(batch.items, neighbours, generator)  # (B, L)
    return batch._replace(items=torch.where(marks, partners, batch.items), targets=None)


def insert(
    batch: SeqBatch,
    *,
    rate: float,
    neighbours: Tensor,
    max_len: int,
    generator: Generator,
    least: int = 0,
    gaps: Gaps = "any",
    side: Side = "after",
) -> SeqBatch:
    """Put one of its `neighbours` (N + 2, K) before each of max(least, floor(rate * n)) items, chosen by `gaps`.

    With side=before, it is a neighbour of the item before it instead. A row that grows past `max_len` keeps its newest items.

    Source: CoSeRec, arXiv 2108.06479, section 3.2, which has K = 1; its code has least = 1.
    """
    rows, width = batch.items.shape
    marks = choose(batch, rate=rate, least=least, generator=generator, gaps=gaps)  # (B, L)
    shift = marks.cumsum(1)  # (B, L), how far each item moves
    grown = batch.lengths + shift[:, -1]  # (B,)
    lengths = grown.clamp(max=max_len)  # (B,)
    time = torch.arange(width, device=shift.device)  # (L,)
    slot = shift + time + (lengths - grown)[:, None]  # (B, L), negative where cut off
    wide = min(max_len, width + sizes(batch, rate, least)[1])  # V, no row grows further
    spare = wide  # one slot more, where everything that is cut off lands
    old = slot.masked_fill((slot < 0) | (slot >= lengths[:, None]), spare)  # (B, L)
    new = (slot - 1).masked_fill_((slot < 1) | ~marks, spare)  # (B, L)

    def place(before: Tensor, at: Tensor) -> Tensor:
        return at.new_zeros(rows, wide + 1).scatter_(1, old, at).scatter_(1, new, before)[:, :wide]

    whose = batch.items if side == "after" else torch.cat((batch.items[:, :1], batch.items[:, :-1]), 1)  # (B, L)
    items = place(_partners(whose, neighbours, generator), batch.items)  # (B, V)
    times = None if batch.times is None else place(batch.times, batch.times)  # (B, V)
    return SeqBatch(items, lengths, users=batch.users, times=times)
