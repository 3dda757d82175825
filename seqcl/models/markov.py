"""Markov chain of the first order: the newest item says what comes next."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from seqcl.errors import UserError
from seqcl.models.base import Baseline
from seqcl.parts import Part, part
from seqcl.types import SeqBatch, Windows


def transitions(train: Windows, *, backoff: float = 1.0) -> tuple[sparse.csr_array, np.ndarray]:
    """Estimate how likely an item follows another: (n_ij + backoff p_j) / (n_i + backoff), p being the shares of training.

    It is the mean of a multinomial under a Dirichlet prior (MacKay and Peto, 1995). Where n_i is 0, the shares are left.

    Args:
        train: the training windows.
        backoff: number of transitions that the shares count as much as.

    Returns:
        n_ij / (n_i + backoff), (N, N); and backoff / (n_i + backoff), (N,), the weight of the shares.

    Raises:
        UserError: backoff is not above 0.
    """
    check_transitions("next_items", backoff=backoff)
    users, items = train.known()
    here = np.flatnonzero(users[1:] == users[:-1])
    size = train.num_items
    counts = sparse.csr_array((np.ones(len(here)), (items[here] - 1, items[here + 1] - 1)), shape=(size, size))
    counts.sum_duplicates()
    rest = 1 / (counts.sum(1) + backoff)  # (N,)
    counts.data *= np.repeat(rest, np.diff(counts.indptr))
    return counts, backoff * rest


def check_transitions(section: str, *, backoff: float = 1.0) -> None:
    """Refuse options of `transitions`, without making anything.

    Raises:
        UserError: names the option of the section.
    """
    if not backoff > 0:
        raise UserError(f"{section}.backoff must be above 0, not {backoff}")


class Markov(Baseline):
    """Items by how often they follow the newest one, and by their share of training (Ludewig and Jannach 2018, arXiv 1803.09587)."""

    next_items = part(transitions)

    offsets: Tensor
    columns: Tensor
    values: Tensor
    rest: Tensor
    shares: Tensor

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        found, rest = self.parts["next_items"](train)
        counts = train.item_counts()[1:-1]
        self.register_buffer("offsets", torch.from_numpy(found.indptr.astype(np.int64)))  # (N + 1,)
        self.register_buffer("columns", torch.from_numpy(found.indices.astype(np.int64)))  # (E,)
        self.register_buffer("values", torch.from_numpy(found.data).float())  # (E,)
        self.register_buffer("rest", torch.from_numpy(rest).float())  # (N,)
        self.register_buffer("shares", torch.from_numpy(counts / max(counts.sum(), 1)).float())  # (N,)

    def scores(self, batch: SeqBatch) -> Tensor:
        """Chances of the next item: (B, N)."""
        newest = batch.items.gather(1, batch.lengths[:, None] - 1)[:, 0] - 1  # (B,)
        found = self.rest[newest, None] * self.shares  # (B, N)
        begin, sizes = self.offsets[newest], self.offsets[newest + 1] - self.offsets[newest]
        row = torch.arange(len(newest), device=newest.device).repeat_interleave(sizes)  # (n,)
        place = torch.arange(len(row), device=row.device) + (begin - (sizes.cumsum(0) - sizes))[row]
        return found.index_put((row, self.columns[place]), self.values[place], accumulate=True)
