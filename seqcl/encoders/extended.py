"""An encoder whose states go through further layers, such as those of a projection head that fine-tuning keeps."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from seqcl.encoders.base import Encoder, Exported
from seqcl.types import SeqBatch


class Extended(Encoder):
    """States of another encoder, each through a small network: (D) -> (D); the items are those of that encoder.

    Source: SimCLR v2, arXiv 2006.10029, section 2: fine-tuning starts from a middle layer of the projection head.

    Args:
        below: makes the states.
        top: linear layers of its width, each with ReLU behind it; a layer shows no position another one.
    """

    def __init__(self, below: Encoder, top: nn.Sequential) -> None:
        super().__init__(num_items=below.num_items, max_len=below.max_len, dim=below.dim)
        self.below, self.top = below, top
        self.one_pass, self.both_ways, self.fixed_shapes = below.one_pass, below.both_ways, below.fixed_shapes

    @property
    def causal(self) -> bool:
        """True if the states below read nothing after them."""
        return self.below.causal

    @causal.setter
    def causal(self, value: bool) -> None:
        self.below.causal = value

    def item_embeddings(self) -> Tensor:
        """The table of the encoder below: (N + 2, D)."""
        return self.below.item_embeddings()

    def item_vectors(self, items: Tensor) -> Tensor:
        """Embeddings of items (n,): (n, D)."""
        return self.below.item_vectors(items)

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D)."""
        return self.top(self.below(batch))

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D)."""
        return self.top(self.below.last(batch))

    @property
    def depth(self) -> int:
        """Number of blocks of the encoder below."""
        return self.below.depth

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        """The state that `last` would give if the encoder below ended after each of its blocks: (B, depth, D)."""
        return self.top(self.below.by_block(batch, overlap=overlap))

    def exported(self) -> Exported:
        """The facts from which a bundle makes this encoder again."""
        linear = sum(isinstance(layer, nn.Linear) for layer in self.top)
        return replace(self.below.exported(), weights=self.state_dict(), kept=linear)


def kept_layers(number: int, dim: int) -> nn.Sequential:
    """New layers as those of the head mlp3: linear, each with ReLU behind it."""
    return nn.Sequential(*(layer for _ in range(number) for layer in (nn.Linear(dim, dim), nn.ReLU())))
