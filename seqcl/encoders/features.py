"""Features of items or users as vectors, a column at a time, so that columns can be hidden."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from seqcl.types import Bag, Features


def words_of(offsets: Tensor, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """All words of rows (n,) of a `Bag`: the row of each word among the n, and its number, (P,) each."""
    first = offsets[rows]  # (n,)
    sizes = offsets[rows + 1] - first  # (n,)
    owner = torch.repeat_interleave(sizes)  # (P,)
    before = (sizes.cumsum(0) - sizes)[owner]  # (P,), words of the rows before
    return owner, ids[first[owner] + torch.arange(len(owner), device=rows.device) - before]


class Words(nn.Module):
    """The mean of the embeddings of a row's words; zero for a row without any."""

    offsets: Tensor
    ids: Tensor

    def __init__(self, bag: Bag, dim: int) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.from_numpy(bag.offsets), persistent=False)  # (R + 1,)
        self.register_buffer("ids", torch.from_numpy(bag.ids), persistent=False)  # (E,)
        self.weight = nn.Parameter(torch.randn(len(bag.names), dim) * 0.02)
        self.place = {word: number for number, word in enumerate(bag.names)}

    def forward(self, rows: Tensor, drop: float = 0.0, generator: Generator | None = None) -> Tensor:
        """Vectors of rows (n,): (n, K); each word is left out with chance `drop`, except the last one of a row."""
        owner, words = words_of(self.offsets, self.ids, rows)  # (P,) each
        if drop:
            chance = torch.rand(len(owner), generator=generator, device=rows.device)
            best = torch.full(rows.shape, -1.0, device=rows.device).scatter_reduce(0, owner, chance, "amax")  # (n,)
            kept = ((chance >= drop) | (chance == best[owner])).nonzero()[:, 0]
            owner, words = owner[kept], words[kept]
        count = torch.bincount(owner, minlength=len(rows)).clamp(min=1)[:, None]  # (n, 1)
        vectors = F.embedding(words, self.weight)  # (P, K)
        return vectors.new_zeros(len(rows), vectors.shape[1]).index_add(0, owner, vectors) / count


class Numbers(nn.Module):
    """A linear map of a row's numbers; zero for a row without any."""

    values: Tensor

    def __init__(self, values: np.ndarray, dim: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.from_numpy(values).float(), persistent=False)  # (R, M)
        self.map = nn.Linear(self.values.shape[1], dim)

    def forward(self, rows: Tensor, drop: float = 0.0, generator: Generator | None = None) -> Tensor:
        """Vectors of rows (n,): (n, K)."""
        found = self.values[rows]  # (n, M)
        missing = found.isnan().any(1, keepdim=True)  # (n, 1)
        return self.map(found.masked_fill(missing, 0)).masked_fill(missing, 0)


class FeatureVectors(nn.Module):
    """A vector for each of F columns of each row.

    Args:
        features: columns of words, numbers and vectors.
        dim: width K of a column's vector.
        learned: a hidden column has a vector that is learned, rather than zero.
    """

    def __init__(self, features: Features, dim: int, *, learned: bool = False) -> None:
        super().__init__()
        made = [Words(bag, dim) for bag in features.bags.values()]
        wide = [values[:, None] for values in features.numbers.values()] + list(features.vectors.values())
        self.parts = nn.ModuleList([*made, *(Numbers(values, dim) for values in wide)])
        self.default = nn.Parameter(torch.randn(len(self.parts), dim) * 0.02) if learned else None  # (F, K)

    def forward(
        self, rows: Tensor, *, hidden: Tensor | None = None, drop: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        """Vectors of rows (n,): (n, F, K).

        Args:
            rows: numbers of rows.
            hidden: (n, F) bool, columns to hide: to set to zero, or to their learned default.
            drop: chance to leave out a word of a row with several.
            generator: source of that chance.
        """
        vectors = torch.stack([part(rows, drop, generator) for part in self.parts], 1)  # (n, F, K)
        if hidden is None:
            return vectors
        return torch.where(hidden[:, :, None], vectors.new_zeros(()) if self.default is None else self.default, vectors)
