"""Places the rows of a batch in memory while an encoder works: short rows share a block, so that little is padding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqcl.shapes import fixed
from seqcl.types import SeqBatch


class made_once:
    """A tensor that is computed once; functools.cached_property takes a lock before Python 3.12, which cannot be compiled."""

    def __init__(self, make: Callable[[Layout], Tensor]) -> None:
        self.make, self.name = make, make.__name__

    def __get__(self, layout: Layout, owner: type | None = None) -> Tensor:
        value = layout.__dict__[self.name] = self.make(layout)
        return value


class Layout:
    """Rows packed into n blocks of W places each, W being the width of the longest row: S = n * W slots behind one another.

    256 rows of Beauty are 1,500 items in some 1,550 slots, where one row a block takes 12,800. Attention keeps the rows of a
    block apart by a mask; everything else works on all slots alike. On a GPU, in an export and with fixed shapes, every row is a block of
    its own.

    Args:
        batch: the rows.
        causal: true if a place sees nothing after it, false if it sees all of its row.
    """

    def __init__(self, batch: SeqBatch, *, causal: bool = True) -> None:
        self.causal = causal
        rows, length = batch.items.shape
        device, lengths = batch.items.device, batch.lengths
        number = torch.arange(rows, device=device)
        if device.type != "cpu" or torch.compiler.is_compiling() or fixed():
            self.as_they_are(lengths, length, number)
            return
        width, *found = best_fit(lengths.tolist())
        block, offset, rank = torch.tensor(found)
        blocks, most = int(block.max()) + 1, int(rank.max()) + 1
        start = block * width + offset  # (B,)
        time = torch.arange(width, device=device)
        inside = time < lengths[:, None]  # (B, W)
        self.places = (number[:, None] * length + time)[inside]  # (T,), where the items stand in the flattened batch
        self.slots = (start[:, None] + time)[inside]  # (T,), and where here
        self.newest = start + lengths - 1  # (B,), the slot of the newest item of each row
        self.asking = block * most + rank  # (B,), where the newest item stands among n * Q queries, Q a block
        self.shape, self.blocks, self.queries = (rows, length), (blocks, width), (blocks, most)
        owner = torch.full((blocks * width,), -1, device=device)
        owner[self.slots] = number[:, None].expand(-1, width)[inside]
        self.owner = owner.view(blocks, width)  # (n, W), the row of each slot, -1 for none

    def as_they_are(self, lengths: Tensor, length: int, number: Tensor) -> None:
        """A block for every row, padding included: no shape depends on the lengths, which a GPU and an export need."""
        rows = number.shape[0]
        inside = torch.arange(length, device=lengths.device) < lengths[:, None]  # (B, L)
        self.places = self.slots = torch.arange(rows * length, device=lengths.device)
        self.newest, self.asking = number * length + lengths - 1, number
        self.shape = self.blocks = (rows, length)
        self.queries = (rows, 1)
        self.owner = torch.where(inside, number[:, None], -1)

    def take(self, x: Tensor) -> Tensor:
        """The slots of x (B, L, ...), zero where nothing lies: (S, ...)."""
        slots = x.new_zeros(self.owner.numel(), *x.shape[2:])
        return slots.index_copy(0, self.slots, x.flatten(0, 1).index_select(0, self.places))

    def put(self, x: Tensor) -> Tensor:
        """The slots x (S, D) at their places in (B, L, D); what stands at padding is undefined."""
        rows, length = self.shape
        flat = x.new_zeros(rows * length, x.shape[-1])
        return flat.index_copy(0, self.places, x.index_select(0, self.slots)).unflatten(0, (rows, length))

    @made_once
    def visible(self) -> Tensor:
        """True where the second place is of the same row as the first and, if causal, not after it: (n, W, W)."""
        same = self.owner[:, :, None] == self.owner[:, None, :]
        return same.tril() if self.causal else same

    @made_once
    def visible_newest(self) -> Tensor:
        """True where a place is of the row whose newest item asks: (n, Q, W); true everywhere if nobody asks."""
        rows = self.ask(torch.arange(self.asking.shape[0], device=self.owner.device), empty=-1)[:, :, None]
        return (self.owner[:, None] == rows) | (rows < 0)

    @made_once
    def behind(self) -> Tensor:
        """Number of places from a place to the asking item, negative after it: (n, Q, W)."""
        width = self.blocks[1]
        return self.ask(self.newest % width, empty=0)[:, :, None] - torch.arange(width, device=self.owner.device)

    def ask(self, x: Tensor, *, empty: int = 0) -> Tensor:
        """Values x (B, ...) of the asking items, `empty` where nobody asks: (n, Q, ...)."""
        blocks, most = self.queries
        asked = x.new_full((blocks * most, *x.shape[1:]), empty).index_copy(0, self.asking, x)
        return asked.unflatten(0, (blocks, most))


def best_fit(lengths: list[int]) -> tuple[int, list[int], list[int], list[int]]:
    """Best fit, longest row first: the width of a block, and of each row its block, its offset in it and its number there."""
    width = max(lengths)
    blocks, offsets, ranks = ([0] * len(lengths) for _ in range(3))
    roomy: list[list[int]] = [[] for _ in range(width + 1)]  # by room left, the blocks that have it
    rows_in: list[int] = []
    rooms = 0  # bit r is set where roomy[r] is not empty
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[row]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            block = roomy[room].pop()
            if not roomy[room]:
                rooms ^= 1 << room
        else:
            room, block = width, len(rows_in)
            rows_in.append(0)
        blocks[row], offsets[row], ranks[row] = block, width - room, rows_in[block]
        rows_in[block] += 1
        if room > length:
            roomy[room - length].append(block)
            rooms |= 1 << (room - length)
    return width, blocks, offsets, ranks
