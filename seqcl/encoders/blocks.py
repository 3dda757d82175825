"""The base class of encoders made of attention blocks over packed rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl.encoders.base import TableEncoder
from seqcl.encoders.layout import Layout
from seqcl.encoders.table import at_least_one
from seqcl.errors import UserError
from seqcl.types import SeqBatch


class BlockEncoder(TableEncoder):
    """Item embeddings that go through blocks, one after another, and through a last map.

    A subclass makes `blocks`, each from slots (S, D) to slots, or to (B, D) at the newest item of each row.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.

    Raises:
        UserError: a size below 1, or heads that do not divide dim.
    """

    fixed_shapes = True

    blocks: nn.ModuleList

    def __init__(self, *, num_items: int, max_len: int, dim: int, layers: int, heads: int) -> None:
        at_least_one(layers=layers, heads=heads)
        if dim % heads:
            raise UserError(f"encoder.heads={heads} does not divide encoder.dim={dim}")
        super().__init__(num_items=num_items, max_len=max_len, dim=dim)

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D)."""
        layout = Layout(batch, causal=self.causal)
        x = self.embed(batch, layout)  # (S, D)
        for block in self.blocks:
            x = block(x, layout)
        return layout.put(self.finish(x))

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D); the last block works for one position a row."""
        layout = Layout(batch, causal=self.causal)
        x = self.embed(batch, layout)  # (S, D)
        for block in self.blocks[:-1]:
            x = block(x, layout)
        return self.finish(self.blocks[-1](x, layout, newest=True))

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        """States after the newest items, block by block: (B, depth, D); a block that several gradients reach runs for each."""
        layout = Layout(batch, causal=self.causal)
        found = newest_by_block(self.blocks, self.embed(batch, layout), layout, overlap)
        return self.finish(torch.stack(found, 1))

    def embed(self, batch: SeqBatch, layout: Layout) -> Tensor:
        """Input of the first block: (S, D)."""
        raise NotImplementedError

    def finish(self, x: Tensor) -> Tensor:
        """States from the last block's output: (..., D)."""
        return x


def newest_by_block(blocks: nn.ModuleList, x: Tensor, shape: Layout | Tensor, overlap: int) -> list[Tensor]:
    """Run every block at the newest items too, and give what it has there; its gradient goes through `overlap` blocks below it, see `Encoder.by_block`.

    Args:
        blocks: called as block(x, shape), and with newest=True.
        x: the input of the first block.
        shape: what the blocks know of the rows.
        overlap: blocks below its own that a gradient reaches.
    """
    inputs = [x]  # of each block
    for block in blocks[:-1]:
        inputs.append(block(inputs[-1], shape))
    found = []
    for place, block in enumerate(blocks):
        begin, x = place - overlap, inputs[place]
        if place and begin >= 0:
            x = inputs[begin].detach()
            for earlier in blocks[begin:place]:
                x = earlier(x, shape)
        found.append(block(x, shape, newest=True))
    return found
