"""Contrast pairs of rows, up to a margin (Hadsell et al.), or each row as a class of its own (Ye et al.)."""

from __future__ import annotations

from torch import Tensor

from seqcl.augment import Pair, View, halves, stack
from seqcl.encoders import Encoder
from seqcl.errors import positive
from seqcl.losses import margin_contrast, spreading
from seqcl.objectives.heads import Head
from seqcl.objectives.kinship import related, related_share
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch


class Margin(ViewsObjective):
    """Draw the views of a row together, and other rows apart up to a margin: the term `contrast` (Hadsell et al., CVPR 2006, eq. 4).

    Differs from the paper: vectors of unit length, and means over each kind of pair instead of a sum over all. Rows of one
    user or with one last target are not driven apart.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        margin: Distance from which two rows are far enough apart; at most 2, as vectors have unit length. 1 is a cosine of
            0.5, 1.41 one of 0.
        head: Projection before the term, dropped after training.
    """

    def __init__(
        self, *, views: Pair | View, dim: int, weight: float = 0.1, margin: float = 1.0, head: Head = "none"
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("Margin", margin=margin)
        self.margin = margin

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        views = self.make_views(batch)
        first, second = self.head(encoder.last(views)).chunk(2)  # (B, D), (B, D)
        same = related(batch, views)
        loss = margin_contrast(first, second, margin=self.margin, same=same)
        self.observe(first, second, masked_share=related_share(same))
        self.lack(contrast=same.all())
        return {"contrast": self.weight * loss.masked_fill(same.all(), 0.0)}


class Instance(ViewsObjective):
    """A view must be told to be its row's, and no row to be another's: the term `contrast` (Ye et al., arXiv 1904.03436, section 3.2).

    Differs from the paper: the mean over rows instead of the sum. Rows of one user or with one last target are not driven
    apart. The authors' code contrasts two views of each row both ways, and leaves a view's own copy out of the sum below; what a view is
    compared with takes no gradient there.

    Args:
        views: Source of the view of a row; of a pair of views the second is used.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.1 in the paper.
        head: Projection before the term, dropped after training; none in the paper.
    """

    def __init__(
        self, *, views: Pair | View, dim: int, weight: float = 0.1, temperature: float = 0.1, head: Head = "none"
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("Instance", temperature=temperature)
        self.temperature = temperature

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        made = self.make_views(batch)
        both = stack(batch._replace(targets=None), halves(made)[1])
        rows, views = self.head(encoder.last(both)).chunk(2)  # (B, D), (B, D)
        same = related(batch, both)
        loss = spreading(rows, views, temperature=self.temperature, same=same)
        self.observe(rows, views, masked_share=related_share(same))
        self.lack(contrast=same.all())
        return {"contrast": self.weight * loss}
