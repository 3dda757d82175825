"""Contrast after every block of the encoder, whose gradient goes no further down than a few blocks: LoCo."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import check_choice, not_negative, positive
from seqcl.losses import nt_xent
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.kinship import related, related_share
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch, Windows


class LoCo(ViewsObjective):
    """NT-Xent of two views after each block, the gradients stopped between blocks that overlap: the term `contrast`.

    Source: LoCo, arXiv 2008.01342, section 3. The contrast after block k trains block k and the `overlap` blocks before it; that
    after block 1 trains the item embeddings too, and so does every contrast that reaches below block 1. An overlap of 0 is greedy (GIM, arXiv 1905.11786, as the paper compares
    it); one that covers all blocks is the plain contrast at every block. An encoder without blocks, such as GRU, is one
    block, and this is NT-Xent.

    Differs from the paper: the mean over blocks instead of the sum. Heads are those of all objectives, without the extra
    layers that the paper gives its lower decoders. The next item trains all blocks together. Dropout differs where a block
    runs for two gradients. Rows of one user or with one last target are no negatives of each other.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.1 in SimCLR.
        overlap: Blocks below its own that the contrast of a block trains; 1 in the paper.
        head: Projection before the contrast, one for every block, dropped after training; mlp in the paper.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        overlap: int = 1,
        head: Head = "mlp",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head="none")
        positive("LoCo", temperature=temperature)
        not_negative("LoCo", overlap=overlap)
        self.temperature, self.overlap = temperature, overlap
        self.dim, self.kind = dim, head
        check_choice("head", head, Head)

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.heads = nn.ModuleList(projection(self.kind, self.dim) for _ in range(encoder.depth))

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        both = self.make_views(batch)
        same = related(batch, both)
        losses = []
        for head, states in zip(self.heads, encoder.by_block(both, overlap=self.overlap).unbind(1), strict=True):
            first, second = head(states).chunk(2)  # (B, D), (B, D)
            losses.append(nt_xent(first, second, temperature=self.temperature, same=same))
        self.observe(first, second, masked_share=related_share(same))
        self.lack(contrast=same.all())
        return {"contrast": self.weight * torch.stack(losses).mean()}
