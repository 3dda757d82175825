"""Two views of every row against those of all others: the contrastive term of CL4SRec and its kin."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.augment import Pair, View
from seqcl.errors import UserError
from seqcl.losses import Similarity, alignment, nt_xent, uniformity
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.heads import Head, projection
from seqcl.types import Encoder, SeqBatch


class TwoViews(Objective):
    """NT-Xent over two views of each row, weighted: the term `contrast` (CL4SRec, arXiv 2010.14395, eq. 3 and 14).

    `observed` holds alignment and uniformity (arXiv 2005.10242) of the contrasted vectors and `masked_share`, the share
    of the other rows that are no negatives of a row.
    Differs from the paper: rows of one user or with one last target are no negatives of each other.

    Args:
        views: What makes the two views of a row; a single view is used twice, with two draws.
        dim: Width of the encoder's states.
        weight: Factor of the term in the sum; 0.1 in the paper.
        temperature: What similarities are divided by.
        similarity: cosine (SimCLR) or dot (the paper).
        head: Projection before contrasting, dropped after training: none, linear or mlp.
        mask_false_negatives: Whether rows of one user or with one last target are kept out of the negatives.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 1.0,
        similarity: Similarity = "cosine",
        head: Head = "none",
        mask_false_negatives: bool = True,
    ) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"TwoViews: weight must not be negative, not {weight}")
        if temperature <= 0:
            raise UserError(f"TwoViews: temperature must be above 0, not {temperature}")
        self.views = Pair(views=[views]) if isinstance(views, View) else views
        self.head = projection(head, dim)
        self.weight, self.temperature, self.similarity = weight, temperature, similarity
        self.mask_false_negatives = mask_false_negatives

    def extra_repr(self) -> str:
        return f"weight={self.weight}, temperature={self.temperature}, similarity={self.similarity}"

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        stacked = self.views.stacked(batch, rng(batch.items.device))  # 2B rows, one pass for both views
        first, second = self.head(encoder.last(stacked)).chunk(2)  # (B, D), (B, D)
        same = related(batch) if self.mask_false_negatives else None
        loss = nt_xent(first, second, temperature=self.temperature, similarity=self.similarity, same=same)
        with torch.no_grad():
            self.observed = {
                "alignment": alignment(first, second),
                "uniformity": (uniformity(first) + uniformity(second)) / 2,
            }
            if same is not None:
                rows = len(same)
                self.observed["masked_share"] = (same.sum() - rows) / max(rows * (rows - 1), 1)
        return {"contrast": self.weight * loss}


def related(batch: SeqBatch) -> Tensor:
    """Which rows are no negatives of each other: of one user or with one last target; (B, B) bool, symmetric."""
    same = torch.eye(len(batch.lengths), dtype=torch.bool, device=batch.lengths.device)
    if batch.users is not None:
        same = same | (batch.users[:, None] == batch.users)
    if batch.targets is not None:
        last = batch.targets
        if last.dim() == 2:
            last = last.gather(1, batch.lengths[:, None] - 1)[:, 0]  # (B,)
        same = same | (last[:, None] == last)
    return same
