"""GRU4Rec: a gated recurrent network over the items of a row (Hidasi et al., ICLR 2016, arXiv 1511.06939)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seqcl.encoders.dropout import Dropout
from seqcl.encoders.table import ItemTable, at_least_one
from seqcl.types import SeqBatch


class GRU(nn.Module):
    """A GRU whose state at t is a function of items 0..t alone.

    Differs from the paper: rows of users instead of parallel sessions, and item embeddings tied to the scores.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items; any length works, the value is kept for exports.
        dim: width D of states and item embeddings.
        layers: number of stacked GRU layers.
        hidden: width of the GRU as a multiple of dim.
        dropout: share of embeddings, and of outputs between layers, dropped in training.
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
        self.output = nn.Linear(hidden * dim, dim)
        self.dropout = Dropout(dropout)

    def item_embeddings(self) -> Tensor:
        """The tied table (N + 2, D)."""
        return self.table.weight

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D)."""
        return recur(self.gru, batch, self.table, self.dropout, then=self.output)[0]

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D)."""
        return self.output(recur(self.gru, batch, self.table, self.dropout)[1])


def recur(
    gru: nn.GRU, batch: SeqBatch, table: ItemTable, dropout: Dropout, then: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """What a GRU says at every position, mapped by `then` (B, L, ...), and at the newest (B, H); undefined at padding.

    Padding is left out, for which the lengths are read back from a GPU, once a batch; not so in an export.
    """
    if torch.compiler.is_compiling():
        states = gru(dropout(table(batch.items)))[0]  # (B, L, H)
        newest = states[torch.arange(states.shape[0], device=states.device), batch.lengths - 1]
        return then(states) if then else states, newest
    items = pack_padded_sequence(batch.items, batch.lengths.cpu(), batch_first=True, enforce_sorted=False)
    found: PackedSequence
    found, newest = gru(items._replace(data=dropout(table(items.data))))
    found = found._replace(data=then(found.data)) if then else found
    return pad_packed_sequence(found, batch_first=True, total_length=batch.items.shape[1])[0], newest[-1]
