"""SASRec: self-attention over the items of a row (Kang and McAuley, ICDM 2018, arXiv 1808.09781)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.attention import Attention, RelativeAttention
from seqcl.encoders.blocks import BlockEncoder
from seqcl.encoders.dropout import Dropout
from seqcl.encoders.gate import gated
from seqcl.encoders.layout import Layout
from seqcl.encoders.table import at_least_one
from seqcl.errors import check_choice, positive
from seqcl.types import SeqBatch

Activation = Literal["gelu", "relu"]
Norm = Literal["pre", "post", "query"]
Positions = Literal["start", "end", "relative"]


class SASRec(BlockEncoder):
    """Causal self-attention: the state at t reads items 0..t alone.

    Positions counted from the end also tell the state how many items follow. With `causal` set to False, as pre-training
    may do for a while, each state reads the whole row.
    Differs from the paper: by default a block is that of BERT, with its norm after each sub-layer, GELU and a wide feed-forward
    part, and positions are relative; `norm` pre, `activation` relu, `hidden` 1 and `positions` end are the paper's, and `scaled` and
    `attention_dropout` are the authors' code's. That code adds the normalised queries to what attention reads, this one, as the
    paper, its input.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.
        dropout: share of embedding and block outputs dropped in training (paper 0.5 on sparse data, 0.2 on ml-1m).
        norm: pre, layer norm before each sub-layer and once at the end; post, after each and on the embeddings; query, of the
            queries alone, of what then goes into and past the feed-forward part, and once at the end; what attention reads
            is not dropped then, the inside of the feed-forward part is (arXiv 2402.06216's code).
        positions: relative, learned vectors for distances in keys and values (arXiv 1803.02155); start or end, learned
            vectors added to the items, counted from that side of the row. The paper pads in front, which is end. With end,
            one pass over a row tells each state how many items follow it; one window a row avoids that.
        activation: non-linearity of the feed-forward part (paper relu).
        hidden: width of the feed-forward part as a multiple of dim (paper 1).
        norm_eps: added to the variance in every layer norm; 1e-12 in BERT and the code that follows it.
        gate: channels for each unit of a gate that weighs the channels of each block's output (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.
        scaled: multiply item embeddings by the root of D before their places are added, so that they count for more beside these and
            learn faster; the items that are ranked stay as they are.
        attention_dropout: share of the attention weights dropped in training (the authors' code: as dropout).

    Raises:
        UserError: a size below 1, a norm_eps that is not above 0, a share that is not from 0 to below 1, heads that do not divide dim,
            or a row is longer than max_len.
    """

    both_ways = True

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        norm: Norm = "post",
        positions: Positions = "relative",
        activation: Activation = "gelu",
        hidden: int = 4,
        norm_eps: float = 1e-5,
        gate: int = 0,
        kernels: int = 1,
        scaled: bool = False,
        attention_dropout: float = 0.0,
    ) -> None:
        at_least_one(hidden=hidden)
        positive("encoder", norm_eps=norm_eps)
        check_choice("encoder.positions", positions, Positions)
        check_choice("encoder.norm", norm, Norm)
        check_choice("encoder.activation", activation, Activation)
        super().__init__(num_items=num_items, max_len=max_len, dim=dim, layers=layers, heads=heads)
        self.positions, self.norm, self.scaled = positions, norm, scaled
        self.place = None if positions == "relative" else nn.Parameter(torch.randn(max_len, dim) * 0.02)
        distances = max_len if positions == "relative" else 0
        block = QueryBlock if norm == "query" else Block
        self.blocks = nn.ModuleList(
            block(dim, heads, hidden * dim, dropout, norm, activation, distances, attention_dropout)
            for _ in range(layers)
        )
        self.edge_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        for part in self.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = norm_eps
        self.blocks = gated(self.blocks, dim, gate, kernels)

    def embed(self, batch: SeqBatch, layout: Layout) -> Tensor:
        """Item embeddings with their places: (S, D)."""
        self.check_length(batch)
        x = self.table(layout.take(batch.items))
        if self.scaled:
            x = x * math.sqrt(self.dim)
        if self.place is not None:
            time = torch.arange(batch.items.shape[1], device=x.device)
            if self.positions == "start":
                place = time.expand_as(batch.items)  # (B, L)
            else:
                place = (batch.lengths[:, None] - 1 - time).clamp(min=0)  # (B, L), 0 is the newest
            x = x + F.embedding(layout.take(place), self.place)
        return self.dropout(self.edge_norm(x) if self.norm == "post" else x)

    def finish(self, x: Tensor) -> Tensor:
        """States from the last block's output: (..., D)."""
        return x if self.norm == "post" else self.edge_norm(x)


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, residual and layer norm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        dropout: float,
        norm: Norm,
        activation: Activation,
        distances: int,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention = (
            RelativeAttention(dim, heads, distances, attention_dropout)
            if distances
            else Attention(dim, heads, attention_dropout)
        )
        self.attention_norm, self.feed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.activation = F.gelu if activation == "gelu" else F.relu
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots (S, D) to slots, or to (B, D) at the newest item of each row."""
        source = self.attention_norm(x) if self.norm == "pre" else x
        read = self.dropout(self.attention(source, layout, newest))
        if newest:
            x = x[layout.newest]
        if self.norm == "pre":
            x = x + read
            return x + self.feed(self.feed_norm(x))
        x = self.attention_norm(x + read)
        return self.feed_norm(x + self.feed(x))

    def feed(self, x: Tensor) -> Tensor:
        return self.dropout(self.narrow(self.activation(self.widen(x))))


class QueryBlock(Block):
    """Attention of normalised queries to what comes in as it is, and feed-forward with a dropout inside, as in arXiv 2402.06216's code."""

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots (S, D) to slots, or to (B, D) at the newest item of each row; of attention, the weights alone are dropped."""
        read = self.attention(self.attention_norm(x), layout, newest, known=x)
        x = self.feed_norm((x[layout.newest] if newest else x) + read)
        return x + self.dropout(self.narrow(self.activation(self.dropout(self.widen(x)))))
