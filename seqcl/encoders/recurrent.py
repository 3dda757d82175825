"""The base class of encoders around a GRU, which skips padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seqcl.encoders.base import TableEncoder
from seqcl.encoders.dropout import Dropout
from seqcl.encoders.gate import gate_of
from seqcl.encoders.table import at_least_one
from seqcl.types import SeqBatch


class RecurrentEncoder(TableEncoder):
    """An item table and a GRU of width H = hidden * D; a subclass maps its outputs to states.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items; any length works, the value is kept for exports.
        dim: width D of states and item embeddings.
        layers: number of stacked GRU layers.
        hidden: width of the GRU as a multiple of dim.
        dropout: share of embeddings, and of outputs between layers, dropped in training.
        gate: channels for each unit of a gate that weighs the channels of the outputs (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.
    """

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int,
        layers: int,
        hidden: int,
        dropout: float,
        gate: int,
        kernels: int,
    ) -> None:
        at_least_one(layers=layers, hidden=hidden)
        super().__init__(num_items=num_items, max_len=max_len, dim=dim)
        self.gru = nn.GRU(dim, hidden * dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = Dropout(dropout)
        self.gate = gate_of(hidden * dim, gate, kernels)

    def recur(self, batch: SeqBatch, then: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """Outputs at every position, mapped by `then` (B, L, ...), and at the newest one (B, H); undefined at padding.

        Padding is skipped, so a GPU sends the lengths back once a batch; an export does not skip it.
        """
        if torch.compiler.is_compiling():
            states = self.gru(self.dropout(self.table(batch.items)))[0]  # (B, L, H)
            return self.read(states, batch, then)
        items = pack_padded_sequence(batch.items, batch.lengths.cpu(), batch_first=True, enforce_sorted=False)
        found: PackedSequence
        found, newest = self.gru(items._replace(data=self.dropout(self.table(items.data))))
        length = batch.items.shape[1]
        if self.gate is not None:
            return self.read(pad_packed_sequence(found, batch_first=True, total_length=length)[0], batch, then)
        found = found._replace(data=then(found.data)) if then else found
        return pad_packed_sequence(found, batch_first=True, total_length=length)[0], newest[-1]

    def read(self, states: Tensor, batch: SeqBatch, then: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Give what `recur` gives, from outputs (B, L, H) with padding, through the gate if there is one."""
        if self.gate is not None:
            length = states.shape[1]
            states = self.gate(states, torch.ones(length, length, dtype=torch.bool, device=states.device).tril())
        newest = states[torch.arange(states.shape[0], device=states.device), batch.lengths - 1]
        return then(states) if then else states, newest
