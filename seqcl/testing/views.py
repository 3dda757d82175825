"""The conformance check of views and of pairs of views."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy

import torch
from torch import Generator

from seqcl.augment import Pair, View
from seqcl.errors import UserError
from seqcl.testing.batches import copied, inside, random_batch, same, training_windows
from seqcl.types import PAD, SeqBatch, Windows

SEEDS = 5
"""Generator seeds that each batch is tried with."""


def check_view(
    view: View | Pair, *, num_items: int = 50, max_len: int = 20, seed: int = 0, times: bool = False
) -> None:
    """Check that a view, or each view of a pair, keeps the contract of `View`.

    The view itself is not changed: a copy of it is bound to, and prepared with, the training windows of a small log.

    Args:
        view: The view to check, with the options it is to have.
        num_items: Items of the log, N.
        max_len: Items of the longest row.
        seed: Seed of the log, the batches and the generators.
        times: Give the items times; a view with `times_needed` always gets them.

    Raises:
        AssertionError: names the rule that is broken.
    """
    times = times or view.times_needed
    train = training_windows(num_items=num_items, max_len=max_len, seed=seed, times=times)
    view = deepcopy(view)
    (view if isinstance(view, Pair) else Pair(views=[view])).prepare(train)
    lengths = [length for length in range(1, max_len + 1) for _ in range(2)]
    every = batch_for(train, lengths, seed=seed)
    for number in range(SEEDS):
        check_result(view, every, train, seed + number)
    for some in ([1], [1, 1, 1], [max_len], [max_len, 1], [max_len] * 4):
        check_result(view, batch_for(train, some, seed=seed), train, seed)
    assert every.targets is not None
    check_result(view, every._replace(targets=torch.zeros_like(every.targets)), train, seed)
    check_bare(view, every, train, seed)
    check_randomness(view, every, seed)
    check_rows(view, every, train, seed)
    if view.neighbours_needed:
        shape, draws = (train.num_items + 2, view.neighbours_needed), Generator().manual_seed(seed)
        view.rebind(torch.randint(1, train.num_items + 1, shape, generator=draws))
        check_result(view, every, train, seed)


def batch_for(train: Windows, lengths: list[int], *, seed: int) -> SeqBatch:
    """Make random rows of the items and users of the training windows."""
    known = train.times is not None
    return random_batch(lengths, num_items=train.num_items, num_users=train.num_users, times=known, seed=seed)


def views_of(view: View | Pair, batch: SeqBatch, seed: int) -> tuple[SeqBatch, ...]:
    """Call the view with a new generator; a pair makes two batches."""
    made = view(batch, Generator().manual_seed(seed))
    found = made if isinstance(view, Pair) else (made,)
    assert all(isinstance(one, SeqBatch) for one in found), f"a view must give a SeqBatch, not {type(made).__name__}"
    return found


def check_result(view: View | Pair, batch: SeqBatch, train: Windows, seed: int) -> None:
    """Check what the view makes of a batch, and that the batch stays as it was."""
    before = copied(batch)
    found = views_of(view, batch, seed)
    for name, old, new in zip(SeqBatch._fields, before, batch, strict=True):
        kept = old is None or (new is not None and torch.equal(old, new))
        assert kept, f"the view writes into the source: its {name} changed"
    for made in found:
        check_items(made, batch, train)
        check_users(view, made, batch, train)
        if batch.times is None:
            assert made.times is None, "the view makes up times for a batch that has none"
        else:
            check_times(made)
        width, longest = made.items.shape[1], int(made.lengths.max())
        trimmed = width == longest or isinstance(view, Pair)  # two views have one width
        assert trimmed, f"padding must be trimmed: the width is {width}, the longest row has {longest} items"


def check_items(made: SeqBatch, batch: SeqBatch, train: Windows) -> None:
    """Check items, lengths and targets: one row for each row, right-padded."""
    rows, token = len(batch.lengths), train.num_items + 1
    assert made.targets is None, "the view must drop the targets: they no longer fit its items"
    assert made.items.dtype == made.lengths.dtype == torch.int64, "items and lengths must be int64"
    assert made.items.dim() == 2, f"items must be (B, L), not {tuple(made.items.shape)}"
    assert len(made.items) == rows, f"the view must give one row for each of {rows} rows, not {len(made.items)}"
    assert made.lengths.shape == (rows,), f"lengths must be ({rows},), not {tuple(made.lengths.shape)}"
    assert int(made.lengths.min()) >= 1, "a row must keep one item at least"
    longest = int(made.lengths.max())
    assert longest <= train.max_len, f"a row has {longest} items, more than the longest row, {train.max_len}"
    assert longest <= made.items.shape[1], f"a length is {longest}, and there are {made.items.shape[1]} columns"
    real = inside(made)
    items = made.items[real]
    valid = bool(((items >= 1) & (items <= token)).all())
    assert valid, f"ids inside a row must be 1 to {token}, the MASK token; {items.min()} to {items.max()} were found"
    assert bool((made.items[~real] == PAD).all()), "items behind the end of a row must be PAD"


def check_users(view: View | Pair, made: SeqBatch, batch: SeqBatch, train: Windows) -> None:
    """Check that users stay, or that a view which brings in other users' rows names those users."""
    if batch.users is None:
        assert made.users is None, "the view makes up users for a batch that has none"
        return
    assert made.users is not None, "the view must keep the users"
    assert made.users.shape == batch.users.shape, f"users must be {tuple(batch.users.shape)}"
    if view.keeps_users:
        kept = torch.equal(made.users, batch.users)
        assert kept, "users must stay in their order; a view that brings in other users' rows sets keeps_users = False"
    known = bool(((made.users >= 0) & (made.users < train.num_users)).all())
    assert known, f"users must be 0 to {train.num_users - 1}"


def check_times(made: SeqBatch) -> None:
    """Check that times stay and ascend within each row."""
    assert made.times is not None, "the view must keep the times"
    assert made.times.dtype == torch.float64, f"times must be float64, not {made.times.dtype}"
    assert made.times.shape == made.items.shape, f"times must have the shape of the items, {tuple(made.items.shape)}"
    real = inside(made)
    assert bool((made.times.diff(dim=1)[real[:, 1:]] >= 0).all()), "times must ascend within a row"
    assert bool((made.times[~real] == 0).all()), "times behind the end of a row must be 0"


def check_bare(view: View | Pair, batch: SeqBatch, train: Windows, seed: int) -> None:
    """Check that a batch of items alone works, or is refused with a UserError."""
    with suppress(UserError):  # the view needs targets, users or times, and says so
        check_result(view, SeqBatch(batch.items, batch.lengths), train, seed)


def check_randomness(view: View | Pair, batch: SeqBatch, seed: int) -> None:
    """Check that the generator given, and nothing else, decides what is drawn."""
    before = torch.get_rng_state()
    found = [views_of(view, batch, seed) for _ in range(3)]
    untouched = torch.equal(before, torch.get_rng_state())
    assert untouched, "the view draws from torch's global generator: it must draw from the one it is given"
    for again in found[1:]:
        equal = all(same(one, two) for one, two in zip(found[0], again, strict=True))
        assert equal, "two generators of one seed gave two results: all draws must come from the generator given"


def check_rows(view: View | Pair, batch: SeqBatch, train: Windows, seed: int) -> None:
    """Check that rows stay in their order: if another row's items change anything, they change that row."""
    first = views_of(view, batch, seed)
    for row, length in enumerate(batch.lengths.tolist()):
        items = batch.items.clone()
        items[row, :length] = items[row, :length] % train.num_items + 1
        for one, two in zip(first, views_of(view, batch._replace(items=items), seed), strict=True):
            moved = [number for number, (a, b) in enumerate(zip(rows_of(one), rows_of(two), strict=True)) if a != b]
            assert not moved or row in moved, f"rows must stay in their order: items of row {row} came out at {moved}"


def rows_of(batch: SeqBatch) -> list[list[int]]:
    """List the items of each row, without padding."""
    return [row[:length] for row, length in zip(batch.items.tolist(), batch.lengths.tolist(), strict=True)]
