"""Contrast two views of every row with those of all other rows in the batch: NT-Xent (CL4SRec, SimCLR) and SupCon."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import check_choice, positive
from seqcl.losses import Reduction, contrast, nt_xent, similarities
from seqcl.objectives.heads import Head
from seqcl.objectives.kinship import Rows, related, related_share
from seqcl.objectives.rows import States, check_states, row_states
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch, Similarity


class TwoViews(ViewsObjective):
    """NT-Xent over two views of each row: the term `contrast` (CL4SRec, arXiv 2010.14395, eq. 3 and 14).

    Differs from the paper: rows of one user or with one last target are no negatives of each other.

    Args:
        views: Source of the two views of a row; a single view is used twice, with two draws.
        dim: Width D of the encoder's states.
        weight: Factor of the term; 0.1 in the paper.
        temperature: Divisor of the similarities.
        similarity: cosine (SimCLR), or dot product (the paper).
        head: Projection before the contrast, dropped after training: none, linear, mlp or mlp_bn.
        states: Vector of a view: its newest state, the mean of its states, or all of them, aligned at their ends (the
            code of CoSeRec and ICLRec, which contrasts padding too); all takes no head.
        mask_false_negatives: Keep rows of one user or with one last target out of each other's negatives.
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
        states: States = "newest",
        mask_false_negatives: bool = True,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("TwoViews", temperature=temperature)
        check_states("TwoViews", states, head)
        check_choice("similarity", similarity, Similarity)
        self.temperature, self.similarity, self.states = temperature, similarity, states
        self.mask_false_negatives = mask_false_negatives

    def extra_repr(self) -> str:
        return (
            f"weight={self.weight}, temperature={self.temperature}, similarity={self.similarity}, states={self.states}"
        )

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        both = self.make_views(batch)
        (contrasted,) = row_states(encoder, both, self.states)  # (2B, D) or (2B, L * D)
        first, second = self.head(contrasted).chunk(2)
        same = related(batch, both) if self.mask_false_negatives else None
        loss = nt_xent(first, second, temperature=self.temperature, similarity=self.similarity, same=same)
        self.observe(first, second, **({} if same is None else {"masked_share": related_share(same)}))
        self.lack(contrast=loss.new_tensor(len(first) < 2) if same is None else same.all())
        return {"contrast": self.weight * loss}


class SupCon(ViewsObjective):
    """Contrast with all views of rows with the same last target as positives: the term `contrast` (arXiv 2004.11362).

    Differs from the paper: rows of one user with different targets are no negatives of each other.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.1 in the paper.
        head: Projection before the contrast; mlp in the paper.
        reduction: out averages over positives outside the logarithm (eq. 2, the better one); in averages inside it
            (eq. 3).
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.1,
        head: Head = "mlp",
        reduction: Reduction = "out",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("SupCon", temperature=temperature)
        check_choice("reduction", reduction, Reduction)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        views = self.make_views(batch)
        both = self.head(encoder.last(views))  # (2B, D)
        rows = Rows.of(batch)
        itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
        partner = itself.roll(len(batch.lengths), 1)
        positives = (rows.same_target(rows).repeat(2, 2) & ~itself) | partner
        related_rows = related(batch, views)
        keep = ~(related_rows.repeat(2, 2) | itself)
        logits = similarities(both, both, "cosine") / self.temperature  # (2B, 2B)
        loss = contrast(logits, positives, keep=keep, reduction=self.reduction)
        alone = ~(rows.same_target(rows) & ~itself[: len(related_rows), : len(related_rows)]).any()
        self.lack(contrast=related_rows.all() & alone)
        others = related_rows & ~rows.same_target(rows)
        self.observe(*both.chunk(2), masked_share=related_share(others.fill_diagonal_(True)))
        return {"contrast": self.weight * loss}
