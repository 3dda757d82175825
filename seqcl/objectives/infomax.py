"""Find the parts of a row by the vector of the whole row: DIM, and across views and layers AMDIM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from seqcl.augment import Pair, View, stack
from seqcl.encoders import Encoder
from seqcl.errors import check_choice
from seqcl.losses import each_positive, similarities
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.kinship import different_items, related, related_share
from seqcl.objectives.rows import whole_rows
from seqcl.objectives.temperature import Schedule, Tempered
from seqcl.objectives.views import ViewsObjective
from seqcl.types import PAD, SeqBatch

Layers = Literal["both", "states", "items"]


class DIM(Tempered, ViewsObjective):
    """The vector of each view must find the places of the row's other view among those of other rows: the term `contrast`.

    Source: DIM, arXiv 1808.06670, eq. 5, local and by InfoNCE; across the two views and several layers AMDIM, arXiv 1906.00910,
    section 3.3 and 3.4. With the view Identity it is DIM. A place is its state, or its item's embedding.

    Differs from the papers: cosines over a temperature instead of bounded and regularised inner products. A row's vector, not a
    place, is what looks for places, through a head of its own; terms are averaged, and so are places, so that long rows count
    for more. DIM's prior is left out. The layers are the
    last and the first of the encoder. An item in several rows of a batch counts once. Places of rows of one user or with
    one last target are no negatives; nor are items of these rows, the last targets among them, in a view or not.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines.
        layers: Places by their states, by their items' embeddings, or the mean of both terms.
        head: Projection of a row's vector and, with weights of their own, of the places of each layer.
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
        temperature: float = 0.2,
        layers: Layers = "both",
        head: Head = "mlp",
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        self.begin(temperature, schedule, highest, period)
        check_choice("layers", layers, Layers)
        self.of_states: nn.Module | None = None if layers == "items" else projection(head, dim)
        self.of_items: nn.Module | None = None if layers == "states" else projection(head, dim)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        views = self.make_views(batch)
        states = encoder(views)  # (2B, L, D)
        ends = (views.lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        newest = states.gather(1, ends)[:, 0] if encoder.causal else encoder.last(views)
        whole = self.head(newest).chunk(2)  # (B, D), (B, D)
        same = related(batch, views)  # (B, B)
        source = batch if batch.targets is None else whole_rows(batch)
        distinct, has = different_items(stack(source, views).items, encoder.num_items)  # (N',), (3B, N')
        of_source, *of_views = has.chunk(3)  # (B, N') each
        known = same.float() @ has.view(3, *of_source.shape).any(0).float() > 0  # (B, N'), no negatives of a row
        terms = []
        for side, (items, seen, shown) in enumerate(zip(views.items.chunk(2), states.chunk(2), of_views, strict=True)):
            if self.of_states is not None:
                real = items > PAD  # (B, L), T of them
                own = real.nonzero()[:, 0] == torch.arange(len(items), device=items.device)[:, None]  # (B, T)
                masked = same.float() @ own.float() > 0  # (B, T)
                terms.append(self.loss(whole[1 - side], self.of_states(seen[real]), own, masked))
            if self.of_items is not None:
                there = shown.any(0)  # (N',), K of them
                places = self.of_items(encoder.item_vectors(distinct[there]))
                terms.append(self.loss(whole[1 - side], places, shown[:, there], known[:, there]))
        self.observe(*whole, masked_share=related_share(same), **self.seen())
        self.lack(contrast=same.all())
        return {"contrast": self.weight * torch.stack(terms).mean()}

    def loss(self, whole: Tensor, places: Tensor, own: Tensor, masked: Tensor) -> Tensor:
        """InfoNCE of rows (B, D) and places (T, D): a scalar.

        Args:
            whole: (B, D).
            places: (T, D).
            own: (B, T) bool, True where a place is one of a row.
            masked: (B, T) bool, True where a place is no negative of a row.
        """
        return each_positive(similarities(whole, places, "cosine") / self.temperature, own, keep=~masked)
