"""The next item at every position that has a target."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from seqcl.encoders import Encoder
from seqcl.objectives.item_loss import ItemLoss
from seqcl.objectives.positions import Learned, check_one_pass, learned_positions, only_newest
from seqcl.types import SeqBatch, Windows


class NextItem(ItemLoss):
    """The mean loss over all positions with a target, of inner products with the item table: the term `next_item`."""

    only_last = False
    """The newest position of every row is the only one with a target."""

    def bind(self, item_counts: np.ndarray | Tensor, *, only_last: bool = False) -> NextItem:  # type: ignore[override]
        """Take from the data what `ItemLoss.bind` takes; return the objective itself.

        Args:
            item_counts: (N + 2,) how often each id occurs in training.
            only_last: true if the newest position of every row is the only one with a target.
        """
        super().bind(item_counts)
        self.only_last = only_last
        return self

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.bind(train.item_counts(), only_last=only_newest(train))
        self.check_encoder(encoder)

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder that would read the item that it is to predict.

        Raises:
            UserError: names the option that helps.
        """
        if not self.only_last:
            check_one_pass(encoder)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        return self.terms_of(learned_positions(encoder, batch, newest=self.only_last), encoder.item_embeddings())

    def terms_of(self, learned: Learned, table: Tensor) -> dict[str, Tensor]:
        """The term of positions whose states are known, and of the encoder's item embeddings (N + 2, D)."""
        self.missing = {"next_item": learned.targets.new_full((), not learned.total)}
        return {"next_item": self.over(learned, table)}
