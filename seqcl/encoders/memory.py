"""Memories beside a network: the largest weights from each item to others, which say what a row recalls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqcl.encoders.reranker import Reranker, facts
from seqcl.types import PAD, SeqBatch

FLOOR = 1e-5
"""Share of what a row recalls at which an item's bonus is weight * log 2; a much smaller one adds next to nothing."""

LEAST = 1e-3
"""Decayed weights below this are left out."""


class Memory(nn.Module):
    """Keeps the largest weights from each item to others; a row recalls their decayed sum.

    Args:
        num_items: N.
        size: weights that are kept of each item.
        recency: age in items at which an item's part has fallen to 1 / e; 0: all count alike.
    """

    items: Tensor
    weights: Tensor

    def __init__(self, *, num_items: int, size: int, recency: float) -> None:
        super().__init__()
        self.num_items, self.recency = num_items, recency
        self.register_buffer("items", torch.zeros(num_items + 2, size, dtype=torch.int32))  # ids, the largest first
        self.register_buffer("weights", torch.zeros(num_items + 2, size))

    @torch.no_grad()
    def fill(self, scores: Callable[[SeqBatch], Tensor]) -> None:
        """Take the weights of each item: the positive scores (B, N) of a row that holds it alone."""
        for ids in torch.arange(1, self.num_items + 1).split(1024):
            best = scores(SeqBatch(ids[:, None], torch.ones_like(ids))).topk(self.items.shape[1])
            self.items[ids] = (best.indices + 1).int()
            self.weights[ids] = best.values.clamp(min=0).to(self.weights)

    def forward(self, batch: SeqBatch) -> Tensor:
        """Each item's share of what a row recalls: (B, N); a row sums to 1, or to 0 where nothing is recalled."""
        sums, whole = self.sums(batch)
        return sums / whole

    def sums(self, batch: SeqBatch) -> tuple[Tensor, Tensor]:
        """Sum what a row recalls of each item, and of all: (B, N), (B, 1)."""
        time = torch.arange(batch.items.shape[1], device=batch.items.device)
        age = batch.lengths[:, None] - 1 - time  # (B, L), the newest has 0
        weight = torch.exp(-age / self.recency) if self.recency else torch.ones_like(age, dtype=torch.float32)
        again = (batch.items[:, :, None] == batch.items[:, None]) & (time > time[:, None])  # (B, L, L), comes later too
        weight = weight.masked_fill((age < 0) | again.any(2) | (weight < LEAST), 0)
        row, place = weight.nonzero(as_tuple=True)  # (n,) each
        ids = batch.items[row, place]
        sums = weight.new_zeros(len(weight), self.num_items + 2)
        where = row[:, None] * sums.shape[1] + self.items[ids]  # (n, K)
        sums.view(-1).index_add_(0, where.view(-1), (self.weights[ids] * weight[row, place, None]).view(-1))
        sums[:, PAD] = 0
        return sums[:, 1:-1], sums.sum(1, keepdim=True).clamp(min=1e-12)


class Memories(nn.Module):
    """Several memories, each with a weight: an item's bonus is the sum of weight * log(1 + share / FLOOR).

    It ranks as the log of share + FLOOR does, and is 0 for an item that no memory recalls.

    Args:
        num_items: N.
        size: weights that are kept of each item.
        recency: that of each memory, by name.
        gates: kinds of newest item, each with weights of its own.
        folds: groups of users, each with weights of its own that were learned from the others.
        reranker: the arguments of a reranker, which follows; None: none.
    """

    kinds: Tensor
    mixture: Tensor

    def __init__(
        self,
        *,
        num_items: int,
        size: int,
        recency: Mapping[str, float],
        gates: int,
        folds: int,
        reranker: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_items, self.size, self.recency = num_items, min(size, num_items), recency
        self.parts = nn.ModuleDict(
            {name: Memory(num_items=num_items, size=self.size, recency=age) for name, age in recency.items()}
        )
        self.register_buffer("kinds", torch.zeros(num_items + 2, dtype=torch.long))  # of each item
        self.register_buffer("mixture", torch.zeros(folds + 1, gates, len(recency)))  # the last one is everybody's
        self.reranker = Reranker(num_items=num_items, **reranker) if reranker else None

    def arguments(self) -> dict[str, Any]:
        """The arguments that make memories of the same form, as JSON."""
        return {
            "num_items": self.num_items,
            "size": self.size,
            "recency": dict(self.recency),
            "gates": self.mixture.shape[1],
            "folds": len(self.mixture) - 1,
            **({"reranker": self.reranker.arguments()} if self.reranker else {}),
        }

    def memories(self) -> list[Memory]:
        """The memories in their order."""
        return [part for part in self.parts.values() if isinstance(part, Memory)]

    def features(self, batch: SeqBatch) -> Tensor:
        """The bonus of each memory with weight 1: (B, K, N)."""
        found = torch.empty(len(batch.lengths), len(self.parts), self.num_items, device=self.mixture.device)
        for place, part in enumerate(self.memories()):
            torch.div(*part.sums(batch), out=found[:, place])
        return found.div_(FLOOR).log1p_()

    def recalled_by(self, items: Tensor, columns: Tensor) -> Tensor:
        """The same of rows of one item each (B,), in some columns (B, C): (B, K, C)."""
        rows = SeqBatch(items[:, None], torch.ones_like(items))
        found = [part.sums(rows) for part in self.memories()]
        return torch.log1p(torch.stack([sums.gather(1, columns) / whole for sums, whole in found], 1) / FLOOR)

    def kinds_of(self, batch: SeqBatch) -> Tensor:
        """The kind of each row's newest item: (B,)."""
        return self.kinds[newest(batch)]

    def folds_of(self, batch: SeqBatch) -> Tensor:
        """The group of each row's user: (B,)."""
        assert batch.users is not None
        return batch.users % (len(self.mixture) - 1)

    def forward(self, network: Tensor, batch: SeqBatch, vectors: Tensor, *, held_out: bool = False) -> Tensor:
        """Scores of items 1..N with the bonus of each, and the best ones ranked anew if there is a reranker: (B, N).

        The best are those of all items: what the row has seen is left out later, by who asks.

        Args:
            network: (B, N) scores of the network.
            batch: rows; with `users` where they are held out.
            vectors: (N, D) of items 1..N, whose cosines a reranker reads.
            held_out: score each user with what was learned without the user's group.
        """
        bonus = self.features(batch)
        scores = network + self.added(bonus, batch, held_out=held_out)
        if self.reranker is None:
            return scores
        best = scores.topk(min(self.reranker.size, self.num_items)).indices  # (B, C)
        networks = self.folds_of(batch) if held_out else None
        return self.reranker(scores, best, self.facts(best, network, bonus, batch, vectors), networks)

    def added(self, bonus: Tensor, batch: SeqBatch, *, held_out: bool) -> Tensor:
        """The weighted sum (B, N) of the bonus (B, K, N) of each memory."""
        fold = self.folds_of(batch) if held_out else torch.full_like(batch.lengths, len(self.mixture) - 1)
        return torch.einsum("bk,bkn->bn", self.mixture[fold, self.kinds_of(batch)], bonus)

    def facts(self, best: Tensor, network: Tensor, bonus: Tensor, batch: SeqBatch, vectors: Tensor) -> Tensor:
        """Gather what the reranker reads of the items in some columns (B, C) of each row: (B, C, F)."""
        assert self.reranker is not None
        last = newest(batch)  # (B,)
        counts = self.reranker.counts
        return facts(
            network.log_softmax(1).gather(1, best),
            bonus.gather(2, best[:, None].expand(-1, len(self.parts), -1)),
            self.recalled_by(last, best),
            counts[best + 1],
            F.cosine_similarity(vectors[best], vectors[last - 1][:, None], dim=2),
            torch.stack((batch.lengths.to(counts).log(), counts[last]), 1),
        )


def newest(batch: SeqBatch) -> Tensor:
    """The newest item of each row: (B,)."""
    return batch.items.gather(1, batch.lengths[:, None] - 1)[:, 0]
