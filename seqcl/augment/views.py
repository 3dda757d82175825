"""The operators as configurable views: `view(batch, generator)` gives a changed copy of the batch.

A constructor takes what an experiment chooses. `bind` brings what depends on the data, once, before the first call.
Views are modules: their neighbour tables go to the device and into the checkpoint with the objective that holds them.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from seqcl.augment.gaps import Gaps, Side
from seqcl.augment.operators import crop, insert, mask, reorder, substitute
from seqcl.errors import UserError, check_choice, not_negative
from seqcl.types import SeqBatch, Windows


class View(nn.Module):
    """Make a new batch from a batch and a generator; never write to the source."""

    neighbours_needed: int = 0
    """Neighbours of each item that `bind` must be given; 0 if the view uses none."""
    times_needed: bool = False
    """True if batches must have times."""
    keeps_users: bool = True
    """False if the view brings in rows of other users; it then gives their users."""

    def __init__(self) -> None:
        super().__init__()

    def bind(self, *, num_items: int, max_len: int, neighbours: Tensor | None = None) -> View:
        """Hand in what the data decides and return the view: N, the longest row, and neighbours (N + 2, K) of the items."""
        return self

    def rebind(self, neighbours: Tensor) -> None:
        """Take other neighbours (N + 2, K) of the same items, as when the correlation is learned anew."""
        name = type(self).__name__
        raise UserError(f"{name}: a view that uses neighbours needs rebind(neighbours), or derive it from Correlated")

    def prepare(self, train: Windows) -> None:
        """Read what the view needs of the training windows, beyond what `bind` hands in."""

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        """Make the changed copy: rows in their order, `users` kept, `targets` dropped."""
        raise NotImplementedError(f"{type(self).__name__} needs forward(batch, generator)")


class Rated(View):
    """A view that acts on a part of each row, of floor(rate * n) items."""

    def __init__(self, *, rate: float, least: int = 0) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise UserError(f"{type(self).__name__}: rate must lie in [0, 1], not {rate}")
        not_negative(type(self).__name__, least=least)
        self.rate = rate
        self.least = least

    def extra_repr(self) -> str:
        return f"rate={self.rate}" + (f", least={self.least}" if self.least else "")

    def weaker(self, rate: float, strength: float) -> float:
        """The rate at a strength from 0, which changes nothing, to 1, which is `rate`."""
        return rate * strength


class Keeping(Rated):
    """A view whose rate is the part of a row that it keeps."""

    def weaker(self, rate: float, strength: float) -> float:
        """The part that is kept: at strength 0 all of a row."""
        return 1 - strength * (1 - rate)


class Identity(View):
    """Give the row itself: only the encoder's dropout differs from one view to the other (SimCSE, arXiv 2104.08821)."""

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return batch._replace(targets=None)


class Crop(Keeping):
    """Keep one random window of max(1, floor(rate * n)) items (CL4SRec, arXiv 2010.14395).

    Args:
        rate: Part of a row that is kept; the paper's best is 0.6 on most data sets.
        even: Keep the window whose gaps in time vary least (TiCoSeRec, arXiv 2212.08262).
    """

    def __init__(self, *, rate: float = 0.6, even: bool = False) -> None:
        super().__init__(rate=rate)
        self.even = self.times_needed = even

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return crop(batch, rate=self.rate, generator=generator, even=self.even)


class Mask(Rated):
    """Write the MASK token over floor(rate * n) random positions (CL4SRec, arXiv 2010.14395).

    Args:
        rate: Part of a row that is masked; the paper tries 0.1 to 0.9.
        least: Smallest number of masked positions, in rows that have so many; the paper has 0.
        gaps: Positions to mask: any, or those at the smallest or largest gaps in time (TiCoSeRec, whose command for Beauty
            has large).
        side: With gaps, mask the item after a gap, or the one before it (the code of TiCoSeRec).
    """

    token: int | None = None

    def __init__(self, *, rate: float = 0.3, least: int = 0, gaps: Gaps = "any", side: Side = "after") -> None:
        super().__init__(rate=rate, least=least)
        check_choice("gaps", gaps, Gaps)
        check_choice("side", side, Side)
        self.gaps, self.side, self.times_needed = gaps, side, gaps != "any"

    def bind(self, *, num_items: int, max_len: int, neighbours: Tensor | None = None) -> View:
        self.token = num_items + 1
        return self

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        if self.token is None:
            raise UserError("Mask: call bind(num_items=..., max_len=...) before the first batch")
        return mask(
            batch,
            rate=self.rate,
            least=self.least,
            token=self.token,
            generator=generator,
            gaps=self.gaps,
            side=self.side,
        )


class Reorder(Rated):
    """Shuffle one random window of floor(rate * n) items (CL4SRec, arXiv 2010.14395).

    Args:
        rate: Part of a row that the window covers; the paper tries 0.1 to 0.9.
        least: Smallest number of items in the window, in rows that have so many; the paper has 0.
        even: Shuffle the window whose gaps in time vary least (TiCoSeRec, arXiv 2212.08262).
    """

    def __init__(self, *, rate: float = 0.6, least: int = 0, even: bool = False) -> None:
        super().__init__(rate=rate, least=least)
        self.even = self.times_needed = even

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return reorder(batch, rate=self.rate, least=self.least, generator=generator, even=self.even)


class Correlated(Rated):
    """A view that brings in neighbours of the row's items; it saves their table."""

    neighbours: Tensor | None

    def __init__(self, *, rate: float, least: int, top_k: int, gaps: Gaps, side: Side) -> None:
        super().__init__(rate=rate, least=least)
        check_choice("gaps", gaps, Gaps)
        check_choice("side", side, Side)
        self.gaps, self.side, self.times_needed = gaps, side, gaps != "any"
        if top_k < 1:
            raise UserError(f"{type(self).__name__}: top_k must be at least 1, not {top_k}")
        self.neighbours_needed = top_k
        self.max_len = 0
        self.register_buffer("neighbours", None)

    def bind(self, *, num_items: int, max_len: int, neighbours: Tensor | None = None) -> View:
        name, needed = type(self).__name__, self.neighbours_needed
        if neighbours is None:
            raise UserError(f"{name}: needs neighbours, a table (N + 2, {needed}) such as item_cf_iuf makes")
        if neighbours.shape[0] != num_items + 2 or neighbours.shape[1] < needed:
            shape = tuple(neighbours.shape)
            raise UserError(f"{name}: needs neighbours of shape ({num_items + 2}, >= {needed}), not {shape}")
        self.max_len = max_len
        self.neighbours = neighbours[:, :needed].clone()
        return self

    def rebind(self, neighbours: Tensor) -> None:
        """Write other neighbours (N + 2, >= top_k) of the same items into the table, which a checkpoint saves."""
        self.table().copy_(neighbours[:, : self.neighbours_needed])

    def table(self) -> Tensor:
        """Return the bound neighbours: (N + 2, top_k)."""
        if self.neighbours is None:
            raise UserError(f"{type(self).__name__}: call bind(..., neighbours=...) before the first batch")
        return self.neighbours


class Substitute(Correlated):
    """Replace floor(rate * n) random items by correlated ones (CoSeRec, arXiv 2108.06479).

    Args:
        rate: Part of a row that is replaced; the paper tries 0.1 to 0.9.
        least: Smallest number of replaced items, in rows that have so many; 0 in the paper, 1 in its code.
        top_k: Number of nearest items to draw the correlated one from; 1 in the paper.
        gaps: Items to replace: any, or those after the smallest or largest gaps in time (TiCoSeRec, arXiv 2212.08262,
            has small).
        side: With gaps, replace the item after a gap, or the one before it (the code of TiCoSeRec).
    """

    def __init__(
        self, *, rate: float = 0.1, least: int = 0, top_k: int = 1, gaps: Gaps = "any", side: Side = "after"
    ) -> None:
        super().__init__(rate=rate, least=least, top_k=top_k, gaps=gaps, side=side)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return substitute(
            batch,
            rate=self.rate,
            least=self.least,
            neighbours=self.table(),
            generator=generator,
            gaps=self.gaps,
            side=self.side,
        )


class Insert(Correlated):
    """Put a correlated item before floor(rate * n) random items, up to the longest row (CoSeRec, arXiv 2108.06479).

    A row that grows past the longest length keeps its newest items.

    Args:
        rate: Part of a row that gets a new item before it; the paper tries 0.1 to 0.9.
        least: Smallest number of inserted items, in rows that have so many; 0 in the paper, 1 in its code.
        top_k: Number of nearest items to draw the correlated one from; 1 in the paper.
        gaps: Items to insert before: any, or those after the smallest or largest gaps in time (TiCoSeRec, arXiv
            2212.08262, has large).
        side: The new item is a neighbour of the item after it, or of the one before it (the code of TiCoSeRec).
    """

    def __init__(
        self, *, rate: float = 0.4, least: int = 0, top_k: int = 1, gaps: Gaps = "any", side: Side = "after"
    ) -> None:
        super().__init__(rate=rate, least=least, top_k=top_k, gaps=gaps, side=side)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        return insert(
            batch,
            rate=self.rate,
            least=self.least,
            neighbours=self.table(),
            max_len=self.max_len,
            generator=generator,
            gaps=self.gaps,
            side=self.side,
        )
