"""Tell a row from a view of it: with shuffled rows, the pretext of frame order (Misra et al., ECCV 2016, arXiv 1603.08561)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.augment import Pair, View, halves, stack
from seqcl.encoders import Encoder
from seqcl.losses import wide
from seqcl.objectives.heads import Head
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch


class Detect(ViewsObjective):
    """Tell by its newest state whether a row is itself or its view: the term `detect`, a binary cross entropy.

    With `--views Reorder` it is the detection of order (Shuffle and Learn, arXiv 1603.08561). A view that equals its row
    says nothing, and is left out with it.

    Differs from the paper: any view, not three frames out of order alone; whole rows, and one state for each.

    Args:
        views: Source of the view of a row; of a pair of views the second is used.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        head: Projection before the linear map that tells.
    """

    def __init__(self, *, views: Pair | View, dim: int, weight: float = 0.1, head: Head = "none") -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.tell = nn.Linear(dim, 1)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        shown = halves(self.make_views(batch))[1]
        both = stack(batch, shown)  # 2B rows, as wide as the wider
        row, view = both.items.chunk(2)
        changed = (row != view).any(1)  # (B,)
        logits = wide(self.tell(self.head(encoder.last(both))))[:, 0]  # (2B,)
        labels = torch.zeros_like(logits)
        labels[len(changed) :] = 1
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        weights = changed.repeat(2)
        right = ((logits > 0) == (labels > 0))[weights].to(logits.dtype)
        self.observed = {"told": right.mean() if len(right) else logits.new_tensor(0.5)}
        self.lack(detect=~changed.any())
        return {"detect": self.weight * (losses * weights).sum() / weights.sum().clamp(min=1)}
