"""HSTU: pointwise attention with a gate, without softmax and feed-forward part (Zhai et al., ICML 2024, arXiv 2402.17152)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.attention import align, join, split
from seqcl.encoders.blocks import BlockEncoder
from seqcl.encoders.dropout import Dropout
from seqcl.encoders.gate import gated
from seqcl.encoders.layout import Layout
from seqcl.types import SeqBatch


class HSTU(BlockEncoder):
    """Pointwise attention over the items up to t: the state at t reads items 0..t alone.

    Differs from the paper: times are not read, so the bias depends on the distance in items alone; each head has its own
    bias; the layer norms have gains and offsets, where the authors' code has none; item embeddings are not multiplied by the
    root of D, and no position is added to them; a layer norm at the end lets scores be dot products as well as cosines.
    The bias is (heads, distances), so weight decay takes from it too.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items, and the n by which attention is divided.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.
        dropout: share of embeddings, and of each block's output before its last map, dropped in training.
        gate: channels for each unit of a gate that weighs the channels of each block's output (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.

    Raises:
        UserError: a size below 1, heads that do not divide dim, or a row is longer than max_len.
    """

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        gate: int = 0,
        kernels: int = 1,
    ) -> None:
        super().__init__(num_items=num_items, max_len=max_len, dim=dim, layers=layers, heads=heads)
        self.blocks = nn.ModuleList(Block(dim, heads, max_len, dropout) for _ in range(layers))
        self.blocks = gated(self.blocks, dim, gate, kernels)
        self.last_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def embed(self, batch: SeqBatch, layout: Layout) -> Tensor:
        """Item embeddings: (S, D); attention itself knows the distances between them."""
        self.check_length(batch)
        return self.dropout(self.table(layout.take(batch.items)))

    def finish(self, x: Tensor) -> Tensor:
        """States from the last block's output: (..., D)."""
        return self.last_norm(x)


class Block(nn.Module):
    """Projection, pointwise attention, gate and residual (arXiv 2402.17152, eq. 1 to 3)."""

    def __init__(self, dim: int, heads: int, distances: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.distances = heads, distances
        # Eq. 1 is split in two: the newest item alone may be a query, while keys and values are of the whole row.
        self.gate_query, self.key_value = nn.Linear(dim, 2 * dim), nn.Linear(dim, 2 * dim)
        self.far_bias = nn.Parameter(torch.randn(heads, distances) * 0.02)
        self.input_norm, self.read_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots (S, D) to slots, or to (B, D) at the newest item of each row."""
        source = self.input_norm(x)
        key, value = F.silu(self.key_value(source)).chunk(2, dim=-1)
        if newest:
            x, source = x[layout.newest], source[layout.newest]
        gate, query = F.silu(self.gate_query(source)).chunk(2, dim=-1)
        read = self.read(query, key, value, layout, newest)
        return x + self.output(self.dropout(self.read_norm(read) * gate))

    def read(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, newest: bool) -> Tensor:
        """SiLU(Q K' + bias) V / n over the places that a query may see: from (S, D) or (B, D) to the same shape."""
        if newest:
            query = split(layout.ask(query).flatten(0, 1), layout.queries, self.heads)  # (n, H, Q, D / H)
            bias = self.far_bias[:, layout.behind.clamp(min=0)].transpose(0, 1)  # (n, H, Q, W)
            visible = layout.visible_newest
        else:
            query, width = split(query, layout.blocks, self.heads), layout.blocks[1]  # (n, H, W, D / H)
            longest_first = self.far_bias[:, None, :width].flip(-1)  # (H, 1, W)
            bias = align(longest_first.expand(-1, width, -1))  # (H, W, W)
            visible = layout.visible
        key, value = split(key, layout.blocks, self.heads), split(value, layout.blocks, self.heads)
        weights = F.silu(query @ key.transpose(-1, -2) + bias) / self.distances
        read = join(weights.masked_fill(~visible[:, None], 0) @ value)
        return read.index_select(0, layout.asking) if newest else read
