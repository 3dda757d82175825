"""Item-based neighbourhood (Deshpande and Karypis, TOIS 2004) with inverse user frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.augment import item_cf_iuf
from seqcl.errors import UserError
from seqcl.models.base import Baseline
from seqcl.parts import Part, part
from seqcl.types import SeqBatch, Windows


def check_similarity(section: str, **options: int) -> None:
    """Refuse a number of neighbours, or of items at once, below 1.

    Raises:
        UserError: names the option of the section.
    """
    for name, value in options.items():
        if value < 1:
            raise UserError(f"{section}.{name} must be 1 or more, not {value}")


class ItemKNN(Baseline):
    """Items that co-occur with those of the row, ItemCF-IUF over the nearest neighbours (TOIS 2004)."""

    similarity = part(item_cf_iuf, top_k=100)

    neighbours: Tensor
    weights: Tensor

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        check_similarity("similarity", **self.parts["similarity"].options)
        users, items = train.known()
        neighbours, weights = self.parts["similarity"](users, items, train.num_items)
        itself = torch.arange(len(neighbours))[:, None] == torch.as_tensor(neighbours)  # (N + 2, K)
        self.register_buffer("neighbours", torch.as_tensor(neighbours))
        self.register_buffer("weights", torch.as_tensor(weights).float().masked_fill(itself, 0.0))

    def scores(self, batch: SeqBatch) -> Tensor:
        """Summed similarity to the items of the row: (B, N)."""
        near = self.neighbours[batch.items].flatten(1)  # (B, L * K)
        totals = torch.zeros(len(near), len(self.neighbours), device=near.device)  # (B, N + 2)
        return totals.scatter_add_(1, near, self.weights[batch.items].flatten(1))[:, 1:-1]
