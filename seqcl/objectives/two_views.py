"""Contrast two views of every row with all other rows of the batch: NT-Xent (CL4SRec, SimCLR), alignment and uniformity, SupCon."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Generator, Tensor

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.losses import Reduction, alignment, check_negatives, contrast, nt_xent, similarities, uniformity
from seqcl.objectives.base import rng
from seqcl.objectives.heads import Head
from seqcl.objectives.kinship import Rows, related, related_share
from seqcl.objectives.rows import States, check_states, row_states
from seqcl.objectives.temperature import Schedule, Tempered
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch, Similarity


class TwoViews(Tempered, ViewsObjective):
    """NT-Xent over two views of each row: the term `contrast` (CL4SRec, arXiv 2010.14395, eq. 3 and 14).

    Of more than two views (`number`) it is the mean over all pairs of them (CMC, arXiv 1906.05849, the full graph; there it is
    the sum, the negatives are of a bank, and each view has an encoder of its own).

    Differs from the paper: rows of one user or with one last target are no negatives of each other.

    Args:
        views: Source of the views of a row; a single view is used twice, with two draws.
        dim: Width D of the encoder's states.
        weight: Factor of the term; 0.1 in the paper.
        temperature: Divisor of the similarities.
        similarity: cosine (SimCLR), or dot product (the paper).
        head: Projection before the contrast, dropped after training: none, linear, mlp, mlp_bn or mlp3.
        states: Vector of a view: its newest state, the mean of its states, or all of them, aligned at their ends (the
            code of CoSeRec and ICLRec, which contrasts padding too); all takes no head.
        mask_false_negatives: Keep rows of one user or with one last target out of each other's negatives.
        hardness: Weight of hard negatives, beta (arXiv 2010.04592): each counts by exp(beta * similarity / temperature); 0 for
            all alike.
        prior: Chance that a negative is a false one, tau+ (arXiv 2007.00224): their expected part is taken off; 0 for none.
            The authors have 0.1 at temperature 0.5; at 0.2 so much leaves negatives hardly a gradient: take 0.01 there.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
    """

    many_views = True

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
        hardness: float = 0.0,
        prior: float = 0.0,
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.begin(temperature, schedule, highest, period)
        check_states("TwoViews", states, head)
        check_choice("similarity", similarity, Similarity)
        self.similarity, self.states = similarity, states
        check_negatives("TwoViews", hardness=hardness, prior=prior)
        if prior and similarity != "cosine":
            raise UserError(f"TwoViews: prior={prior} needs similarity=cosine, whose smallest value is known")
        self.mask_false_negatives, self.hardness, self.prior = mask_false_negatives, hardness, prior

    def extra_repr(self) -> str:
        return (
            f"weight={self.weight}, temperature={self.temperature}, similarity={self.similarity}, states={self.states}"
        )

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        shown = self.make_views(batch)
        (contrasted,) = row_states(encoder, shown, self.states)  # (nB, D) or (nB, L * D)
        views = self.head(contrasted).split(len(batch.lengths))
        same = related(batch, shown) if self.mask_false_negatives else None
        pairs = [self.loss(one, two, same) for one, two in combinations(views, 2)]
        self.observe(*views, **({} if same is None else {"masked_share": related_share(same)}), **self.seen())
        self.lack(contrast=views[0].new_tensor(len(views[0]) < 2) if same is None else same.all())
        return {"contrast": self.weight * torch.stack(pairs).mean()}

    def loss(self, first: Tensor, second: Tensor, same: Tensor | None) -> Tensor:
        """NT-Xent of two views (B, D) of each row; rows that are the `same`, (B, B) bool, are no negatives."""
        return nt_xent(
            first,
            second,
            temperature=self.temperature,
            similarity=self.similarity,
            same=same,
            hardness=self.hardness,
            prior=self.prior,
        )


class AlignUniform(ViewsObjective):
    """Draw the views of a row together and spread rows over the sphere: the term `spread` (arXiv 2005.10242, section 4).

    Differs from the paper: rows of one user or with one last target are not driven apart.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        balance: Factor of uniformity beside alignment; 1 by default in the authors' code, near their best for STL-10.
        power: Power of the distance of partners; 2 in the paper.
        t: Sharpness of uniformity; 2 by default in the authors' code.
        head: Projection before the term, dropped after training.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        balance: float = 1.0,
        power: float = 2.0,
        t: float = 2.0,
        head: Head = "none",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        not_negative("AlignUniform", balance=balance)
        positive("AlignUniform", power=power, t=t)
        self.balance, self.power, self.t = balance, power, t

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        views = self.make_views(batch)
        first, second = self.head(encoder.last(views)).chunk(2)  # (B, D), (B, D)
        same = related(batch, views)
        spread = (uniformity(first, t=self.t, same=same) + uniformity(second, t=self.t, same=same)) / 2
        self.observe(first, second, masked_share=related_share(same))
        self.lack(spread=same.all())
        loss = alignment(first, second, power=self.power) + self.balance * spread
        return {"spread": self.weight * loss.masked_fill(same.all(), 0.0)}


class SupCon(Tempered, ViewsObjective):
    """Contrast with all views of rows with the same last target as positives: the term `contrast` (arXiv 2004.11362).

    Differs from the paper: rows of one user with different targets are no negatives of each other. Of KCL's: positives that are not
    drawn are no negatives either; there they stay in the denominator.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.1 in the paper.
        head: Projection before the contrast; mlp in the paper.
        reduction: out averages over positives outside the logarithm (eq. 2, the better one); in averages inside it
            (eq. 3).
        positives: Rows with the same last target that are drawn as positives of a view, besides its partner; the others are
            left out (KCL, Kang et al., ICLR 2021, which draws 6). 0 for all of them.
        hardness: Weight of hard negatives, beta (arXiv 2010.04592); 0 for all alike.
        prior: Chance that a negative is a false one, tau+ (arXiv 2007.00224); 0 for none. See `TwoViews` for its size.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
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
        positives: int = 0,
        hardness: float = 0.0,
        prior: float = 0.0,
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.begin(temperature, schedule, highest, period)
        check_choice("reduction", reduction, Reduction)
        not_negative("SupCon", positives=positives)
        check_negatives("SupCon", hardness=hardness, prior=prior)
        self.positives = positives
        self.reduction, self.hardness, self.prior = reduction, hardness, prior

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        views = self.make_views(batch)
        both = self.head(encoder.last(views))  # (2B, D)
        rows = Rows.of(batch)
        itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
        partner = itself.roll(len(batch.lengths), 1)
        positives = (rows.same_target(rows).repeat(2, 2) & ~itself) | partner
        related_rows = related(batch, views)
        keep = ~(related_rows.repeat(2, 2) | itself)
        if self.positives:
            positives = partner | drawn_of_each(positives & ~partner, self.positives, rng(both.device))
        logits = similarities(both, both, "cosine") / self.temperature  # (2B, 2B)
        loss = contrast(
            logits,
            positives,
            keep=keep,
            reduction=self.reduction,
            hardness=self.hardness,
            prior=self.prior,
            lowest=-1 / self.temperature,
        )
        alone = ~(rows.same_target(rows) & ~itself[: len(related_rows), : len(related_rows)]).any()
        self.lack(contrast=related_rows.all() & alone)
        others = related_rows & ~rows.same_target(rows)
        self.observe(*both.chunk(2), masked_share=related_share(others.fill_diagonal_(True)), **self.seen())
        return {"contrast": self.weight * loss}


def drawn_of_each(among: Tensor, number: int, generator: Generator) -> Tensor:
    """Draw that many of the marked columns of every row, or all where there are fewer: (M, C) bool from (M, C) bool."""
    chance = torch.rand(among.shape, generator=generator, device=among.device).masked_fill(~among, -1)
    least = chance.topk(min(number, among.shape[1]), 1).values[:, -1:]  # (M, 1)
    return among & (chance >= least)
