"""Views made of views: one drawn for each row, one after another, one by length, and the two or more views of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from seqcl.augment.similarity import Correlation, by_embedding, item_cf_iuf, surer
from seqcl.augment.views import View
from seqcl.errors import UserError, check_choice, not_negative
from seqcl.shapes import fixed
from seqcl.types import SeqBatch, Windows

if TYPE_CHECKING:
    from typing_extensions import Self


def route(views: Sequence[View], choice: Tensor, batch: SeqBatch, generator: Generator) -> SeqBatch:
    """Send row b through views[choice[b]] and keep the order of the rows; the result is trimmed to its longest row.

    Each view sees its own rows alone, sorted to lie together. Reads group sizes and width back from the device. With fixed
    shapes nothing is read: each view sees all rows, and those that it was drawn for are kept.
    """
    if fixed():
        rows = torch.arange(len(choice), device=choice.device)
        made = [view(batch, generator) for view in views]
        return combine(made, lambda columns: torch.stack(columns)[choice, rows])
    order = choice.argsort(stable=True)  # (B,)
    sizes = torch.bincount(choice, minlength=len(views)).tolist()
    none = [None] * len(views)
    sorted_rows = batch.each(lambda column: column.index_select(0, order))
    columns = (none if column is None else column.split(sizes) for column in sorted_rows)
    groups = [SeqBatch._make(group) for group in zip(*columns, strict=True)]
    parts = [view(group, generator) if size else None for view, group, size in zip(views, groups, sizes, strict=True)]
    made = [part for part in parts if part is not None]
    lengths = torch.cat([part.lengths for part in made])  # (B,), sorted by view
    lengths, width = torch.empty_like(lengths).scatter_(0, order, lengths), int(lengths.max())
    items = _merge([part.items for part in made], order, width)
    times = None if batch.times is None else _merge([part.times for part in made], order, width)
    users = batch.users
    if users is not None:
        users = torch.empty_like(users).scatter_(0, order, torch.cat([part.users for part in made]))  # (B,)
    return SeqBatch(items, lengths, users=users, times=times)


def _merge(parts: list[Tensor], order: Tensor, width: int) -> Tensor:
    """Stack parts (B_i, L_i) to (B, width), zero where a part is narrower, and move row i to row order[i]."""
    merged = parts[0].new_zeros(len(order), width)  # (B, L)
    for part, rows in zip(parts, order.split([len(part) for part in parts]), strict=True):
        wide = min(width, part.shape[1])
        merged[:, :wide].index_copy_(0, rows, part[:, :wide])
    return merged


class Group(nn.Module):
    """Several views that are bound and prepared together."""

    def __init__(self, views: Sequence[View]) -> None:
        super().__init__()
        self.views = cast("Sequence[View]", nn.ModuleList(views))
        self.neighbours_needed = max(view.neighbours_needed for view in views)
        self.times_needed = any(view.times_needed for view in views)
        self.keeps_users = all(view.keeps_users for view in views)

    def bind(self, *, num_items: int, max_len: int, neighbours: Tensor | None = None) -> Self:
        """Hand what the data decides to every view, see `View.bind`."""
        for view in self.views:
            view.bind(num_items=num_items, max_len=max_len, neighbours=neighbours)
        return self

    def rebind(self, neighbours: Tensor) -> None:
        """Hand other neighbours (N + 2, K) to every view that uses some."""
        for view in self.views:
            if view.neighbours_needed:
                view.rebind(neighbours)

    def prepare(self, train: Windows) -> None:
        """Let every view read what it needs of the training windows."""
        for view in self.views:
            view.prepare(train)


class Composed(Group, View):
    """A view made of other views."""

    def __init__(self, views: Sequence[View]) -> None:
        if not views:
            raise UserError(f"{type(self).__name__}: views must not be empty")
        super().__init__(views)


class OneOf(Composed):
    """Draw one of the views for every row, each equally likely, independent of all other rows (CL4SRec, arXiv 2010.14395).

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
    """Apply the views one after another, each to what the one before it made.

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
    """Apply `short` to rows of at most `threshold` items and `long` to all others (CoSeRec, arXiv 2108.06479, section 3.3).

    Args:
        short: The view of short rows; in the paper one of substitute, insert, mask.
        long: The view of long rows; in the paper one of all five.
        threshold: Items in a row up to which it is short; 4 in the paper's code.
    """

    def __init__(self, *, short: View, long: View, threshold: int = 4) -> None:
        super().__init__([short, long])
        not_negative("ByLength", threshold=threshold)
        self.threshold = threshold

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return route(self.views, (batch.lengths > self.threshold).long(), batch, generator)


class Pair(Group):
    """Make two views of every row, or more, each drawn from `views` and made from the source.

    CL4SRec (arXiv 2010.14395) draws them independently; its version in the code of DuoRec (arXiv 2110.05730) distinct.

    Args:
        views: The views to draw from; one view alone is used for all, with a draw for each.
        distinct: Take different entries of `views` for the views of a row.
        ordered: Take views[0] for the first view, views[1] for the second and so on, always.
        number: Views of a row.
        correlation: Source of the correlated items that views bring in: cooccurrence (ItemCF-IUF), embedding (the
            model's own item embeddings), or hybrid, the surer of the two (CoSeRec, arXiv 2108.06479, section 3.1).
        warmup: Epochs of pre-training and of training during which embedding and hybrid use co-occurrence; afterwards they
            are made anew every epoch.

    Raises:
        UserError: there are too few views for these options.
    """

    def __init__(
        self,
        *,
        views: Sequence[View],
        distinct: bool = False,
        ordered: bool = False,
        number: int = 2,
        correlation: Correlation = "cooccurrence",
        warmup: int = 0,
    ) -> None:
        if number < 2:
            raise UserError(f"Pair: number must be at least 2, not {number}")
        least = number if distinct else 1
        if len(views) < least:
            raise UserError(f"Pair: needs at least {least} views with distinct={distinct}, not {len(views)}")
        if ordered and len(views) != number:
            raise UserError(f"Pair: needs {number} views with ordered=True, not {len(views)}")
        check_choice("correlation", correlation, Correlation)
        not_negative("Pair", warmup=warmup)
        super().__init__(views)
        self.distinct, self.ordered, self.number = distinct, ordered, number
        self.correlation, self.warmup = correlation, warmup
        self.counted: tuple[Tensor, Tensor] | None = None  # neighbours by co-occurrence and their scores

    def extra_repr(self) -> str:
        return f"distinct={self.distinct}"

    def prepare(self, train: Windows) -> None:
        """Bind every view, with its item correlation, and let it read what it needs of the training windows."""
        if self.times_needed and train.times is None:
            raise UserError(
                "these views need the times of the items, and this log has none (the text format of S3-Rec never has): "
                "take a log with times, name their column with --data.time, or use --model CoSeRec"
            )
        neighbours = None
        if self.neighbours_needed:
            self.counted = item_cf_iuf(*train.known(), train.num_items, top_k=self.neighbours_needed)
            neighbours = self.counted[0]
        self.bind(num_items=train.num_items, max_len=train.max_len, neighbours=neighbours)
        super().prepare(train)

    @torch.no_grad()
    def before_epoch(self, table: Tensor, epoch: int) -> None:
        """Make the item correlation anew from the item embeddings (N + 2, D), if it comes from there."""
        if self.counted is None or self.correlation == "cooccurrence":
            return
        if epoch < self.warmup:
            self.rebind(self.counted[0])  # pre-training may have left another
            return
        learned = by_embedding(table, top_k=self.neighbours_needed)
        if self.correlation == "hybrid":
            ids, scores = (part.to(table.device) for part in self.counted)
            neighbours = surer((ids, scores), learned)
        else:
            neighbours = learned[0]
        self.rebind(neighbours)

    def stacked(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        """Make all n views as one batch of nB rows, first views first, for one pass through the encoder."""
        if self.ordered:
            return stack(*(view(batch, generator) for view in self.views))
        repeated = batch.each(lambda column: torch.cat([column] * self.number))  # nB rows
        if len(self.views) == 1:
            return self.views[0](repeated, generator)
        return route(self.views, self.choice(batch.lengths, generator).flatten(), repeated, generator)

    def choice(self, rows: Tensor, generator: Generator) -> Tensor:
        """Draw an entry of `views` for each of the n views of B rows: (n, B)."""
        number, shape, device = len(self.views), rows.shape, rows.device
        if self.distinct and self.number > 2:
            order = torch.rand(number, *shape, generator=generator, device=device).argsort(0)  # (views, B)
            return order[: self.number]
        first = torch.randint(number, shape, generator=generator, device=device)  # (B,)
        if self.distinct:
            other = torch.randint(1, number, shape, generator=generator, device=device)  # (B,)
            return torch.stack((first, (first + other) % number))
        others = [torch.randint(number, shape, generator=generator, device=device) for _ in range(1, self.number)]
        return torch.stack((first, *others))

    def forward(self, batch: SeqBatch, generator: Generator) -> tuple[SeqBatch, ...]:
        """Make the first view of every row, the second one and so on, all of one width."""
        return apart(self.stacked(batch, generator), self.number)


def stack(*batches: SeqBatch) -> SeqBatch:
    """Put the rows of batches behind one another; see `combine`."""
    return combine(batches, torch.cat)


def combine(made: Sequence[SeqBatch], how: Callable[[list[Tensor]], Tensor]) -> SeqBatch:
    """Make one batch of several, column by column, as wide as the widest of them.

    Targets are dropped; users and times are kept if all of them have some.
    """
    width = max(one.items.shape[1] for one in made)

    def joined(columns: tuple[Tensor | None, ...]) -> Tensor | None:
        found = [column for column in columns if column is not None]
        if len(found) < len(columns):
            return None
        return how([F.pad(column, (0, width - column.shape[1])) if column.dim() == 2 else column for column in found])

    items, lengths, _, users, times, _ = zip(*made, strict=True)
    return SeqBatch(
        cast(Tensor, joined(items)), cast(Tensor, joined(lengths)), users=joined(users), times=joined(times)
    )


def apart(views: SeqBatch, number: int) -> tuple[SeqBatch, ...]:
    """Cut a batch of nB rows into n equal parts: the views of `stack` or `Pair.stacked`, of one width."""
    columns = ([None] * number if part is None else part.chunk(number) for part in views._replace(positions=None))
    return tuple(SeqBatch._make(view) for view in zip(*columns, strict=True))


def halves(both: SeqBatch) -> tuple[SeqBatch, SeqBatch]:
    """Cut a batch of 2B rows in the middle: the two views of `stack` or `Pair.stacked`, of one width."""
    first, second = apart(both, 2)
    return first, second
