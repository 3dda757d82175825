"""Causal multi-head attention, for all positions of a row or for its newest one alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.layout import Layout


class Attention(nn.Module):
    """Multi-head attention to oneself and what came before (Vaswani et al., arXiv 1706.03762)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.query, self.key_value, self.output = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots x (S, D) to (S, D), or to (B, D) for the newest item of each row alone."""
        if newest:
            asking = self.query(x[layout.newest])[:, None].split([rows for rows, _ in layout.groups])
        else:
            asking = layout.blocks(self.query(x))
        reads = []
        for query, both, lengths in zip(asking, layout.blocks(self.key_value(x)), layout.lengths, strict=True):
            key, value = (self.split(part) for part in both.chunk(2, dim=-1))  # (R, H, L, D / H)
            query = self.split(query)  # (R, H, Q, D / H)
            read = self.read_newest(query, key, value, lengths - 1) if newest else self.read(query, key, value)
            reads.append(read.transpose(1, 2).flatten(2).flatten(0, 1))
        return self.output(torch.cat(reads))

    def split(self, x: Tensor) -> Tensor:
        """(R, L, D) by heads: (R, H, L, D / H)."""
        return x.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    def read_newest(self, query: Tensor, key: Tensor, value: Tensor, newest: Tensor) -> Tensor:
        seen = newest[:, None] >= torch.arange(key.shape[2], device=key.device)  # (R, L)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])


class RelativeAttention(Attention):
    """Attention whose keys and values carry a learned vector for the distance (Shaw et al., arXiv 1803.02155, eq. 3 and 4)."""

    def __init__(self, dim: int, heads: int, distances: int) -> None:
        super().__init__(dim, heads)
        self.far_key = nn.Parameter(torch.randn(heads, distances, self.width) * 0.02)
        self.far_value = nn.Parameter(torch.randn(heads, distances, self.width) * 0.02)

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        length = query.shape[2]
        query = query / math.sqrt(self.width)
        far_key = self.far_key[:, :length].flip(1)  # (H, L, D / H), the longest distance first
        scores = query @ key.transpose(-1, -2) + align(query @ far_key.transpose(-1, -2))  # (R, H, L, L)
        future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        return weights @ value + unalign(weights) @ self.far_value[:, :length].flip(1)

    def read_newest(self, query: Tensor, key: Tensor, value: Tensor, newest: Tensor) -> Tensor:
        length = key.shape[2]
        query = query / math.sqrt(self.width)
        behind = newest[:, None] - torch.arange(length, device=query.device)  # (R, L), negative at padding
        # The same index turns distances into places and places into distances.
        mirror = behind.clamp(min=0)[:, None, None].expand(-1, self.heads, 1, -1)  # (R, H, 1, L)
        padding = (behind < 0)[:, None, None]
        far = (query @ self.far_key[:, :length].transpose(-1, -2)).gather(-1, mirror)  # (R, H, 1, L)
        weights = (query @ key.transpose(-1, -2) + far).masked_fill(padding, -torch.inf).softmax(-1)
        by_distance = weights.gather(-1, mirror).masked_fill(padding, 0)
        return weights @ value + by_distance @ self.far_value[:, :length]


def align(x: Tensor) -> Tensor:
    """From x[i, L - 1 - d] by distance to y[i, i - d] by place, in the last two dimensions (L, L); undefined above the diagonal."""
    length = x.shape[-1]
    return F.pad(x, (1, 0)).flatten(-2)[..., length:].unflatten(-1, (length, length))


def unalign(x: Tensor) -> Tensor:
    """The inverse of `align`, for x that is zero above the diagonal."""
    length = x.shape[-1]
    return F.pad(x.flatten(-2), (length, 0)).unflatten(-1, (length, length + 1))[..., 1:]
