"""NARM: a gated recurrent network and attention over its outputs (Li et al., CIKM 2017, arXiv 1711.04725)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl.encoders.layout import Layout
from seqcl.encoders.recurrent import RecurrentEncoder
from seqcl.types import SeqBatch


class NARM(RecurrentEncoder):
    """A GRU's output at t, beside its attention to the outputs up to t: the state reads items 0..t alone.

    Differs from the paper: one GRU serves as global and as local encoder; attention weights are a softmax, so that the sum
    does not grow with the row; every position of a row learns, not its newest alone.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items; any length works, the value is kept for exports.
        dim: width D of states and item embeddings, and of the attention (paper 50).
        layers: number of stacked GRU layers.
        hidden: width of the GRU as a multiple of dim (paper 2).
        dropout: share of embeddings, of outputs between layers, and of the input of the last map, dropped in training
            (paper 0.25 and 0.5).
        gate: channels for each unit of a gate that weighs the channels of the GRU's outputs (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.
    """

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int = 64,
        layers: int = 1,
        hidden: int = 2,
        dropout: float = 0.3,
        gate: int = 0,
        kernels: int = 1,
    ) -> None:
        sizes = {"num_items": num_items, "max_len": max_len, "dim": dim, "layers": layers, "hidden": hidden}
        super().__init__(**sizes, dropout=dropout, gate=gate, kernels=kernels)
        self.attention = AdditiveAttention(hidden * dim, dim)
        self.output = nn.Linear(2 * hidden * dim, dim, bias=False)

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D)."""
        layout = Layout(batch)
        hidden = layout.take(self.recur(batch)[0])  # (S, H)
        by_block = hidden.unflatten(0, layout.blocks)  # (n, W, H)
        local = self.attention(by_block, by_block, layout.visible).flatten(0, 1)  # (S, H)
        return layout.put(self.join(hidden, local))

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D); attention has one query a row."""
        hidden, newest = self.recur(batch)  # (B, L, H), (B, H)
        visible = torch.arange(hidden.shape[1], device=hidden.device) < batch.lengths[:, None]  # (B, L)
        local = self.attention(newest[:, None], hidden, visible[:, None])[:, 0]  # (B, H)
        return self.join(newest, local)

    def join(self, whole: Tensor, local: Tensor) -> Tensor:
        """Map both halves to the width of the items: (..., D)."""
        return self.output(self.dropout(torch.cat((whole, local), -1)))


class AdditiveAttention(nn.Module):
    """A mean of values weighted by v' sigmoid(A1 query + A2 value) (the local encoder of arXiv 1711.04725, with a softmax)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(hidden, width, bias=False), nn.Linear(hidden, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, query: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """From query (n, Q, H) and value (n, W, H) to (n, Q, H), of the values that are visible (n, Q, W)."""
        # One vector for each pair takes W times the memory of the values; packed rows keep W small.
        pairs = torch.sigmoid(self.query(query)[:, :, None] + self.key(value)[:, None])  # (n, Q, W, D)
        scores = self.score(pairs)[..., 0].masked_fill(~visible, -torch.inf)  # (n, Q, W)
        return scores.softmax(-1) @ value
