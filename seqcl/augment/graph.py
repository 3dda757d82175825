"""A row as the graph of its items, joined where one follows another: drop nodes, cut edges, or keep what a walk finds.

Source: GraphCL, arXiv 2010.13902, section 3.1. What is left of the graph is read as a row, in the order of the source.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seqcl.augment.operators import choose, portion
from seqcl.augment.views import Keeping, Rated
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch


class NodeDrop(Rated):
    """Drop max(least, floor(rate * nodes)) random items of a row, wherever they stand in it, but never all (GraphCL, arXiv 2010.13902).

    Args:
        rate: Part of a row's different items that is dropped, below 1; 0.2 in the paper.
        least: Smallest number of dropped items, in rows that have more; the paper has 0.
    """

    def __init__(self, *, rate: float = 0.2, least: int = 0) -> None:
        super().__init__(rate=rate, least=least)
        if portion(1, rate):
            raise UserError(f"NodeDrop: rate must be below 1, not {rate}")

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        number, nodes = numbered(batch.items, real(batch))
        rows = batch._replace(lengths=nodes)
        dropped = choose(rows, rate=self.rate, least=self.least, generator=generator)  # (B, L) by number
        dropped &= (dropped.sum(1) < nodes)[:, None]
        return only(batch, ~dropped.gather(1, number))


class EdgeDrop(Rated):
    """Cut max(least, floor(rate * edges)) random transitions of a row; the pieces then stand in random order (GraphCL, arXiv 2010.13902).

    Nothing tells any more which of two pieces came first. An edge is cut wherever its two items follow each other.

    Differs from the paper: its edge perturbation also adds edges at random.

    Args:
        rate: Part of a row's different transitions that is cut; 0.2 in the paper.
        least: Smallest number of cut transitions, in rows that have so many; the paper has 0.
    """

    def __init__(self, *, rate: float = 0.2, least: int = 0) -> None:
        super().__init__(rate=rate, least=least)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        if batch.items.shape[1] == 1:
            return batch._replace(targets=None)
        inside = real(batch)
        edges = (batch.items[:, :-1] << 31) + batch.items[:, 1:]  # (B, L - 1)
        number, count = numbered(edges, inside[:, 1:])
        cut = choose(SeqBatch(edges, count), rate=self.rate, least=self.least, generator=generator)  # by number
        piece = F.pad((cut.gather(1, number) & inside[:, 1:]).cumsum(1), (1, 0))  # (B, L)
        keys = torch.rand(piece.shape, generator=generator, device=piece.device)
        order = keys.gather(1, piece).masked_fill(~inside, 2.0).argsort(dim=1, stable=True)  # padding stays behind
        return batch._replace(items=batch.items.gather(1, order), targets=None)


class Subgraph(Keeping):
    """Keep max(1, floor(rate * nodes)) items of a row that a random walk over its transitions finds (GraphCL, arXiv 2010.13902).

    The walk begins at a random item and goes on to a random one of those that stand beside any that it has found.

    Args:
        rate: Part of a row's different items that is kept; the authors' code keeps 0.2 to 0.6.
    """

    def __init__(self, *, rate: float = 0.8) -> None:
        super().__init__(rate=rate)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        inside = real(batch)
        number, nodes = numbered(batch.items, inside)
        rows, width = number.shape
        sizes, order = portion(nodes, self.rate).clamp(min=1).sort(descending=True)  # (B,), the longest walk first
        row = torch.arange(rows, device=sizes.device)
        beside = torch.zeros(rows, width, width, dtype=torch.bool, device=sizes.device)
        at, step = inside[order, 1:].nonzero(as_tuple=True)  # every transition
        one, two = number[order[at], step], number[order[at], step + 1]
        beside[at, one, two] = beside[at, two, one] = True
        draw = torch.rand(rows, generator=generator, device=sizes.device, dtype=torch.float64)
        new = (draw * nodes[order]).long()  # (B,)
        found = F.one_hot(new, width).bool()  # (B, L)
        edge = (
            beside[row, new] & ~found
        )  # (B, L), nodes that the walk may go on to; some, as the graph of a row is whole
        going = sizes.tolist()
        for taken in range(1, going[0]):
            while going[-1] <= taken:
                going.pop()
            on = slice(len(going))
            keys = torch.rand(len(going), width, generator=generator, device=sizes.device)
            new = keys.masked_fill_(~edge[on], -1.0).argmax(1)
            found[on].scatter_(1, new[:, None], True)
            edge[on] = (edge[on] | beside[row[on], new]) & ~found[on]
        keep = torch.empty_like(found).index_copy_(0, order, found)
        return only(batch, keep.gather(1, number))


def real(batch: SeqBatch) -> Tensor:
    """Mark the places of items: (B, L) bool."""
    return torch.arange(batch.items.shape[1], device=batch.items.device) < batch.lengths[:, None]


def numbered(ids: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Number the different ids of each row from 0 on, (B, L), and count them, (B,); what is not inside has any number."""
    ids = ids.masked_fill(~inside, torch.iinfo(ids.dtype).max)
    ordered, order = ids.sort(dim=1, stable=True)
    new = ordered[:, 1:] != ordered[:, :-1]
    number = torch.zeros_like(ids).scatter_(1, order, F.pad(new.cumsum(1), (1, 0)))
    first = F.pad(new, (1, 0), value=True)
    return number, (first & (ordered < torch.iinfo(ids.dtype).max)).sum(1)


def only(batch: SeqBatch, keep: Tensor) -> SeqBatch:
    """Keep the marked places of every row, (B, L) bool, in their order; one at least."""
    keep = keep & real(batch)
    lengths = keep.sum(1)  # (B,)
    width = int(lengths.max())
    order = (~keep).long().argsort(dim=1, stable=True)[:, :width]
    padding = torch.arange(width, device=order.device) >= lengths[:, None]
    items = batch.items.gather(1, order).masked_fill_(padding, PAD)
    times = None if batch.times is None else batch.times.gather(1, order).masked_fill_(padding, 0)
    return SeqBatch(items, lengths, users=batch.users, times=times)
