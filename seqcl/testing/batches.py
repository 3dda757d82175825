"""Small training windows and random batches that checks start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from seqcl.data import leave_one_out, markov, pack
from seqcl.types import PAD, SeqBatch, Windows


def training_windows(*, num_items: int, max_len: int, seed: int, times: bool) -> Windows:
    """Make the training windows of a small log of a Markov chain with `num_items` items.

    Users have up to 1.5 * max_len interactions: some rows are longer than max_len and get cut.
    """
    users = max(100, 4 * num_items)  # enough for every item to occur
    log = markov(users=users, items=num_items, length=max(max_len, 6), branching=min(4, num_items), seed=seed)
    interactions = log.interactions if times else replace(log.interactions, times=None)
    return leave_one_out(pack(interactions), max_len=max_len).train


def random_batch(lengths: Sequence[int], *, num_items: int, num_users: int, times: bool, seed: int) -> SeqBatch:
    """Make rows of random items with a target at every position, and distinct users where there are enough.

    Args:
        lengths: (B,) items of each row.
        num_items: N; rows and targets hold ids 1 to N.
        num_users: U; users are 0 to U - 1.
        times: Give the items ascending times in seconds.
        seed: Seed of everything drawn.
    """
    generator = Generator().manual_seed(seed)
    count, width = torch.tensor(lengths), max(lengths)
    padding = torch.arange(width) >= count[:, None]  # (B, L)

    def items() -> Tensor:
        drawn = torch.randint(1, num_items + 1, padding.shape, generator=generator)
        return drawn.masked_fill(padding, PAD)

    users = torch.randperm(num_users, generator=generator).repeat(-(-len(lengths) // num_users))[: len(lengths)]
    clock = None
    if times:
        gaps = torch.randint(1, 100_000, padding.shape, generator=generator).double()  # seconds
        clock = (gaps.cumsum(1) + 1e9).masked_fill(padding, 0)
    return SeqBatch(items(), count, targets=items(), users=users, times=clock)


def copied(batch: SeqBatch) -> SeqBatch:
    """Copy a batch and all its tensors."""
    return SeqBatch._make(None if part is None else part.clone() for part in batch)


def same(one: SeqBatch, two: SeqBatch) -> bool:
    """Compare two batches: True if they have the same fields with the same shapes and values."""
    return all(
        second is None if first is None else second is not None and torch.equal(first, second)
        for first, second in zip(one, two, strict=True)
    )


def inside(batch: SeqBatch) -> Tensor:
    """Mark the real positions of a batch: (B, L) bool."""
    return torch.arange(batch.items.shape[1]) < batch.lengths[:, None]
