"""An encoder whose rows are dealt to the processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from seqcl import processes
from seqcl.encoders.base import Encoder
from seqcl.types import SeqBatch


class Share(NamedTuple):
    """The rows of a batch that this process encodes."""

    encoder: Encoder  # draws dropout of its own for each process
    batch: SeqBatch  # of n rows, the same number on every process
    rows: Tensor  # (n,), their numbers in the whole batch
    real: Tensor  # (n,) bool, False where a row is there only to have n of them

    def places(self, learned: Tensor) -> Tensor:
        """The numbers that the positions of these rows have among all that are marked in (B, ...) bool: (T',)."""
        numbers = (learned.flatten().cumsum(0) - 1).view_as(learned)
        mine = learned[self.rows] & self.real.view(-1, *[1] * (learned.dim() - 1))
        return numbers[self.rows][mine]


def dealt(encoder: Encoder) -> Encoder:
    """The encoder itself in a single process; among several, one that gives the states of all rows and encodes its share."""
    return encoder if processes.count() == 1 else cast(Encoder, Dealt(encoder))


def share(encoder: Encoder, batch: SeqBatch) -> Share | None:
    """The share of this process of a batch, for an encoder made by `dealt`; None where all rows are its own."""
    if type(encoder) is not Dealt:
        return None
    rows, real = own_rows(batch.lengths)
    return Share(cast(Encoder, Alone(encoder.whole)), taken(batch, rows), rows, real)


def states_of_all(encode: Callable[[SeqBatch], Tensor], batch: SeqBatch) -> Tensor:
    """Encode the rows of a batch, each on one of the processes: (B, ...), with gradient, in the order of the batch.

    Args:
        encode: makes (n, ...) of a batch of n rows.
        batch: B rows, the same on all processes.
    """
    if processes.count() == 1:
        return encode(batch)
    rows, _ = own_rows(batch.lengths)
    with processes.own_draws(batch.items.device):
        own = encode(taken(batch, rows))
    return processes.all_rows(own).index_select(0, places_of(batch.lengths))


def deal(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Deal rows by length, in rounds whose direction changes, so that each process gets as many items as the others.

    Returns:
        (B,) the rows in the order in which they are dealt, and (B,) the process that gets each.
    """
    order, every = lengths.argsort(descending=True, stable=True), processes.count()
    turn = torch.arange(len(order), device=order.device)
    place = turn % every
    return order, torch.where(turn // every % 2 == 0, place, every - 1 - place)


def own_rows(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of this process, and which of them are real: (n,), (n,) bool; n is the same everywhere."""
    order, owner = deal(lengths)
    own = order[owner == processes.number()]
    missing = -(-len(order) // processes.count()) - len(own)
    real = torch.arange(len(own) + missing, device=own.device) < len(own)
    return torch.cat((own, order[-1:].expand(missing))), real


def places_of(lengths: Tensor) -> Tensor:
    """The place of each row among those of all processes, one process after the other: (B,)."""
    order, owner = deal(lengths)
    each = -(-len(order) // processes.count())
    place = owner * each + torch.arange(len(order), device=order.device) // processes.count()
    return torch.empty_like(order).scatter_(0, order, place)


def taken(batch: SeqBatch, rows: Tensor) -> SeqBatch:
    """Some rows of a batch."""
    return batch.each(lambda column: column.index_select(0, rows))


class Face:
    """Everything that the encoder behind it is, but for what a subclass defines."""

    def __init__(self, whole: Encoder) -> None:
        object.__setattr__(self, "whole", whole)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # isinstance asks this one: an objective may need a kind of encoder
        return type(object.__getattribute__(self, "whole"))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "whole"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "whole"), name, value)


class Dealt(Face):
    """An encoder that gives the states of all rows and encodes those of this process."""

    whole: Encoder

    def __call__(self, batch: SeqBatch) -> Tensor:
        return states_of_all(self.whole, batch)

    def last(self, batch: SeqBatch) -> Tensor:
        return states_of_all(self.whole.last, batch)

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        return states_of_all(partial(self.whole.by_block, overlap=overlap), batch)

    def item_vectors(self, items: Tensor, **options: Any) -> Tensor:
        if options or type(self.whole).item_vectors is Encoder.item_vectors:  # a table is read faster than it is sent
            return self.whole.item_vectors(items, **options)
        each = -(-len(items) // processes.count())
        place = torch.arange(each, device=items.device) + processes.number() * each
        with processes.own_draws(items.device):
            own = self.whole.item_vectors(items[place.clamp(max=len(items) - 1)])
        return processes.all_rows(own, alike=False)[: len(items)]  # each process looks for its own targets among them


class Alone(Face):
    """An encoder that draws what each process draws for itself."""

    whole: Encoder

    def __call__(self, batch: SeqBatch) -> Tensor:
        with processes.own_draws(batch.items.device):
            return self.whole(batch)

    def last(self, batch: SeqBatch) -> Tensor:
        with processes.own_draws(batch.items.device):
            return self.whole.last(batch)
