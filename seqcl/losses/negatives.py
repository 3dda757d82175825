"""Negatives: the items drawn for a loss, and the chance of each to be drawn."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from seqcl.errors import UserError, check_choice

Sampling = Literal["uniform", "popularity"]


class Negatives(nn.Module):
    """Draws items as negatives, uniformly or by their count in training plus one.

    Args:
        count: items to draw, K.
        shared: draw once for all positions of a batch, which is quicker; else each position draws its own.
        sampling: uniform, or popularity.

    Raises:
        UserError: an unknown sampling, or fewer than one item.
    """

    cumulative: Tensor
    log_q: Tensor

    def __init__(self, *, count: int, shared: bool = True, sampling: Sampling = "uniform") -> None:
        super().__init__()
        check_choice("sampling", sampling, Sampling)
        if count < 1:
            raise UserError(f"negatives must be 1 or more, not {count}")
        self.count, self.shared, self.sampling = count, shared, sampling
        self.register_buffer("cumulative", torch.empty(0, dtype=torch.float64), persistent=False)  # (N,)
        self.register_buffer("log_q", torch.empty(0), persistent=False)  # (N,)

    def bind(self, item_counts: np.ndarray | Tensor) -> None:
        """Take the chances from the counts of training.

        Args:
            item_counts: (N + 2,) how often each id occurs in training.
        """
        counts = torch.as_tensor(item_counts, dtype=torch.float64, device=self.cumulative.device)[1:-1] + 1  # (N,)
        self.cumulative = (counts / counts.sum()).cumsum(0)
        self.log_q = (counts / counts.sum()).log().float()

    def draw(self, items: int, positions: int, generator: Generator) -> Tensor:
        """Draw rows of the N candidates: (K,) if shared, else (T, K).

        Args:
            items: N.
            positions: T.
            generator: source of the draw; its device is that of the result.

        Raises:
            ValueError: `bind` was called with another number of items.
        """
        device = generator.device
        shape = (self.count,) if self.shared else (positions, self.count)
        if self.sampling == "uniform":
            return torch.randint(items, shape, generator=generator, device=device)
        if len(self.cumulative) != items:
            raise ValueError(f"negatives are bound to {len(self.cumulative)} items, not to {items}; call bind first")
        chance = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        return torch.searchsorted(self.cumulative, chance).clamp(max=items - 1)

    def log_chance(self, items: int, like: Tensor) -> Tensor:
        """Log of the chance of each item at each draw: (N,), on the device of `like` and at least as wide as float32."""
        if self.sampling == "popularity":
            return self.log_q
        wide = torch.promote_types(like.dtype, torch.float32)
        return torch.full((items,), -math.log(items), dtype=wide, device=like.device)
