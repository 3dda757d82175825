"""GRU4Rec: a gated recurrent network over the items of a row (Hidasi et al., ICLR 2016, arXiv 1511.06939)."""

from __future__ import annotations

from torch import Tensor, nn

from seqcl.encoders.recurrent import RecurrentEncoder
from seqcl.types import SeqBatch


class GRU(RecurrentEncoder):
    """A GRU: the state at t reads items 0..t alone.

    Differs from the paper: rows of users instead of parallel sessions; item embeddings are tied to the scores.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items; any length works, the value is kept for exports.
        dim: width D of states and item embeddings.
        layers: number of stacked GRU layers.
        hidden: width of the GRU as a multiple of dim.
        dropout: share of embeddings, and of outputs between layers, dropped in training.
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
        self.output = nn.Linear(hidden * dim, dim)

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D)."""
        return self.recur(batch, then=self.output)[0]

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D)."""
        return self.output(self.recur(batch)[1])
