"""The masked items of a row, from those before and after them: the cloze task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.augment.operators import choose
from seqcl.encoders import Encoder
from seqcl.errors import UserError
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.next_item import NextItem
from seqcl.types import PAD, SeqBatch, Windows


class MaskedItems(Objective):
    """The mean loss over all masked items of whole rows: the term `masked_items` (BERT4Rec, arXiv 1904.06690, section 3.6).

    A whole row is what a window reads and its last target, so that every item that training may know can be learned; the
    encoder's longest row must be one longer than the window's.

    Args:
        next_item: The loss, and how items are ranked.
        rate: Share of a row that is masked, one item at least (paper 0.2 on ml-1m, 0.6 on Beauty).
        newest: Chance that a row has its newest item masked and no other, which is what evaluation asks for.

    Raises:
        UserError: a value out of its range.
    """

    def __init__(self, *, next_item: NextItem, rate: float = 0.2, newest: float = 0.2) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f"MaskedItems: rate must be from 0 to below 1, not {rate}")
        if not 0 <= newest <= 1:
            raise UserError(f"MaskedItems: newest must be from 0 to 1, not {newest}")
        self.next_item, self.rate, self.newest = next_item, rate, newest

    def extra_repr(self) -> str:
        return f"rate={self.rate}, newest={self.newest}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.next_item.bind(item_counts=train.item_counts())
        self.check(encoder)

    def check(self, encoder: Encoder) -> None:
        """Raise UserError if the encoder does not read both ways."""
        if getattr(encoder, "causal", True):
            raise UserError(
                "MaskedItems: this encoder does not read what follows a masked item, so that nothing is gained by masking: "
                "use --encoder BERT4Rec, or a model that learns the next item, such as --model SASRec"
            )

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        rows = whole(batch)
        marks = self.marks(rows)  # (B, L + 1)
        masked = rows._replace(items=rows.items.masked_fill(marks, encoder.num_items + 1))
        places = marks.flatten().nonzero()[:, 0]  # (T,)
        states = encoder(masked).flatten(0, 1).index_select(0, places)  # (T, D)
        return {"masked_items": self.next_item.mean(states, rows.items.flatten()[places], encoder.item_embeddings())}

    def marks(self, rows: SeqBatch) -> Tensor:
        """The items to be masked, one in each row at least: (B, L) bool."""
        generator = rng(rows.items.device)
        marks = choose(rows, rate=self.rate, least=1, generator=generator)  # (B, L)
        alone = torch.rand(len(marks), 1, generator=generator, device=marks.device) < self.newest  # (B, 1)
        time = torch.arange(marks.shape[1], device=marks.device)
        return torch.where(alone, time == rows.lengths[:, None] - 1, marks)

    def queries(self, states: Tensor) -> Tensor:
        return self.next_item.queries(states)

    def candidates(self, table: Tensor) -> Tensor:
        return self.next_item.candidates(table)


def whole(batch: SeqBatch) -> SeqBatch:
    """Rows with their last target behind them: items (B, L + 1)."""
    if batch.targets is None:
        raise ValueError("a whole row ends in its last target, and the batch has no targets")
    lengths = batch.lengths[:, None]
    newest = batch.targets.gather(1, lengths - 1)  # (B, 1)
    items = F.pad(batch.items, (0, 1), value=PAD).scatter(1, lengths, newest)  # (B, L + 1)
    return SeqBatch(items, batch.lengths + 1, users=batch.users)
