"""A state and its next item close together, and both spread over the sphere, in the place of a softmax (DirectAU)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.encoders import Encoder, Scoring
from seqcl.errors import not_negative, positive
from seqcl.losses import alignment, uniformity
from seqcl.objectives.base import Objective, check_prepared, rng
from seqcl.objectives.kinship import Rows, related_share
from seqcl.objectives.positions import check_one_pass, only_newest
from seqcl.types import PAD, SeqBatch, Similarity, Windows


class DirectAU(Objective):
    """Align the state of every position with its next item; make states uniform, and items: the term `align_uniform`.

    Source: DirectAU, arXiv 2206.12811, section 4: alignment + balance / 2 * (uniformity of states + uniformity of items).

    Differs from the paper: states of rows in the place of user embeddings, and cosines to rank by. Positions of one user or
    with one target are not driven apart, and an item that is a target several times counts once.

    Args:
        balance: Factor of uniformity, gamma; 0.2 to 10 in the paper, 0.5 on Beauty in its code.
        t: Sharpness of uniformity; 2 in the paper.
        spread: Positions, drawn from those of a batch, whose states and items are made uniform; the paper's batches
            have 256 on Beauty, 1,024 elsewhere.
        similarity: Ranking by cosine, or by dot product (the paper).
    """

    def __init__(
        self, *, balance: float = 1.0, t: float = 2.0, spread: int = 1024, similarity: Similarity = "cosine"
    ) -> None:
        super().__init__()
        not_negative("DirectAU", balance=balance)
        positive("DirectAU", t=t, spread=spread)
        self.balance, self.t, self.spread = balance, t, spread
        self.scoring = Scoring(similarity=similarity)

    def extra_repr(self) -> str:
        return f"balance={self.balance}, t={self.t}, spread={self.spread}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.only_last = only_newest(train)
        if not self.only_last:
            check_one_pass(encoder)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        check_prepared(self, hasattr(self, "only_last"))
        states, targets, row = self.learned(encoder, batch)  # (T, D), (T,), (T,)
        drawn = torch.arange(len(row), device=row.device)
        if len(row) > self.spread:
            drawn = torch.randperm(len(row), generator=rng(row.device), device=row.device)[: self.spread]
        users = row if batch.users is None else batch.users[row]
        whose = Rows(users[drawn], targets[drawn])
        same = whose.like(whose) | torch.eye(len(drawn), dtype=torch.bool, device=row.device)
        self.observed = {"masked_share": related_share(same)}
        self.missing = {"align_uniform": same.all()}
        if bool(same.all()):  # no two positions to drive apart, or none at all
            return {"align_uniform": states.sum() * 0}
        table = encoder.item_embeddings()
        apart = uniformity(states[drawn], t=self.t, same=same) + uniformity(
            F.embedding(targets[drawn].unique(), table), t=self.t
        )
        near = alignment(states, F.embedding(targets, table))
        self.observed |= {"alignment": near.detach(), "uniformity": apart.detach() / 2}
        return {"align_uniform": near + self.balance * apart / 2}

    def learned(self, encoder: Encoder, batch: SeqBatch) -> tuple[Tensor, Tensor, Tensor]:
        """States (T, D), targets (T,) and rows (T,) of the positions with a target.

        Raises:
            ValueError: the batch has no targets.
        """
        if batch.targets is None:
            raise ValueError("the next item cannot be learned: the batch has no targets")
        if self.only_last:
            targets = cast(Tensor, batch.last_targets())  # (B,)
            kept = (targets != PAD).nonzero()[:, 0]
            return encoder.last(batch)[kept], targets[kept], kept
        places = (batch.targets.flatten() != PAD).nonzero()[:, 0]  # (T,)
        states = encoder(batch).flatten(0, 1).index_select(0, places)
        return states, batch.targets.flatten()[places], places // batch.targets.shape[1]
