"""Teach a reranker on validation rows: each of its networks leaves one group of users out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqcl.blocks import exclude_
from seqcl.encoders import Memories
from seqcl.encoders.reranker import Reranker, judged
from seqcl.models.mixture import Seen
from seqcl.types import SeqBatch

ROWS = 50_000
"""Validation rows that a reranker learns from, at most: drawn at random where there are more."""

EPOCHS, RATE, DECAY, BATCH = 16, 1e-2, 1e-2, 256
"""How each network is trained: AdamW, with a rate that rises and falls once."""


class Examples(NamedTuple):
    """The best items of some rows, and which of them is the target."""

    scores: Tensor  # (U, C)
    features: Tensor  # (U, C, F)
    targets: Tensor  # (U,) places among the best
    folds: Tensor  # (U,)


def examples(
    batches: Iterable[SeqBatch],
    network: Callable[[SeqBatch], Tensor],
    memories: Memories,
    vectors: Tensor,
    *,
    rows: int,
    seen: Seen | None,
) -> Examples:
    """Take the best items of each validation row whose target is among them, as its own group of users finds them.

    Args:
        batches: validation rows, with targets (B,) and users.
        network: scores of items 1..N: (B, N).
        memories: with weights, and a reranker that is to learn.
        vectors: (N, D) of items 1..N.
        rows: how many validation rows there are.
        seen: what is no candidate; None: all items are.
    """
    assert memories.reranker is not None
    taken = torch.zeros(rows, dtype=torch.bool)
    taken[torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:ROWS]] = True
    found, start = list[tuple[Tensor, ...]](), 0
    for batch in batches:
        assert batch.targets is not None
        plain, bonus = network(batch), memories.features(batch)  # (B, N), (B, K, N)
        scores = plain + memories.added(bonus, batch, held_out=True)
        if seen is not None:
            exclude_(scores, *seen(start, start + len(scores)))
        best = scores.topk(min(memories.reranker.size, scores.shape[1])).indices  # (B, C)
        hit = best == batch.targets[:, None] - 1  # (B, C)
        own = hit.any(1) & taken[start : start + len(scores)].to(hit.device)
        facts = memories.facts(best, plain, bonus, batch, vectors)
        parts = scores.gather(1, best), facts, hit.float().argmax(1), memories.folds_of(batch)
        found.append(tuple(one[own].cpu() for one in parts))
        start += len(scores)
    return Examples(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def teach(reranker: Reranker, known: Examples) -> None:
    """Train each network to find the targets of all users but its own group's: softmax over a row's best items.

    A score of minus infinity, of what a row has seen, stays so and is never found.
    """
    flat = known.features.flatten(0, 1).double()
    reranker.mean.copy_(flat.mean(0))
    reranker.deviation.copy_(flat.std(0).clamp(min=1e-6))
    for network in range(len(reranker.last)):
        rows = (known.folds != network).nonzero()[:, 0]
        if len(rows):
            reranker.take(network, trained(reranker, known, rows, seed=network))


def trained(reranker: Reranker, known: Examples, rows: Tensor, *, seed: int) -> list[Tensor]:
    """The weights of one network that was trained on some rows."""
    draw = torch.Generator().manual_seed(seed)
    weights = []
    for one in reranker.weights(0):
        spread = (
            0.0 if one.ndim == 1 else one.shape[0] ** -0.5
        )  # biases and the last layer begin at 0, so nothing changes at first
        weights.append(nn.Parameter((2 * torch.rand(one.shape, generator=draw) - 1) * spread))
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-len(rows) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for ids in rows[torch.randperm(len(rows), generator=draw)].split(BATCH):
                added = judged(reranker.standard(known.features[ids].to(reranker.mean)).cpu(), *weights)
                optimizer.zero_grad()
                F.cross_entropy(known.scores[ids] + added, known.targets[ids]).backward()
                optimizer.step()
                rate.step()
    return [one.detach() for one in weights]
