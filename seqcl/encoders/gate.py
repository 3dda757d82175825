"""A gate that weighs the channels of what a block gives (SENet, Hu et al., CVPR 2018, arXiv 1709.01507)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl.encoders.layout import Layout
from seqcl.errors import not_negative


class ChannelGate(nn.Module):
    """Multiply each channel by sigmoid(W2 ReLU(W1 mean)), from the mean of all channels over the visible places.

    Source: SENet, arXiv 1709.01507, eq. 2 to 4, with biases as in its code. Differs from the paper: the mean is over the places
    that a state may read, so that of a causal encoder it is a running mean and no later item is seen. The gate weighs the
    residual path too, as it stands behind the whole block. A recurrent encoder has one gate, behind its last layer.

    Args:
        dim: number of channels.
        reduction: channels for each unit of the layer between; 16 in the paper.
    """

    def __init__(self, dim: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, dim // reduction)
        self.narrow, self.widen = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """From x (n, W, D) to the same shape; of place i those places count that are visible, (n, W, W) or (W, W) bool."""
        mean = visible.to(x.dtype) @ x / visible.sum(-1, keepdim=True).clamp(min=1)  # (n, W, D)
        return x * torch.sigmoid(self.widen(torch.relu(self.narrow(mean))))


class Gated(nn.Module):
    """A block over slots, and a gate over what it gives."""

    def __init__(self, block: nn.Module, dim: int, reduction: int) -> None:
        super().__init__()
        self.block, self.gate = block, ChannelGate(dim, reduction)

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots (S, D) to slots, or to (B, D) at the newest item of each row; the mean needs all slots of the block."""
        x = self.gate(self.block(x, layout).unflatten(0, layout.blocks), layout.visible).flatten(0, 1)
        return x[layout.newest] if newest else x


def gated(blocks: nn.ModuleList, dim: int, reduction: int) -> nn.ModuleList:
    """The blocks, each with a gate over its output; the same blocks where the reduction is 0.

    Raises:
        UserError: a reduction below 0.
    """
    not_negative("encoder", gate=reduction)
    return nn.ModuleList(Gated(block, dim, reduction) for block in blocks) if reduction else blocks
