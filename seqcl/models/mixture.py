"""Weights of memories, chosen on validation rows: each group of users is left out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqcl.blocks import exclude_
from seqcl.encoders import Memories
from seqcl.types import SeqBatch

GRID = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Weights that a memory can have."""

MIDDLE = 0.1
"""The weight with which candidates are found."""

CANDIDATES = 300
"""Best items of a row among which its target is ranked: on Beauty, NDCG@10 is then that among all, for every weight of the grid."""


Seen = Callable[[int, int], tuple[Tensor, Tensor]]
"""Rows, counted from the first, and columns that the validation rows [first, last) exclude, as the evaluator does: (P,), (P,)."""


class Ranks(NamedTuple):
    """The rank of each row's target under every mixture, and what the row belongs to."""

    ranks: np.ndarray  # (U, G)
    kinds: np.ndarray  # (U,)
    folds: np.ndarray  # (U,)


def mixtures(memories: int) -> Tensor:
    """All combinations of the weights of the grid: (G, K)."""
    return torch.tensor(list(product(GRID, repeat=memories)))


def ranks_of(
    batches: Iterable[SeqBatch], network: Callable[[SeqBatch], Tensor], memories: Memories, *, seen: Seen | None
) -> Ranks:
    """Rank each row's target under every mixture.

    Args:
        batches: validation rows, with targets (B,) and users.
        network: scores of items 1..N: (B, N).
        memories: the memories.
        seen: what is no candidate; None: all items are.
    """
    found, start = list[tuple[Tensor, Tensor, Tensor]](), 0
    for batch in batches:
        assert batch.targets is not None and batch.users is not None
        scores, bonus = network(batch).clone(), memories.features(batch)  # (B, N), (B, K, N)
        own = batch.targets[:, None] - 1  # (B, 1)
        if seen is not None:
            exclude_(scores, *seen(start, start + len(scores)))
            start += len(scores)
        near = (scores + MIDDLE * bonus.sum(1)).topk(min(CANDIDATES, scores.shape[1])).indices  # (B, C)
        columns = torch.cat((own, near), 1)
        scores = scores.gather(1, columns)  # (B, 1 + C)
        bonus = bonus.gather(2, columns[:, None].expand(-1, bonus.shape[1], -1))
        mixed = mixtures(bonus.shape[1]).to(bonus) @ bonus + scores[:, None]  # (B, G, 1 + C)
        ahead = (mixed[:, :, 1:] >= mixed[:, :, :1]) & (near != own)[:, None]
        found.append((1 + ahead.sum(2), memories.kinds_of(batch), batch.users % (len(memories.mixture) - 1)))
    return Ranks(*(torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True)))


def choose(found: Ranks, gain: Callable[[np.ndarray], np.ndarray], memories: Memories) -> None:
    """Give each fold the weights that gain most on all other users, and everybody those that gain most on all.

    Args:
        found: ranks of the targets.
        gain: what a rank is worth, such as 1 / log2(rank + 1) up to rank 10.
        memories: takes the weights.
    """
    gains, weights = gain(found.ranks), mixtures(memories.mixture.shape[2])  # (U, G), (G, K)
    for fold in range(len(memories.mixture)):
        for kind in range(memories.mixture.shape[1]):
            own = gains[(found.folds != fold) & (found.kinds == kind)]
            if len(own):
                memories.mixture[fold, kind] = weights[int(own.mean(0).argmax())]
