"""Gates over what a block gives: weigh its channels (SENet, arXiv 1709.01507), or choose between filters of several widths (SK, 1903.06586)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.layout import Layout
from seqcl.encoders.table import at_least_one
from seqcl.errors import UserError, not_negative

TAPS = 3
"""Places that each filter of a selective kernel weighs."""


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
        return x * torch.sigmoid(self.widen(torch.relu(self.narrow(visible_mean(x, visible)))))


class SelectiveKernel(nn.Module):
    """Filter x by several kernels, and choose between them softly, for each channel, by the visible mean of their sum.

    Kernel m weighs a place and those m and 2m before it in its row, with weights of its own for each channel. The choice is a
    softmax over the kernels of W_m ReLU(W mean), from the mean over the visible places. It begins near the plain x.

    Source: SK, arXiv 1903.06586, eq. 1 to 6. Differs from the paper: filters of one channel each that look back alone, so that
    no later item is seen; a mean as in `ChannelGate`; no batch norm, which would count padding, no least width of the layer between;
    it stands behind a whole block instead of within it.

    Args:
        dim: number of channels.
        reduction: channels for each unit of the layer between; 16 in the paper.
        kernels: number of kernels M; 2 in the paper.
    """

    def __init__(self, dim: int, reduction: int, kernels: int) -> None:
        super().__init__()
        hidden = max(1, dim // reduction)
        self.narrow, self.choose = nn.Linear(dim, hidden), nn.Linear(hidden, kernels * dim)
        start = torch.randn(kernels, TAPS, dim) * 0.1
        start[:, 0] += 1
        self.taps = nn.Parameter(start)  # (M, 3, D)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """From x (n, W, D) to the same shape; place i reads places that are visible to it, (n, W, W) or (W, W) bool."""
        found = torch.stack([self.filtered(x, visible, dilation) for dilation in range(1, len(self.taps) + 1)])
        mean = visible_mean(found.sum(0), visible)  # (n, W, D)
        choice = self.choose(torch.relu(self.narrow(mean))).unflatten(-1, self.taps.shape[::2])  # (n, W, M, D)
        return (choice.softmax(-2).movedim(-2, 0) * found).sum(0)

    def filtered(self, x: Tensor, visible: Tensor, dilation: int) -> Tensor:
        """Filter x (n, W, D) by the kernel of a dilation: the same shape."""
        taps, width = self.taps[dilation - 1], x.shape[1]  # (3, D)
        found = x * taps[0]
        for tap in range(1, TAPS):
            back = tap * dilation
            seen = F.pad(visible.diagonal(-back, -2, -1), (back, 0))[..., :width, None]  # (n, W, 1)
            found = found + F.pad(x, (0, 0, back, 0))[:, :width].masked_fill(~seen, 0) * taps[tap]
        return found


def visible_mean(x: Tensor, visible: Tensor) -> Tensor:
    """The mean of x (n, W, D) over the places that are visible from each, (n, W, W) or (W, W) bool: the same shape."""
    return visible.to(x.dtype) @ x / visible.sum(-1, keepdim=True).clamp(min=1)


class Gated(nn.Module):
    """A block over slots, and a gate over what it gives."""

    def __init__(self, block: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.block, self.gate = block, gate

    def forward(self, x: Tensor, layout: Layout, newest: bool = False) -> Tensor:
        """From slots (S, D) to slots, or to (B, D) at the newest item of each row; the mean needs all slots of the block."""
        x = self.gate(self.block(x, layout).unflatten(0, layout.blocks), layout.visible).flatten(0, 1)
        return x[layout.newest] if newest else x


def gate_of(dim: int, reduction: int, kernels: int) -> nn.Module | None:
    """The gate that the options of an encoder name; None where the reduction is 0.

    Raises:
        UserError: a reduction below 0, or kernels below 1, or several without a gate.
    """
    not_negative("encoder", gate=reduction)
    at_least_one(kernels=kernels)
    if kernels > 1 and not reduction:
        raise UserError(f"encoder.kernels={kernels} needs a gate that chooses between them: give --encoder.gate 16")
    if not reduction:
        return None
    return ChannelGate(dim, reduction) if kernels == 1 else SelectiveKernel(dim, reduction, kernels)


def gated(blocks: nn.ModuleList, dim: int, reduction: int, kernels: int) -> nn.ModuleList:
    """The blocks, each with a gate over its output; the same blocks where the reduction is 0.

    Raises:
        UserError: as `gate_of`.
    """
    gates = [gate_of(dim, reduction, kernels) for _ in blocks]
    return nn.ModuleList(
        block if gate is None else Gated(block, gate) for block, gate in zip(blocks, gates, strict=True)
    )
