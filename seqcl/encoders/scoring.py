"""Scoring: how a state and an item become a score."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.errors import check_choice, positive
from seqcl.types import Similarity


class Scoring(nn.Module):
    """Similarity of a state and an item over a temperature, plus a learned bias for each item if wanted.

    It gives both sides of an inner product: `queries` from states, and `candidates` from the item table. A bias is one more
    coordinate, so that an index by inner product serves too.

    Args:
        similarity: cosine, or dot product.
        temperature: divisor of the similarities; with cosine some 0.05 to 0.1.
        bias: learn a number for each item.

    Raises:
        UserError: an unknown similarity, or a temperature that is not above 0.
    """

    def __init__(self, *, similarity: Similarity = "dot", temperature: float = 1.0, bias: bool = False) -> None:
        super().__init__()
        check_choice("similarity", similarity, Similarity)
        positive("scoring", temperature=temperature)
        self.similarity, self.temperature, self.biased = similarity, temperature, bias
        self.register_parameter("bias", None)  # (N,)

    def extra_repr(self) -> str:
        return f"similarity={self.similarity}, temperature={self.temperature}, bias={self.biased}"

    def begin(self, item_counts: np.ndarray | Tensor) -> None:
        """Make the biases: half the log of an item's count in training plus one, less the mean.

        Args:
            item_counts: (N + 2,) how often each id occurs in training.
        """
        if self.biased:
            counts = torch.as_tensor(item_counts, dtype=torch.float64)[1:-1] + 1  # (N,)
            self.bias = nn.Parameter((0.5 * (counts.log() - counts.log().mean())).float())

    def queries(self, states: Tensor) -> Tensor:
        """The left side of the inner product: (..., D) -> (..., D), or (..., D + 1) with a bias."""
        if self.similarity == "cosine":
            states = F.normalize(states, dim=-1)
        states = states / self.temperature if self.temperature != 1 else states
        if not self.biased:
            return states
        # The item's last coordinate is its bias times the temperature: a bias alone there, as long as all other
        # coordinates together, would mislead graph indexes.
        return torch.cat((states, states.new_full((*states.shape[:-1], 1), 1 / self.temperature)), -1)

    def candidates(self, table: Tensor) -> Tensor:
        """The right side for items 1..N alone: (N + 2, D) -> (N, D), or (N, D + 1) with a bias."""
        return self.vectors(table[1:-1], self.bias)

    def vectors(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        """The right side for some items.

        Args:
            rows: (n, D) their rows of the table.
            bias: (n,) their biases, None without.
        """
        rows = F.normalize(rows, dim=-1) if self.similarity == "cosine" else rows
        return rows if bias is None else torch.cat((rows, self.temperature * bias[:, None].to(rows.dtype)), 1)
