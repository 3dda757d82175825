"""Contrast a row with versions of it in which items are replaced: CauseRec."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seqcl.encoders import Encoder
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.losses import cosine_margin, triplet
from seqcl.objectives.base import Objective, check_prepared, rng
from seqcl.objectives.kinship import masked_share
from seqcl.types import PAD, SeqBatch, Windows

Indispensable = Literal["closest", "farthest"]


class Counterfactual(Objective):
    """Keep a row near itself without its dispensable items, and far from itself without its indispensable ones.

    An item is indispensable if its embedding is among the closest to the target's (CauseRec, arXiv 2109.05261,
    item-level concepts). Positives have the dispensable items replaced, negatives the indispensable ones. The term
    `observed` is a triplet margin between the row, its positives and its negatives. The term `interest` is a cosine
    margin between the target, the positives and the negatives.

    Differs from the paper: replacements are drawn from all training interactions, each equally likely, as from a
    concept memory without an end; the target is never put in. All of the chosen items are replaced, not a part of them.
    A negative that equals its row is left out. The authors' code draws the row itself to the target too, in `interest`, and the
    row's state away from what is not the target.

    Args:
        dim: Width D of the encoder's states.
        weight: Factor of `observed`.
        interest: Factor of `interest`.
        replace: Fraction of a row that is indispensable, between 0 and 1.
        indispensable: Items that are it: closest to the target, as in the paper, or farthest, as the authors' code sorts them.
        positives: Number of counterfactual positives made of each row.
        negatives: Number of counterfactual negatives made of each row.
        triplet_margin: Margin of `observed`, a distance on the unit sphere; 0 to 2.
        cosine_margin: Margin of `interest`; -1 to 1, 0.5 in the paper's code.
    """

    bank: Tensor  # (T,), items of the training interactions

    def __init__(
        self,
        *,
        dim: int,
        weight: float = 0.1,
        interest: float = 0.1,
        replace: float = 0.5,
        indispensable: Indispensable = "closest",
        positives: int = 1,
        negatives: int = 1,
        triplet_margin: float = 0.5,
        cosine_margin: float = 0.5,
    ) -> None:
        super().__init__()
        not_negative("Counterfactual", weight=weight, interest=interest)
        if not 0 < replace < 1:
            raise UserError(f"Counterfactual: replace must lie between 0 and 1, not {replace}")
        if not 0 <= triplet_margin <= 2:
            raise UserError(f"Counterfactual: triplet_margin must be from 0 to 2, not {triplet_margin}")
        if not -1 <= cosine_margin <= 1:
            raise UserError(f"Counterfactual: cosine_margin must be from -1 to 1, not {cosine_margin}")
        positive("Counterfactual", positives=positives, negatives=negatives)
        check_choice("indispensable", indispensable, Indispensable)
        self.indispensable = indispensable
        self.weight, self.interest, self.replace = weight, interest, replace
        self.positives, self.negatives = positives, negatives
        self.triplet_margin, self.cosine_margin = triplet_margin, cosine_margin
        self.register_buffer("bank", torch.empty(0, dtype=torch.int64), persistent=False)

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.bank = torch.from_numpy(np.asarray(train.known()[1], dtype=np.int64))

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        targets = batch.last_targets()
        if targets is None:
            raise UserError("Counterfactual: needs a batch with targets")
        check_prepared(self, len(self.bank) > 0)
        table = encoder.item_embeddings()
        if not bool((targets > PAD).all()):  # rows without a target say nothing
            kept = (targets > PAD).nonzero()[:, 0]
            batch, targets = SeqBatch(batch.items[kept], batch.lengths[kept]), targets[kept]
        if not len(targets):
            self.observed = {}
            self.missing = dict.fromkeys(("observed", "interest"), targets.new_tensor(True))
            return dict.fromkeys(("observed", "interest"), table.sum() * 0)
        indispensable = self.closest(table, batch, targets)  # (B, L)
        real = batch.items > 0
        generator = rng(batch.items.device)
        changed = [real & ~indispensable] * self.positives + [indispensable] * self.negatives
        rows = [batch.items, *(self.replaced(batch.items, mask, targets, generator) for mask in changed)]
        copies = SeqBatch(torch.cat(rows), batch.lengths.repeat(len(rows)))  # ((1 + P + Q) B, L)
        states = encoder.last(copies).unflatten(0, (len(rows), -1))  # (1 + P + Q, B, D)
        anchors, near, far = states[0], states[1 : 1 + self.positives], states[1 + self.positives :]
        # A row is no negative of itself, where only its own items were drawn.
        other = torch.stack([(row != batch.items).any(1) for row in rows[1 + self.positives :]])  # (Q, B)
        self.missing = {"observed": ~other.any(), "interest": targets.new_tensor(False)}
        with torch.no_grad():
            gap = F.cosine_similarity(anchors, near[0]).mean() - F.cosine_similarity(anchors, far[0]).mean()
            self.observed = {"counterfactual_gap": gap, "masked_share": masked_share(~other)}
        return {
            "observed": self.weight * triplet(anchors, near, far, margin=self.triplet_margin, keep=other),
            "interest": self.interest * cosine_margin(table[targets], near, far, margin=self.cosine_margin, keep=other),
        }

    @torch.no_grad()
    def closest(self, table: Tensor, batch: SeqBatch, targets: Tensor) -> Tensor:
        """Mark the items of each row with the largest cosines to its target, or the smallest, one at least: (B, L) bool.

        Args:
            table: (N + 2, D) item embeddings.
            batch: B rows.
            targets: (B,) last targets.
        """
        unit = F.normalize(table, dim=1)
        scores = (unit[batch.items] * unit[targets][:, None]).sum(-1)  # (B, L)
        scores = scores if self.indispensable == "closest" else -scores
        scores = scores.masked_fill(batch.items == 0, -torch.inf)
        place = scores.argsort(1, descending=True).argsort(1)  # (B, L), the rank of each position
        count = (batch.lengths * self.replace).long().clamp(min=1)
        return place < count[:, None]

    def replaced(self, items: Tensor, where: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        """Replace items at the places of `where` by draws from the bank, except where the target is drawn: (B, L)."""
        drawn = self.bank[torch.randint(len(self.bank), items.shape, generator=generator, device=items.device)]
        return torch.where(where & (drawn != targets[:, None]), drawn, items)
