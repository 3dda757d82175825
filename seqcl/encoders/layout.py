"""How the rows of a batch lie in memory while an encoder works: groups of like length, so that little is padding."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.types import SeqBatch

LEAST = 8
"""Rows that a group has at least, if there are so many: below that a kernel costs more to start than padding."""


class Layout:
    """Rows sorted by length in groups, each a dense block (rows, width), all blocks behind one another as S slots.

    A batch of random rows is thus computed nearly without padding: 256 rows of Beauty are 1,500 items in 2,000 slots,
    where one block of them has 12,800. Everything but attention runs on all slots at once. On a GPU there is one group,
    since sizes of groups would have to be read back from it.
    """

    def __init__(self, batch: SeqBatch) -> None:
        rows, self.width = batch.items.shape
        device = batch.items.device
        if device.type == "cpu":
            ordered, order = batch.lengths.sort()
            self.groups = grouped(ordered.tolist())
        else:
            ordered, order = batch.lengths, torch.arange(rows, device=device)
            self.groups = [(rows, self.width)]
        time = torch.arange(self.width, device=device)
        parts, newest, first, start = [], [], 0, 0
        self.lengths: list[Tensor] = []  # of each group's rows
        for size, width in self.groups:
            here, lengths = order[first : first + size], ordered[first : first + size]
            parts.append((here[:, None] * self.width + time[:width]).flatten())
            newest.append(start + torch.arange(size, device=device) * width + lengths - 1)
            self.lengths.append(lengths)
            first, start = first + size, start + size * width
        self.places = torch.cat(parts)  # (S,), where each slot stands in the flattened batch
        self.newest = torch.cat(newest)  # (B,), the slot of the newest item of each row in order
        self.order = order  # (B,)
        self.shape = (rows, self.width)

    def take(self, x: Tensor) -> Tensor:
        """The slots of x (B, L): (S,)."""
        return x.flatten()[self.places]

    def put(self, x: Tensor) -> Tensor:
        """The slots x (S, D) at their places in (B, L, D), zero elsewhere."""
        rows, width = self.shape
        return x.new_zeros(rows * width, x.shape[-1]).index_copy(0, self.places, x).unflatten(0, (rows, width))

    def put_newest(self, x: Tensor) -> Tensor:
        """States x (B, D) in the order of the groups, back in the order of the batch."""
        return torch.empty_like(x).index_copy(0, self.order, x)

    def blocks(self, x: Tensor) -> list[Tensor]:
        """The slots x (S, D) by group: views (rows, width, D)."""
        sizes = [rows * width for rows, width in self.groups]
        return [part.unflatten(0, shape) for part, shape in zip(x.split(sizes), self.groups, strict=True)]


def grouped(lengths: list[int]) -> list[tuple[int, int]]:
    """(rows, width) of groups of ascending lengths: a new one where the length passes 1.5 times that at its start."""
    groups: list[tuple[int, int]] = []
    start = 0
    for row, length in enumerate(lengths):
        left = len(lengths) - row
        if row - start >= LEAST and left >= LEAST and length > max(1.5 * lengths[start], lengths[start] + 2):
            groups.append((row - start, lengths[row - 1]))
            start = row
    return [*groups, (len(lengths) - start, lengths[-1])]
