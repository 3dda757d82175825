"""Two views of items, each with other features hidden, must find each other (Yao et al., CIKM 2021, arXiv 2007.12865)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqcl.augment.feature_masks import correlated_halves, mutual_information, random_halves
from seqcl.errors import UserError, unknown
from seqcl.losses import nt_xent
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.two_views import share_of_others
from seqcl.objectives.views import positive
from seqcl.types import Encoder, SeqBatch, Windows

Masking = Literal["correlated", "random"]


class FeatureContrast(Objective):
    """NT-Xent of items drawn uniformly from those that training knows, under two complementary masks of their features: the term `features`.

    Uniformly, so that the tail is learned as well as the head. Differs from the paper: both directions of the contrast; an
    item drawn twice is no negative of itself.

    Args:
        weight: factor of the term (paper 0.3).
        temperature: what cosines are divided by (paper 0.1 to 0.3).
        items: items drawn for each batch.
        masking: correlated (CFM, features that tell of each other are hidden together), or random halves (RFM).
        drop: chance that a word of a feature with several is left out of a view.

    Raises:
        UserError: a value out of its range, or an encoder whose items have fewer than two columns.
    """

    catalogue: Tensor
    information: Tensor

    def __init__(
        self,
        *,
        weight: float = 0.3,
        temperature: float = 0.2,
        items: int = 256,
        masking: Masking = "correlated",
        drop: float = 0.2,
    ) -> None:
        super().__init__()
        positive("FeatureContrast", temperature=temperature)
        if weight < 0:
            raise UserError(f"FeatureContrast: weight must not be negative, not {weight}")
        if items < 2:
            raise UserError(f"FeatureContrast: items must be 2 or more, not {items}")
        if not 0 <= drop < 1:
            raise UserError(f"FeatureContrast: drop must be from 0 to below 1, not {drop}")
        if masking not in ("correlated", "random"):
            raise unknown("masking", masking, ("correlated", "random"))
        self.weight, self.temperature, self.items, self.masking, self.drop = weight, temperature, items, masking, drop
        self.register_buffer(
            "catalogue", torch.empty(0, dtype=torch.int64), persistent=False
        )  # items that training knows
        self.register_buffer("information", torch.empty(0, 0), persistent=False)  # (F, F)

    def extra_repr(self) -> str:
        return f"weight={self.weight}, temperature={self.temperature}, masking={self.masking}, drop={self.drop}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        columns: list[str] = getattr(encoder, "item_columns", [])
        if len(columns) < 2:
            raise UserError(
                "FeatureContrast: two views need two features at least, and of the items is known: "
                f"{', '.join(columns) or 'nothing'}; give the log an item table, or ssl.weight 0"
            )
        known = np.flatnonzero(train.item_counts() > 0)
        self.catalogue = torch.from_numpy(known)
        found = mutual_information(encoder.items_known, known)  # type: ignore[attr-defined]
        if "id" in columns:  # an id tells all of every other column
            found = np.block([[np.zeros((1, 1)), np.diag(found)[None]], [np.diag(found)[:, None], found]])
        self.information = torch.from_numpy(found).float()

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        device = batch.items.device
        generator = rng(device)
        items = self.catalogue[
            torch.randint(len(self.catalogue), (self.items,), generator=generator, device=device)
        ]  # (n,)
        if self.masking == "correlated":
            masks = correlated_halves(self.information, len(items), generator=generator)
        else:
            masks = random_halves(len(items), len(self.information), generator=generator, device=device)
        first, second = (encoder.item_vectors(items, hidden=mask, drop=self.drop) for mask in masks)  # type: ignore[attr-defined]
        same = items[:, None] == items
        self.observed = {"masked_share": share_of_others(same)}
        return {"features": self.weight * nt_xent(first, second, temperature=self.temperature, same=same)}
