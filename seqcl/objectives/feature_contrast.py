"""Contrast two views of items, each with other features hidden (Yao et al., CIKM 2021, arXiv 2007.12865)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from seqcl.augment.feature_masks import correlated_halves, mutual_information, present, random_halves
from seqcl.encoders import Encoder, TwoTower
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.losses import nt_xent
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.kinship import related_share
from seqcl.types import SeqBatch, Windows

Masking = Literal["correlated", "random"]

COUNTED = 100_000
"""Largest number of items over which mutual information is counted."""


class FeatureContrast(Objective):
    """NT-Xent of items under two complementary masks of their features: the term `features`.

    Items are drawn uniformly from those that training knows, so rare items learn as much as frequent ones.

    Differs from the paper: the contrast has both directions; an item drawn twice is no negative of itself; an item is
    left out if one of its views shows nothing.

    Args:
        weight: Factor of the term (paper 0.3).
        temperature: Divisor of the cosines (paper 0.1 to 0.3).
        items: Number of items drawn for each batch.
        masking: correlated hides features together that tell of each other (CFM); random hides random halves (RFM).
        drop: Chance that a view leaves out a word of a feature with several words.

    Raises:
        UserError: a value out of its range, or an encoder whose items have fewer than two columns.
    """

    catalogue: Tensor  # (M,), items that training knows
    information: Tensor  # (F, F), mutual information of the features, without the id
    there: Tensor  # (N + 2, F) bool, features that an item has, with the id

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
        not_negative("FeatureContrast", weight=weight)
        if items < 2:
            raise UserError(f"FeatureContrast: items must be 2 or more, not {items}")
        if not 0 <= drop < 1:
            raise UserError(f"FeatureContrast: drop must be from 0 to below 1, not {drop}")
        check_choice("masking", masking, Masking)
        self.weight, self.temperature, self.items, self.masking, self.drop = weight, temperature, items, masking, drop
        self.register_buffer("catalogue", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("information", torch.empty(0, 0), persistent=False)
        self.register_buffer("there", torch.empty(0, 0, dtype=torch.bool), persistent=False)

    def extra_repr(self) -> str:
        return f"weight={self.weight}, temperature={self.temperature}, masking={self.masking}, drop={self.drop}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        towers = of_two_towers(encoder)
        columns, features = towers.item_columns, towers.items_known
        known = np.flatnonzero(train.item_counts() > 0)
        self.catalogue = torch.from_numpy(known).to(self.catalogue.device)
        self.item_id = columns[0] == "id"
        there = present(features)  # (N + 2, F)
        if self.item_id:
            there = np.concatenate((np.ones((len(there), 1), bool), there), axis=1)
        self.there = torch.from_numpy(there).to(self.there.device)
        if self.masking == "correlated":
            counted = known if len(known) <= COUNTED else np.random.default_rng(0).choice(known, COUNTED, replace=False)
            self.information = (
                torch.from_numpy(mutual_information(features, counted)).float().to(self.information.device)
            )

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        towers, device = of_two_towers(encoder), batch.items.device
        generator = rng(device)
        place = torch.randint(len(self.catalogue), (self.items,), generator=generator, device=device)
        items = self.catalogue[place]  # (n,)
        masks = self.masks(len(items), generator)
        there = self.there[items]  # (n, F)
        told = ((there & ~masks[0]).any(1) & (there & ~masks[1]).any(1)).nonzero()[:, 0]  # neither view is empty
        items = items[told]
        first, second = (
            towers.item_vectors(items, hidden=mask[told], drop=self.drop, generator=generator) for mask in masks
        )
        same = items[:, None] == items
        self.observed = {
            "masked_share": related_share(same),
            "empty_share": 1 - len(told) / self.items + same.new_zeros(()),
        }
        self.missing = {"features": same.all()}
        if len(items) < 2:
            return {"features": first.sum() * 0}
        return {"features": self.weight * nt_xent(first, second, temperature=self.temperature, same=same)}

    def masks(self, rows: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Choose the features that each view hides, the id first if it is used: two (n, F) bool.

        An id tells everything about every column, so correlation cannot place it: either view hides it, by chance. With
        one column besides the id, each view hides one of the two.
        """
        device = self.there.device
        if self.masking == "random":
            return random_halves(rows, self.there.shape[1], generator=generator, device=device)
        first, second = correlated_halves(self.information, rows, generator=generator)
        if not self.item_id:
            return first, second
        coin = torch.rand(rows, 1, generator=generator, device=device) < 0.5  # (n, 1)
        hidden = ~first if first.shape[1] == 1 else coin
        return torch.cat((hidden, first), 1), torch.cat((~hidden, second), 1)


def of_two_towers(encoder: Encoder) -> TwoTower:
    """Take an encoder whose items have two columns or more; refuse any other.

    Raises:
        UserError: names the columns.
    """
    columns: list[str] = []
    if isinstance(encoder, TwoTower):
        columns = encoder.item_columns
        if len(columns) >= 2:
            return encoder
    raise UserError(
        "FeatureContrast: two views need two features at least, and of the items is known: "
        f"{', '.join(columns) or 'nothing'}; give the log an item table, or ssl.weight 0"
    )
