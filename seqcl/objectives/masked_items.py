"""The masked items of a row, from those before and after them: the cloze task."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.augment.operators import choose, sizes
from seqcl.encoders import Encoder, Scoring
from seqcl.errors import UserError
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.item_loss import ItemLoss
from seqcl.objectives.positions import learned_positions
from seqcl.objectives.rows import whole_rows
from seqcl.shapes import fixed
from seqcl.types import PAD, SeqBatch, Windows


class MaskedItems(Objective):
    """The mean loss over all masked items of whole rows: the term `masked_items` (BERT4Rec, arXiv 1904.06690, section 3.6).

    A whole row is a window and its last target, so that every item that training may know can be learned. The encoder's
    longest row must be one item longer than the window's.

    Args:
        item_loss: The loss, and the scores by which items are ranked.
        rate: Part of a row that is masked, one item at least (paper 0.2 on ml-1m, 0.6 on Beauty).
        newest: Chance that a row has its newest item masked and no other, which is the task of evaluation.

    Raises:
        UserError: a value out of its range.
    """

    def __init__(self, *, item_loss: ItemLoss, rate: float = 0.2, newest: float = 0.2) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f"MaskedItems: rate must be from 0 to below 1, not {rate}")
        if not 0 <= newest <= 1:
            raise UserError(f"MaskedItems: newest must be from 0 to 1, not {newest}")
        self.item_loss, self.rate, self.newest = item_loss, rate, newest

    @property
    def scoring(self) -> Scoring:  # type: ignore[override]
        """The scoring of the loss."""
        return self.item_loss.scoring

    def extra_repr(self) -> str:
        return f"rate={self.rate}, newest={self.newest}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.item_loss.bind(train.item_counts())
        self.check_encoder(encoder)

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder that does not read both ways.

        Raises:
            UserError: names the options that help.
        """
        if encoder.causal:
            raise UserError(
                "MaskedItems: this encoder does not read what follows a masked item, so that nothing is gained by masking: "
                "use --encoder BERT4Rec, or a model that learns the next item, such as --model SASRec"
            )

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        rows = whole_rows(batch)
        marks = self.marks(rows)  # (B, L + 1)
        hidden = rows.items.masked_fill(~marks, PAD)  # (B, L + 1), what is to be found
        masked = rows._replace(
            items=rows.items.masked_fill(marks, encoder.num_items + 1),
            targets=hidden,
            positions=self.positions(rows, marks) if fixed() else None,
        )
        learned = learned_positions(encoder, masked, newest=False)
        return {"masked_items": self.item_loss.over(learned, encoder.item_embeddings())}

    def positions(self, rows: SeqBatch, marks: Tensor) -> Tensor:
        """Find the marks (B, L) without a look at them, as many places a row as it can have, filled up with -1: (P,)."""
        most = sizes(rows, self.rate, 1)[1]
        found = marks.int().topk(most, 1)  # (B, most)
        begin = torch.arange(len(marks), device=marks.device)[:, None] * marks.shape[1]
        return (begin + found.indices).masked_fill(found.values == 0, -1).flatten()

    def marks(self, rows: SeqBatch) -> Tensor:
        """Mark the items to mask, one in each row at least: (B, L) bool."""
        generator = rng(rows.items.device)
        marks = choose(rows, rate=self.rate, least=1, generator=generator)  # (B, L)
        alone = torch.rand(len(marks), 1, generator=generator, device=marks.device) < self.newest  # (B, 1)
        time = torch.arange(marks.shape[1], device=marks.device)
        return torch.where(alone, time == rows.lengths[:, None] - 1, marks)
