"""NARM: a gated recurrent network and attention over what it has read (Li et al., CIKM 2017, arXiv 1711.04725)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl.encoders.dropout import Dropout
from seqcl.encoders.gru import recur
from seqcl.encoders.layout import Layout
from seqcl.encoders.table import ItemTable, at_least_one
from seqcl.types import SeqBatch


class NARM(nn.Module):
    """What a GRU says at t, beside what it said up to t by attention: a function of items 0..t alone.

    Differs from the paper: one GRU serves as global and as local encoder; the weights of the attention are a softmax, so that
    the sum does not grow with the row; every position of a row learns, not its newest alone.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items; any length works, the value is kept for exports.
        dim: width D of states and item embeddings, and of the attention (paper 50).
        layers: number of stacked GRU layers.
        hidden: width of the GRU as a multiple of dim (paper 2).
        dropout: share of embeddings, of outputs between layers, and of what is mapped to the state, dropped in training
            (paper 0.25 and 0.5).
    """

    one_pass = True

    def __init__(
        self, *, num_items: int, max_len: int, dim: int = 64, layers: int = 1, hidden: int = 2, dropout: float = 0.3
    ) -> None:
        super().__init__()
        at_least_one(dim=dim, layers=layers, hidden=hidden)
        self.num_items, self.max_len, self.dim = num_items, max_len, dim
        self.table = ItemTable(num_items, dim)
        self.gru = nn.GRU(dim, hidden * dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.attention = AdditiveAttention(hidden * dim, dim)
        self.output = nn.Linear(2 * hidden * dim, dim, bias=False)
        self.dropout = Dropout(dropout)

    def item_embeddings(self) -> Tensor:
        """The tied table (N + 2, D)."""
        return self.table.weight

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D)."""
        layout = Layout(batch)
        hidden = layout.take(recur(self.gru, batch, self.table, self.dropout)[0])  # (S, hidden * D)
        by_block = hidden.unflatten(0, layout.blocks)  # (n, W, hidden * D)
        local = self.attention(by_block, by_block, layout.visible).flatten(0, 1)  # (S, hidden * D)
        return layout.put(self.join(hidden, local))

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D); one query a row."""
        hidden, newest = recur(self.gru, batch, self.table, self.dropout)  # (B, L, hidden * D), (B, hidden * D)
        visible = torch.arange(hidden.shape[1], device=hidden.device) < batch.lengths[:, None]  # (B, L)
        local = self.attention(newest[:, None], hidden, visible[:, None])[:, 0]  # (B, hidden * D)
        return self.join(newest, local)

    def join(self, whole: Tensor, local: Tensor) -> Tensor:
        """The map of both halves to the width of the items: (..., D)."""
        return self.output(self.dropout(torch.cat((whole, local), -1)))


class AdditiveAttention(nn.Module):
    """A mean of values weighted by v' sigmoid(A1 query + A2 value) (the local encoder of arXiv 1711.04725, with a softmax)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(hidden, width, bias=False), nn.Linear(hidden, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, query: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """From query (n, Q, H) and value (n, W, H) to (n, Q, H), of the values that are visible (n, Q, W)."""
        # A vector for each pair: W times the memory of the values, which is what packed rows keep small.
        pairs = torch.sigmoid(self.query(query)[:, :, None] + self.key(value)[:, None])  # (n, Q, W, D)
        scores = self.score(pairs)[..., 0].masked_fill(~visible, -torch.inf)  # (n, Q, W)
        return scores.softmax(-1) @ value
