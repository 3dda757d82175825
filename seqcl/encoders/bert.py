"""BERT4Rec: bidirectional self-attention that fills in masked items (Sun et al., CIKM 2019, arXiv 1904.06690)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.dropout import Dropout
from seqcl.encoders.layout import Layout
from seqcl.encoders.sasrec import Block
from seqcl.encoders.table import ItemTable, at_least_one
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch


class BERT4Rec(nn.Module):
    """Self-attention to the whole row: the state at a MASK predicts the item that belongs there.

    Places are counted from the end of the row: what follows the newest item then always stands at place 0, the items before
    it always at the same places, and every row trains these. Counted from the start, the MASK behind a row would stand at
    another place for each length, and behind the longest rows at one that few rows train.
    Differs from the paper: that count; states are compared with the items as they are, without a projection and a bias for
    each item.

    Args:
        num_items: N, ids 1..N; the MASK is N + 1.
        max_len: longest row, in items and MASK together.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.
        dropout: share of embedding and block outputs dropped in training.
        hidden: width of the feed-forward part as a multiple of dim.

    Raises:
        UserError: a size below 1, heads that do not divide dim, or a row is longer than max_len.
    """

    one_pass = False
    causal = False

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        hidden: int = 4,
    ) -> None:
        super().__init__()
        at_least_one(dim=dim, layers=layers, heads=heads, hidden=hidden, max_len=max_len)
        if dim % heads:
            raise UserError(f"encoder.heads={heads} does not divide encoder.dim={dim}")
        self.num_items, self.max_len, self.dim = num_items, max_len, dim
        self.table = ItemTable(num_items, dim)
        self.place = nn.Parameter(torch.randn(max_len, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(dim, heads, hidden * dim, dropout, norm="post", activation="gelu", distances=0) for _ in range(layers)
        )
        self.edge_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def item_embeddings(self) -> Tensor:
        """The tied table (N + 2, D)."""
        return self.table.weight

    def forward(self, batch: SeqBatch) -> Tensor:
        """States at every position, of the row as it is: (B, L, D)."""
        layout = Layout(batch, causal=False)
        x = self.embed(batch, layout)  # (S, D)
        for block in self.blocks:
            x = block(x, layout)
        return layout.put(x)

    def last(self, batch: SeqBatch) -> Tensor:
        """States of a MASK behind the newest items: (B, D); the last block does its work for that alone."""
        batch = self.with_mask(batch)
        layout = Layout(batch, causal=False)
        x = self.embed(batch, layout)  # (S, D)
        for block in self.blocks[:-1]:
            x = block(x, layout)
        return self.blocks[-1](x, layout, newest=True)

    def with_mask(self, batch: SeqBatch) -> SeqBatch:
        """The rows with a MASK behind them; one that is full loses its oldest item."""
        self.check_width(batch)
        length = batch.items.shape[1]
        items = F.pad(batch.items, (0, 1), value=PAD)  # (B, L + 1)
        items = items.scatter(1, batch.lengths[:, None], self.num_items + 1)
        lengths = (batch.lengths + 1).clamp(max=self.max_len)  # (B,)
        lost = batch.lengths + 1 - lengths  # (B,), 1 or 0
        time = torch.arange(min(length + 1, self.max_len), device=items.device)
        return SeqBatch(items.gather(1, lost[:, None] + time), lengths, users=batch.users)

    def embed(self, batch: SeqBatch, layout: Layout) -> Tensor:
        """Item embeddings with their places: (S, D)."""
        self.check_width(batch)
        time = torch.arange(batch.items.shape[1], device=batch.items.device)
        place = (batch.lengths[:, None] - 1 - time).clamp(min=0)  # (B, L), 0 is the newest
        x = self.table(layout.take(batch.items)) + F.embedding(layout.take(place), self.place)
        return self.dropout(self.edge_norm(x))

    def check_width(self, batch: SeqBatch) -> None:
        length = batch.items.shape[1]
        if length > self.max_len:
            raise UserError(f"a row of {length} items is longer than the encoder's max_len={self.max_len}")
