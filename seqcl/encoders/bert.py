"""BERT4Rec: bidirectional self-attention that fills in masked items (Sun et al., CIKM 2019, arXiv 1904.06690)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.encoders.sasrec import SASRec
from seqcl.types import PAD, SeqBatch


class BERT4Rec(SASRec):
    """Self-attention to the whole row: the state at a MASK predicts the item that belongs there.

    Places are counted from the end of the row. The MASK behind the newest item then always stands at place 0, and every
    row trains the places before it. Counted from the start, that MASK would stand at a different place for each length;
    few rows would train the last places.
    Differs from the paper: that count; states are compared with the item embeddings themselves, without a projection and
    without a bias for each item.

    Args:
        num_items: N, ids 1..N; the MASK is N + 1.
        max_len: longest row, in items and MASK together.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.
        dropout: share of embedding and block outputs dropped in training.
        hidden: width of the feed-forward part as a multiple of dim.
        gate: channels for each unit of a gate that weighs the channels of each block's output (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.
        attention_dropout: share of the attention weights dropped in training.

    Raises:
        UserError: a size below 1, heads that do not divide dim, or a row is longer than max_len.
    """

    one_pass = False
    causal = False
    both_ways = False  # it is so always, not for a while

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
        gate: int = 0,
        kernels: int = 1,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            num_items=num_items,
            max_len=max_len,
            dim=dim,
            layers=layers,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
            norm="post",
            positions="end",
            activation="gelu",
            gate=gate,
            kernels=kernels,
            attention_dropout=attention_dropout,
        )

    def last(self, batch: SeqBatch) -> Tensor:
        """States of a MASK behind the newest items: (B, D); the last block works for that place alone."""
        return super().last(self.with_mask(batch))

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        """States of that MASK after each block: (B, layers, D)."""
        return super().by_block(self.with_mask(batch), overlap=overlap)

    def with_mask(self, batch: SeqBatch) -> SeqBatch:
        """The rows with a MASK behind them; a full row loses its oldest item."""
        self.check_length(batch)
        length = batch.items.shape[1]
        items = F.pad(batch.items, (0, 1), value=PAD)  # (B, L + 1)
        items = items.scatter(1, batch.lengths[:, None], self.num_items + 1)
        lengths = (batch.lengths + 1).clamp(max=self.max_len)  # (B,)
        lost = batch.lengths + 1 - lengths  # (B,), 1 or 0
        time = torch.arange(min(length + 1, self.max_len), device=items.device)
        return SeqBatch(items.gather(1, lost[:, None] + time), lengths, users=batch.users)
