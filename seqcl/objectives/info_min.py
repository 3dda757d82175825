"""Views that share no more than the next item needs, made by small networks that work against the contrast: InfoMin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import not_negative, positive
from seqcl.losses import softmax, wide
from seqcl.objectives.learned_views import LearnedViews
from seqcl.types import PAD, SeqBatch


class InfoMin(LearnedViews):
    """NT-Xent of two views, and of versions made to tell little of each other: terms `contrast` and `learned`.

    Each step trains the encoder to find the learned version of a view from that of the other. Then it trains the augmenters,
    with the encoder fixed, to make that hard, while both versions must still tell the next item: the paper's
    semi-supervised views. Source: InfoMin, arXiv 2005.10243, section 4.

    Differs from the paper: small networks change states, where a flow changes pixels and splits their channels; the next item
    is the label, and the item table the classifier; `contrast` keeps the views themselves together.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of `contrast`.
        learned: Factor of `learned`.
        temperature: Divisor of the cosines in the contrast.
        adversary: Factor of the contrast in the augmenters' loss, which they make large, beside the mean over both versions of the
            next-item loss; 1 in the paper beside the sum.
        target_temperature: Divisor of the cosines of a learned version and the items.
        layers: Number of linear layers of an augmenter.
        lr: Learning rate of the augmenters.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        learned: float = 0.1,
        temperature: float = 0.2,
        adversary: float = 0.5,
        target_temperature: float = 0.1,
        layers: int = 3,
        lr: float = 1e-3,
    ) -> None:
        positive("InfoMin", temperature=temperature, target_temperature=target_temperature, layers=layers, lr=lr)
        not_negative("InfoMin", learned=learned, adversary=adversary)
        super().__init__(
            views=views, dim=dim, weight=weight, learned=learned, temperature=temperature, layers=layers, lr=lr
        )
        self.adversary, self.target_temperature = adversary, target_temperature
        self.targets: Tensor | None = None  # (B,), last targets of the current step

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        terms = super().forward(encoder, batch)
        self.targets = batch.last_targets()
        if self.targets is None or not (self.targets > PAD).any():
            self.seen = None  # nothing keeps the augmenters from making noise
        return terms

    def against(self, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """Contrast the learned versions of both views: a scalar."""
        one, two = self.versions(first, second)
        return self.between(one, two, same)

    def augmenters_loss(self, encoder: Encoder, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """What the augmenters minimise: the next item by both versions, less the contrast between them: a scalar."""
        assert self.targets is not None
        one, two = self.versions(first, second)
        told = self.targets > PAD  # (B,)
        items = F.normalize(wide(encoder.item_embeddings().detach()[1:-1]), dim=1)  # (N, D)
        states = F.normalize(wide(torch.cat((one[told], two[told]))), dim=1) / self.target_temperature
        next_item = softmax(states, items, self.targets[told].repeat(2) - 1)
        return next_item - self.adversary * self.between(one, two, same)
