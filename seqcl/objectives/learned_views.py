"""Make views with small networks that are trained in turn with the encoder: MCLRec."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import check_choice, not_negative, positive
from seqcl.losses import nt_xent, view_regularizer
from seqcl.objectives.kinship import related, related_share
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch, Similarity

BETAS, EPS = (0.9, 0.999), 1e-8
Activation = Literal["relu", "gelu"]


class LearnedViews(ViewsObjective):
    """NT-Xent of two views and of their learned versions: terms `contrast` and `learned` (MCLRec, arXiv 2304.07763).

    Each step trains the encoder with the augmenters fixed. Then it trains the augmenters with the encoder fixed, on
    states of the same views from the updated encoder. The augmenters have an Adam of their own. The regulariser keeps
    learned views from becoming equal.

    Differs from the authors' code: that trains the encoder on each batch a second time, after the augmenters have
    changed. Its augmenters narrow a state to a half and a quarter in between; here all layers are as wide as a state. Its
    regulariser has the views of both augmenters for anchors, here the first one's alone.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of `contrast`.
        learned: Factor of `learned`.
        temperature: Divisor of the similarities.
        similarity: cosine, or dot product (the authors' code).
        layers: Number of linear layers of an augmenter; 3 in the paper.
        activation: Non-linearity between these layers; gelu in the authors' code.
        unit: Scale learned views to length 1, as the authors' code does. Without it inner products let the augmenters lower
            their loss by making them longer.
        lr: Learning rate of the augmenters; 0.001 in the paper.
        regularise: Factor of the regulariser within `learned`; 0.1 in the paper.
    """

    first: Tensor  # (P,), Adam's first moment of all P parameters of the augmenters
    second: Tensor  # (P,), Adam's second moment
    steps: Tensor  # (), number of Adam's steps done

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        learned: float = 0.1,
        temperature: float = 0.2,
        similarity: Similarity = "cosine",
        layers: int = 3,
        activation: Activation = "relu",
        unit: bool = False,
        lr: float = 1e-3,
        regularise: float = 0.1,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head="none")
        positive("LearnedViews", temperature=temperature, layers=layers, lr=lr)
        not_negative("LearnedViews", learned=learned, regularise=regularise)
        check_choice("similarity", similarity, Similarity)
        check_choice("activation", activation, Activation)
        self.learned, self.lr, self.regularise = learned, lr, regularise
        self.temperature, self.similarity = temperature, similarity
        self.augmenters = nn.ModuleList(augmenter(dim, layers, activation, unit) for _ in range(2)).requires_grad_(
            False
        )
        size = sum(parameter.numel() for parameter in self.augmenters.parameters())
        self.register_buffer("first", torch.zeros(size))
        self.register_buffer("second", torch.zeros(size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.seen: tuple[SeqBatch, Tensor] | None = None  # views and related rows of the current step

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        both = self.make_views(batch)
        same = related(batch, both)
        first, second = encoder.last(both).chunk(2)  # (B, D), (B, D)
        self.seen = (both, same)
        self.observe(first, second, masked_share=related_share(same))
        self.lack(contrast=same.all())
        self.missing |= {"learned": same.all()} if self.learned else {}
        contrast = self.between(first, second, same)
        return {"contrast": self.weight * contrast, "learned": self.learned * self.against(first, second, same)}

    def against(self, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """Contrast each view with the learned version of the other, and both learned ones with each other: a scalar."""
        one, two = self.versions(first, second)
        total = first.new_zeros(())
        for left, right in ((first, two), (second, one), (one, two)):
            total = total + self.between(left, right, same)
            if self.regularise:
                total = total + self.regularise * view_regularizer(left, right, same, similarity=self.similarity)
        return total

    def versions(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The learned versions of two views: (B, D), (B, D)."""
        return self.augmenters[0](first), self.augmenters[1](second)

    def augmenters_loss(self, encoder: Encoder, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """What the augmenters minimise: a scalar."""
        return self.against(first, second, same)

    def between(self, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """NT-Xent of two views (B, D) of each row; rows marked in `same` (B, B) are no negatives: a scalar."""
        return nt_xent(first, second, temperature=self.temperature, similarity=self.similarity, same=same)

    def after_step(self, encoder: Encoder) -> None:
        """Train the augmenters on the views of the last step."""
        if self.seen is None:
            return
        both, same = self.seen
        self.seen = None
        with torch.no_grad():
            first, second = encoder.last(both).chunk(2)
        self.augmenters.requires_grad_(True)
        with torch.enable_grad():
            loss = self.augmenters_loss(encoder, first, second, same)
            gradients = torch.autograd.grad(loss, list(self.augmenters.parameters()))
        self.augmenters.requires_grad_(False)
        self.adam(torch.cat([gradient.flatten() for gradient in gradients]))

    @torch.no_grad()
    def adam(self, gradient: Tensor) -> None:
        """Update the augmenters by their flat gradient (P,) (arXiv 1412.6980, algorithm 1)."""
        self.steps += 1
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        steps = int(self.steps)
        mean = self.first / (1 - BETAS[0] ** steps)
        square = self.second / (1 - BETAS[1] ** steps)
        change = self.lr * mean / (square.sqrt() + EPS)
        parameters = list(self.augmenters.parameters())
        for parameter, part in zip(parameters, change.split([p.numel() for p in parameters]), strict=True):
            parameter.sub_(part.view_as(parameter))


class Unit(nn.Module):
    """Scale rows to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """From x (B, D) to the same shape."""
        return F.normalize(x, dim=1)


def augmenter(dim: int, layers: int, activation: Activation, unit: bool) -> nn.Sequential:
    """Build linear layers with a non-linearity between, and unit length behind if wanted: (B, D) -> (B, D)."""
    parts: list[nn.Module] = [nn.Linear(dim, dim)]
    for _ in range(layers - 1):
        parts += [nn.GELU() if activation == "gelu" else nn.ReLU(), nn.Linear(dim, dim)]
    return nn.Sequential(*parts, *([Unit()] if unit else []))
