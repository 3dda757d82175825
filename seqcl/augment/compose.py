"""Views made of views: one drawn per row, one after another, one by length, and the two views of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Generator, Tensor, nn

from seqcl.augment.views import View
from seqcl.errors import UserError
from seqcl.types import SeqBatch


def route(views: Sequence[View], choice: Tensor, batch: SeqBatch, generator: Generator) -> SeqBatch:
    """Row b of the result is row b of the batch under views[choice[b]]; it is trimmed to its longest row.

    Each view sees only its rows, sorted to lie together. Group sizes and width are read back from the device.
    """
    order = choice.argsort(stable=True)  # (B,)
    sizes = torch.bincount(choice, minlength=len(views)).tolist()
    columns = (batch.items, batch.lengths) if batch.times is None else (batch.items, batch.lengths, batch.times)
    groups = zip(*(column.index_select(0, order).split(sizes) for column in columns), strict=True)
    parts = [
        view(SeqBatch(items, lengths, times=times[0] if times else None), generator) if len(lengths) else None
        for view, (items, lengths, *times) in zip(views, groups, strict=True)
    ]
    made = [part for part in parts if part is not None]
    lengths = torch.cat([part.lengths for part in made])  # (B,), sorted by view
    lengths, width = torch.empty_like(lengths).scatter_(0, order, lengths), int(lengths.max())
    items = _merge([part.items for part in made], order, width)
    times = None if batch.times is None else _merge([part.times for part in made], order, width)
    return SeqBatch(items, lengths, users=batch.users, times=times)


def _merge(parts: list[Tensor], order: Tensor, width: int) -> Tensor:
    """Stack (B_i, L_i) to (B, width), zero where a part is narrower, and send row i to row order[i]."""
    merged = parts[0].new_zeros(len(order), width)  # (B, L)
    for part, rows in zip(parts, order.split([len(part) for part in parts]), strict=True):
        wide = min(width, part.shape[1])
        merged[:, :wide].index_copy_(0, rows, part[:, :wide])
    return merged


class Composed(View):
    """A view with other views inside, which it binds."""

    def __init__(self, views: Sequence[View]) -> None:
        super().__init__()
        if not views:
            raise UserError(f"{type(self).__name__}: views must not be empty")
        self.views = cast("Sequence[View]", nn.ModuleList(views))
        self.neighbours_needed = max(view.neighbours_needed for view in views)

    def bind(self, *, num_items: int, max_len: int, neighbours: Tensor | None = None) -> View:
        for view in self.views:
            view.bind(num_items=num_items, max_len=max_len, neighbours=neighbours)
        return self


class OneOf(Composed):
    """Every row draws one of the views, each equally likely, independent of all other rows (CL4SRec, arXiv 2010.14395).

    Args:
        views: The views to draw from.
    """

    def __init__(self, *, views: Sequence[View]) -> None:
        super().__init__(views)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        shape, device = batch.lengths.shape, batch.lengths.device
        choice = torch.randint(len(self.views), shape, generator=generator, device=device)  # (B,)
        return route(self.views, choice, batch, generator)


class Chain(Composed):
    """The views one after another, each on what the one before it made.

    Args:
        views: The views in the order in which they act.
    """

    def __init__(self, *, views: Sequence[View]) -> None:
        super().__init__(views)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        for view in self.views:
            batch = view(batch, generator)
        return batch


class ByLength(Composed):
    """Rows of at most `threshold` items take `short`, all others `long` (CoSeRec, arXiv 2108.06479, section 3.3).

    Args:
        short: The view of short rows; in the paper one of substitute, insert, mask.
        long: The view of long rows; in the paper one of all five.
        threshold: Items in a row up to which it is short; 4 in the paper's code.
    """

    def __init__(self, *, short: View, long: View, threshold: int = 4) -> None:
        super().__init__([short, long])
        self.threshold = threshold

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return route(self.views, (batch.lengths > self.threshold).long(), batch, generator)


class Pair(nn.Module):
    """Two views of every row, each drawn from `views` and made from the source.

    CL4SRec (arXiv 2010.14395) draws them independently; its version in the code of DuoRec (arXiv 2110.05730) distinct.

    Args:
        views: The views to draw from; one view alone is used twice, with two draws.
        distinct: Whether a row's two views come from two different entries of `views`.
    """

    def __init__(self, *, views: Sequence[View], distinct: bool = False) -> None:
        super().__init__()
        if len(views) < 1 + distinct:
            raise UserError(f"Pair: needs at least {1 + distinct} views with distinct={distinct}, not {len(views)}")
        self.views = cast("Sequence[View]", nn.ModuleList(views))
        self.distinct = distinct
        self.neighbours_needed = max(view.neighbours_needed for view in views)

    def extra_repr(self) -> str:
        return f"distinct={self.distinct}"

    def bind(self, *, num_items: int, max_len: int, neighbours: Tensor | None = None) -> Pair:
        """Hand in what the data decides, as `View.bind` does."""
        for view in self.views:
            view.bind(num_items=num_items, max_len=max_len, neighbours=neighbours)
        return self

    def stacked(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        """Both views as one batch of 2B rows, first views first, for one pass through the encoder."""
        source = batch._replace(targets=None)
        twice = SeqBatch._make(None if part is None else torch.cat((part, part)) for part in source)  # 2B rows
        if len(self.views) == 1:
            return self.views[0](twice, generator)
        number, shape, device = len(self.views), batch.lengths.shape, batch.lengths.device
        first = torch.randint(number, shape, generator=generator, device=device)  # (B,)
        if self.distinct:
            second = (first + torch.randint(1, number, shape, generator=generator, device=device)) % number  # (B,)
        else:
            second = torch.randint(number, shape, generator=generator, device=device)  # (B,)
        return route(self.views, torch.cat((first, second)), twice, generator)

    def forward(self, batch: SeqBatch, generator: Generator) -> tuple[SeqBatch, SeqBatch]:
        """The first view of every row and the second one, both of one width."""
        both, half = self.stacked(batch, generator), len(batch.lengths)
        return (
            SeqBatch._make(None if part is None else part[:half] for part in both),
            SeqBatch._make(None if part is None else part[half:] for part in both),
        )
