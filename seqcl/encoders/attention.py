"""Multi-head attention, for all positions of a row or for its newest one alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.dropout import Dropout
from seqcl.encoders.layout import Layout
from seqcl.shapes import fixed

PIECE_BYTES = 2 * 2**20
"""Weights of a piece of the blocks, in bytes: what a core keeps in its second-level cache, about."""
WHOLE_BYTES = 8 * 2**20
"""Weights that are worked out at once all the same: below this, pieces win little."""


class Attention(nn.Module):
    """Multi-head attention to the places that the layout shows (Vaswani et al., arXiv 1706.03762).

    Args:
        dim: width D of what comes in and out.
        heads: attention heads H; they divide D.
        dropout: share of the weights dropped in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.query, self.key_value, self.output = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.dropout = Dropout(dropout, "encoder.attention_dropout")

    def forward(self, x: Tensor, layout: Layout, newest: bool = False, *, known: Tensor | None = None) -> Tensor:
        """From slots x (S, D) to (S, D), or to (B, D) for the newest item of each row alone; keys and values are of `known`, else of x."""
        key, value = (
            split(part, layout.blocks, self.heads)
            for part in self.key_value(x if known is None else known).chunk(2, dim=-1)
        )  # (n, H, W, D / H)
        if not newest:
            return self.output(join(self.read(split(self.query(x), layout.blocks, self.heads), key, value, layout)))
        asking = layout.ask(self.query(x[layout.newest]))  # (n, Q, D)
        query = split(asking.flatten(0, 1), layout.queries, self.heads)  # (n, H, Q, D / H)
        read = join(self.read_newest(query, key, value, layout))  # (n * Q, D)
        return self.output(read.index_select(0, layout.asking))

    def read(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        return self.attend(query, key, value, layout.visible[:, None])

    def read_newest(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        return self.attend(query, key, value, layout.visible_newest[:, None])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Read value by query and key (n, H, W, D / H); the mask (n, 1, Q, W) has False where nothing is seen, or is added to the scores."""
        if not self.training or self.dropout.rate == 0:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        if mask.dtype == torch.bool:
            mask = as_scores(mask, query.dtype)
        scores = query / math.sqrt(self.width) @ key.transpose(-1, -2) + mask
        return self.dropout(scores.softmax(-1)) @ value


class RelativeAttention(Attention):
    """Attention whose keys and values carry a learned vector for the distance (Shaw et al., arXiv 1803.02155, eq. 3 and 4).

    Where a place sees what comes after it, the same vectors stand for the distances ahead.
    """

    def __init__(self, dim: int, heads: int, distances: int, dropout: float = 0.0) -> None:
        super().__init__(dim, heads, dropout)
        self.far_key = nn.Parameter(torch.randn(heads, distances, self.width) * 0.02)
        self.far_value = nn.Parameter(torch.randn(heads, distances, self.width) * 0.02)

    def read(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Long rows go piece by piece, so that their weights stay in the cache."""
        size = blocks_at_once(query)
        if size >= query.shape[0]:  # len() would fix the number of rows in an export
            return self.read_blocks(query, key, value, layout.visible, layout.causal)
        pieces = zip(query.split(size), key.split(size), value.split(size), layout.visible.split(size), strict=True)
        return torch.cat([self.read_blocks(*piece, layout.causal) for piece in pieces])

    def read_blocks(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor, causal: bool) -> Tensor:
        """From query, key and value (n, H, W, D / H) to what is read, of the same shape."""
        length = query.shape[2]
        query = query / math.sqrt(self.width)
        far_key = self.far_key[:, :length].flip(1)  # (H, W, D / H), the longest distance first
        far_value = self.far_value[:, :length].flip(1)
        far = query @ far_key.transpose(-1, -2)  # (n, H, W, W), by distance
        near = align(far) if causal else align(far).tril() + turn(align(far.flip(-2))).triu(1)
        scores = query @ key.transpose(-1, -2) + near  # (n, H, W, W)
        scores += as_scores(visible, scores.dtype)[:, None]
        weights = self.dropout(scores.softmax(-1))
        if causal:
            return weights @ value + unalign(weights) @ far_value
        behind, ahead = unalign(weights.tril()), unalign(turn(weights.triu(1))).flip(-2)
        return weights @ value + (behind + ahead) @ far_value

    def read_newest(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        length = key.shape[2]
        query = query / math.sqrt(self.width)
        behind = layout.behind[:, None]  # (n, 1, Q, W)
        # The same index turns distances into places and places into distances.
        mirror = behind.clamp(min=0).expand(-1, self.heads, -1, -1)
        hidden = ~layout.visible_newest[:, None]
        far = (query @ self.far_key[:, :length].transpose(-1, -2)).gather(-1, mirror)  # (n, H, Q, W)
        weights = (query @ key.transpose(-1, -2) + far).masked_fill(hidden, -torch.inf).softmax(-1)
        weights = self.dropout(weights)
        by_distance = weights.gather(-1, mirror).masked_fill(behind < 0, 0)
        return weights @ value + by_distance @ self.far_value[:, :length]


def blocks_at_once(query: Tensor) -> int:
    """Number of blocks of query (n, H, W, D / H) whose weights are worked out together: all but on a CPU with long rows."""
    blocks, heads, width, _ = query.shape
    if query.device.type != "cpu" or torch.compiler.is_compiling() or fixed():
        return blocks
    each = heads * width * width * query.element_size()
    return blocks if blocks * each <= WHOLE_BYTES else max(1, PIECE_BYTES // each)


def as_scores(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a place is visible, minus infinity elsewhere: adding is cheaper than filling."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -torch.inf)


def split(x: Tensor, shape: tuple[int, int], heads: int) -> Tensor:
    """(n * L, D) by blocks and heads: (n, H, L, D / H)."""
    return x.unflatten(0, shape).unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    """The inverse of `split`."""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


def turn(x: Tensor) -> Tensor:
    """Both places in reverse order, so that what was ahead is behind: the last two dimensions are (L, L)."""
    return x.flip(-2, -1)


def align(x: Tensor) -> Tensor:
    """From x[i, L - 1 - d] by distance to y[i, i - d] by place, in the last two dimensions (L, L); undefined above the diagonal."""
    length = x.shape[-1]
    return F.pad(x, (1, 0)).flatten(-2)[..., length:].unflatten(-1, (length, length))


def unalign(x: Tensor) -> Tensor:
    """The inverse of `align`, for x that is zero above the diagonal."""
    length = x.shape[-1]
    return F.pad(x.flatten(-2), (length, 0)).unflatten(-1, (length, length + 1))[..., 1:]
