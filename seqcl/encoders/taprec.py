"""TapRec: self-attention beside a weighted sum of the newest places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        attention_dropout: share of the attention weights dropped in training.

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
        attention_dropout: float = 0.0,
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
            attention_dropout=attention_dropout,
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
        return _Filter.apply(x.unflatten(0, layout.blocks), self.weight, layout.owner).flatten(0, 1)


class _Filter(torch.autograd.Function):
    """The sum of x (n, W, D) and what stands before it in its row, weighed by weight (K, D), without a copy for every tap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, owner: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, owner)
        found = x * weight[0]
        for back in range(1, min(len(weight), x.shape[1])):
            found[:, back:].addcmul_(x[:, :-back] * weight[back], same_row(owner, back, found))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, owner = ctx.saved_tensors
        grad_x, grad_weight = grad.new_zeros(x.shape), torch.zeros_like(weight)
        for back in range(min(len(weight), x.shape[1]) - 1, 0, -1):
            here = grad[:, back:] * same_row(owner, back, grad)
            grad_x[:, :-back] += here * weight[back]
            grad_weight[back] = (here * x[:, :-back]).sum((0, 1))
        grad_weight[0] = (grad * x).sum((0, 1))
        return grad_x.add_(grad * weight[0]), grad_weight, None


def same_row(owner: Tensor, back: int, like: Tensor) -> Tensor:
    """1 where a place and the one so far before it are of the same row (n, W), else 0, as a type of number: (n, W - back, 1)."""
    return (owner[:, back:] == owner[:, :-back])[:, :, None].to(like.dtype)
