"""Predict the code of one view from the other, over learned prototypes: SwAV."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.augment import Crop, Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import not_negative, positive
from seqcl.losses import similarities, sinkhorn, swapped, wide
from seqcl.objectives.base import refuse_unread, rng
from seqcl.objectives.heads import Head
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch


class SwAV(ViewsObjective):
    """Each view predicts the other's code over learned prototypes: the term `swap` (arXiv 2006.09882, eq. 1 and 2).

    Codes distribute the rows evenly over the prototypes, which prevents collapse without negatives. A queue of the last
    projections helps where a batch has fewer rows than there are prototypes. With `crops` short crops of a row predict the
    codes of its two views too (multi-crop, section 3.2 and eq. 6).

    Differs from the paper: two views of any kind in the place of two large crops, and no short ones unless asked for;
    prototypes learn from the first step on.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        prototypes: Number K of learned centres; 3000 in the paper.
        temperature: Divisor of the scores in the prediction; 0.1 in the paper.
        epsilon: Weight of the codes' entropy; a larger one makes codes softer; 0.05 in the paper.
        queue: Number of earlier projections of each view that take part in the codes, once so many are there; 0: none.
        head: Projection before the prototypes; mlp_bn in the paper.
        crops: Short crops of each row, besides its two views; 6 in the paper's best setting.
        crop: Part of a row that a short crop keeps; 0.05 to 0.14 of an image's area in the paper.
    """

    kept: Tensor  # (2, Q, D), the last projections of each view, newest first
    count: Tensor  # (), number of rows ever put in

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        prototypes: int = 256,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        queue: int = 0,
        head: Head = "mlp_bn",
        crops: int = 0,
        crop: float = 0.3,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("SwAV", prototypes=prototypes, temperature=temperature, epsilon=epsilon)
        not_negative("SwAV", queue=queue, crops=crops)
        if not crops:
            refuse_unread("SwAV", "crops above 0", SwAV, crop=crop)
        self.crops, self.crop = crops, Crop(rate=crop)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.temperature, self.epsilon = temperature, epsilon
        self.register_buffer("kept", torch.zeros(2, queue, dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        rows = len(batch.lengths)
        states = encoder.last(self.make_views(batch))  # (2B, D)
        if self.crops:
            states = torch.cat((states, encoder.last(self.make_crops(batch))))  # ((2 + V)B, D)
        projected = F.normalize(wide(self.head(states)), dim=1)
        both = projected[: 2 * rows].detach()  # (2B, D)
        prototypes = F.normalize(self.prototypes, dim=1)  # (K, D)
        scores = similarities(projected, prototypes, "dot").split(rows)  # 2 + V of (B, K)
        codes = [self.codes(score, kept, prototypes) for score, kept in zip(scores, self.kept, strict=False)]
        losses = [
            swapped(score, code, temperature=self.temperature)
            for view, code in enumerate(codes)
            for other, score in enumerate(scores)
            if other != view
        ]
        used = torch.stack(codes).argmax(2).unique().numel() / len(prototypes)
        self.observe(*both.chunk(2), prototypes_used=scores[0].new_tensor(used))
        self.put(both)
        return {"swap": self.weight * torch.stack(losses).mean()}

    def make_crops(self, batch: SeqBatch) -> SeqBatch:
        """Make V short crops of every row: VB rows."""
        repeated = batch.each(lambda column: torch.cat([column] * self.crops))
        return self.crop(repeated, rng(batch.items.device))

    @torch.no_grad()
    def codes(self, scores: Tensor, kept: Tensor, prototypes: Tensor) -> Tensor:
        """Make the codes of rows from their scores (B, K), together with the kept projections (Q, D): (B, K)."""
        rows = len(scores)
        if len(kept) and int(self.count) >= len(kept):
            scores = torch.cat((scores, similarities(kept, prototypes, "dot")))
        return sinkhorn(scores, epsilon=self.epsilon)[:rows]

    @torch.no_grad()
    def put(self, both: Tensor) -> None:
        """Put new projections (2B, D) in front of the old ones."""
        room = self.kept.shape[1]
        if room:
            self.kept.copy_(torch.cat((both.unflatten(0, (2, -1)), self.kept), 1)[:, :room])
            self.count += len(both) // 2
