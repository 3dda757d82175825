"""A reranker: the best items of a row change places by small networks that read a few facts of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 32
"""Width of both hidden layers of a network."""


FURTHEST = 5.0
"""Deviations from the mean beyond which a feature counts no more."""


class Reranker(nn.Module):
    """Adds to the scores of each row's best items what small networks make of their features.

    They learn to rank by a softmax over the row's best items, the top-one form of ListNet (Cao et al. 2007, doi 10.1145/1273496.1273513).

    The best items of a row stay ahead of its others: all of them are lifted alike where one would fall behind.

    Args:
        num_items: N.
        size: best items of a row, C.
        width: features of an item, F.
        networks: how many there are; a row that is held out has its own, all others have the mean of all.
    """

    counts: Tensor
    mean: Tensor
    deviation: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor

    def __init__(self, *, num_items: int, size: int, width: int, networks: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("counts", torch.zeros(num_items + 2))  # log of 1 + how often each id comes in training
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        for name, shape in (
            ("first", (networks, width, HIDDEN)),
            ("first_bias", (networks, HIDDEN)),
            ("second", (networks, HIDDEN, HIDDEN)),
            ("second_bias", (networks, HIDDEN)),
            ("last", (networks, HIDDEN)),
        ):
            self.register_buffer(name, torch.zeros(shape))

    def arguments(self) -> dict[str, Any]:
        """The arguments that make a reranker of the same form, as JSON."""
        return {
            "size": self.size,
            "width": len(self.mean),
            "networks": len(self.last),
        }  # num_items is that of the memories

    def weights(self, network: int) -> list[Tensor]:
        """The weights of one network, as `judged` takes them."""
        return [one[network] for one in (self.first, self.first_bias, self.second, self.second_bias, self.last)]

    def take(self, network: int, weights: list[Tensor]) -> None:
        """Give one network its weights."""
        for own, one in zip(self.weights(network), weights, strict=True):
            own.copy_(one)

    def standard(self, features: Tensor) -> Tensor:
        """Features (B, C, F) with mean 0 and deviation 1 over validation rows; what is further off than any there is drawn near."""
        return ((features - self.mean) / self.deviation).clamp(-FURTHEST, FURTHEST)

    def forward(self, scores: Tensor, best: Tensor, features: Tensor, networks: Tensor | None = None) -> Tensor:
        """Scores of all items, those of the best ones anew: (B, N).

        Args:
            scores: (B, N).
            best: (B, C) columns of each row's best items.
            features: (B, C, F) of these.
            networks: (B,) the network of each row; None: the mean of all.
        """
        own = scores.gather(1, best)  # (B, C)
        anew = own + self.judge(self.standard(features), networks)
        fallen = own.amin(1) - anew.amin(1)  # (B,)
        return scores.scatter(1, best, anew + fallen.clamp(min=0)[:, None])

    def judge(self, known: Tensor, networks: Tensor | None = None) -> Tensor:
        """Judge standard features (B, C, F) by the network of each row (B,), or by the mean of all: (B, C)."""
        if networks is None:
            return torch.stack([judged(known, *self.weights(one)) for one in range(len(self.last))]).mean(0)
        added = known.new_zeros(known.shape[:2])
        for one in networks.unique().tolist():
            rows = networks == one
            added[rows] = judged(known[rows], *self.weights(one))
        return added


def judged(features: Tensor, first: Tensor, bias: Tensor, second: Tensor, second_bias: Tensor, last: Tensor) -> Tensor:
    """Judge the features (..., F) of each item by one network: (...)."""
    hidden = F.silu(features @ first + bias)
    return F.silu(hidden @ second + second_bias) @ last


def width_of(memories: int) -> int:
    """The number of features that `facts` gives of an item, with so many memories."""
    return 2 * memories + 5


def facts(scores: Tensor, bonus: Tensor, newest: Tensor, counts: Tensor, alike: Tensor, rows: Tensor) -> Tensor:
    """The features of items in one tensor: (B, C, F), with F = 2 K + 5.

    Args:
        scores: (B, C) log of the network's softmax.
        bonus: (B, K, C) of each memory.
        newest: (B, K, C) the same, of the row's newest item alone.
        counts: (B, C) log of 1 + how often the item comes in training.
        alike: (B, C) cosine with the row's newest item.
        rows: (B, 2) log of the row's length, and of 1 + how often its newest item comes in training.
    """
    of_items = torch.cat((scores[:, None], bonus, newest, counts[:, None], alike[:, None]), 1)  # (B, 2 K + 3, C)
    return torch.cat((of_items.transpose(1, 2), rows[:, None].expand(-1, scores.shape[1], -1)), 2)
