"""TapRec: self-attention beside a weighted sum of the newest places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.gate import gated
from seqcl.encoders.layout import Layout
from seqcl.encoders.sasrec import Positions, SASRec
from seqcl.encoders.table import at_least_one
from seqcl.errors import UserError


class TapRec(SASRec):
    """Causal self-attention and a causal filter, mixed in every block; states read what those of SASRec read.

    The filter is a weighted sum of a place and those before it, with weights (taps) of its own for every channel. It is no
    block of a paper: BSARec (arXiv 2312.10325), which mixes attention with a Fourier filter, gave the idea. That filter
    reads the whole row both ways; here all positions of a row can learn in one pass.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.
        dropout: share of embedding and block outputs dropped in training.
        positions: as in SASRec.
        hidden: width of the feed-forward part as a multiple of dim.
        taps: places that the filter weighs, its own being the newest.
        filtered: share of the filter in the output; the rest is attention.
        gate: channels for each unit of a gate that weighs the channels of each block's output (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.

    Raises:
        UserError: as `SASRec`, or `filtered` is not from 0 to 1.
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
        positions: Positions = "relative",
        hidden: int = 4,
        taps: int = 8,
        filtered: float = 0.5,
        gate: int = 0,
        kernels: int = 1,
    ) -> None:
        super().__init__(
            num_items=num_items,
            max_len=max_len,
            dim=dim,
            layers=layers,
            heads=heads,
            dropout=dropout,
            positions=positions,
            hidden=hidden,
        )
        at_least_one(taps=taps)
        if not 0 <= filtered <= 1:
            raise UserError(f"encoder.filtered must be from 0 to 1, not {filtered}")
        for block in self.blocks:
            assert isinstance(block.attention, nn.Module)
            block.attention = Mixed(block.attention, CausalFilter(dim, taps), filtered)
        self.blocks = gated(self.blocks, dim, gate, kernels)


class Mixed(nn.Module):
    """Attention and a filter over the same input, weighted 1 - filtered and filtered."""

    def __init__(self, attention: nn.Module, filter: nn.Module, filtered: float) -> None:
        super().__init__()
        self.attention, self.filter, self.filtered = attention, filter, filtered

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots x (S, D) to (S, D), or to (B, D) for the newest item of each row alone."""
        smooth = self.filter(x, layout)  # (S, D)
        if newest:
            smooth = smooth[layout.newest]
        return (1 - self.filtered) * self.attention(x, layout, newest) + self.filtered * smooth


class CausalFilter(nn.Module):
    """A weighted sum of a place and the `taps` - 1 before it in its row, with its own weights for every channel.

    The weights start as a low-pass filter: they fall by a factor of e every three places and sum to 1.
    """

    def __init__(self, dim: int, taps: int) -> None:
        super().__init__()
        fall = torch.exp(-torch.arange(taps) / 3)
        self.weight = nn.Parameter((fall / fall.sum())[:, None].repeat(1, dim))  # (K, D)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """From slots x (S, D) to (S, D)."""
        x, owner = x.unflatten(0, layout.blocks), layout.owner  # (n, W, D), (n, W)
        found = x * self.weight[0]
        for back in range(1, min(self.weight.shape[0], x.shape[1])):
            other = owner[:, back:] != owner[:, :-back]  # (n, W - back), True where the place is of another row
            before = (x[:, :-back] * self.weight[back]).masked_fill(other[:, :, None], 0)
            found = found + F.pad(before, (0, 0, back, 0))
        return found.flatten(0, 1)
