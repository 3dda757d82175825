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
from seqcl.models.mixture import MIDDLE, Seen
from seqcl.types import SeqBatch

ITEMS = 10_000_000
"""Best items of all validation rows together that a reranker learns from, at most; rows are drawn at random where there are more."""

EPOCHS, RATE, DECAY, BATCH = 16, 1e-2, 1e-2, 256
"""AdamW trains each network so, with a rate that rises and falls once."""

STILL = 1e-3
"""A feature whose deviation is below this says nothing, and is left out."""


class Examples(NamedTuple):
    """The best items of the rows whose target is among them; and mean and deviation of the features, of all rows that were drawn."""

    features: Tensor  # (U, C, F)
    barred: Tensor  # (U, C) bool, of items that are no candidates
    targets: Tensor  # (U,) places among the best
    kinds: Tensor  # (U,) of the newest item
    folds: Tensor  # (U,)
    mean: Tensor  # (F,)
    deviation: Tensor  # (F,)


def examples(
    batches: Iterable[SeqBatch],
    network: Callable[[SeqBatch], Tensor],
    memories: Memories,
    vectors: Tensor,
    *,
    rows: int,
    seen: Seen | None,
) -> Examples:
    """Take the best items of validation rows, whatever the weights of the memories.

    Args:
        batches: validation rows, with targets (B,) and users.
        network: scores of items 1..N: (B, N).
        memories: with a reranker that is to learn.
        vectors: (N, D) of items 1..N.
        rows: how many validation rows there are.
        seen: what is no candidate; None: all items are.
    """
    assert memories.reranker is not None
    size = min(memories.reranker.size, memories.num_items)
    drawn = torch.zeros(rows, dtype=torch.bool)
    drawn[torch.randperm(rows, generator=torch.Generator().manual_seed(0))[: max(ITEMS // size, 1)]] = True
    found, start, number = list[tuple[Tensor, ...]](), 0, 0
    sums = torch.zeros(2, len(memories.reranker.mean), dtype=torch.float64)
    for batch in batches:
        assert batch.targets is not None and batch.users is not None
        plain, bonus = network(batch), memories.features(batch)  # (B, N), (B, K, N)
        scores = plain + MIDDLE * bonus.sum(1)
        if seen is not None:
            exclude_(scores, *seen(start, start + len(scores)))
        values, best = scores.topk(size)  # (B, C)
        features = memories.facts(best, plain, bonus, batch, vectors).cpu()
        taken, barred = drawn[start : start + len(scores)], values.cpu().isneginf()
        start += len(scores)
        flat = features[taken].flatten(0, 1).double()
        sums, number = sums + torch.stack((flat.sum(0), flat.square().sum(0))), number + len(flat)
        hit = (best == batch.targets[:, None] - 1).cpu() & ~barred
        own = taken & hit.any(1)
        of_rows = memories.kinds_of(batch).cpu(), memories.folds_of(batch).cpu()
        found.append(tuple(one[own] for one in (features, barred, hit.float().argmax(1), *of_rows)))
    mean, square = sums / max(number, 1)
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    features, barred, targets, kinds, folds = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Examples(features, barred, targets, kinds, folds, mean, deviation)


def teach(memories: Memories, known: Examples) -> bool:
    """Train each network to find the targets of all users but its own group's; false where there is none to learn from.

    What a network adds to are the scores with the weights that were chosen without its group, so no target of the group reaches it.
    """
    reranker = memories.reranker
    if reranker is None or not len(known.targets):
        return False
    still = known.deviation < STILL
    reranker.mean.copy_(known.mean)
    reranker.deviation.copy_(known.deviation.masked_fill(still, 1.0))
    for network in range(len(reranker.last)):
        rows = (known.folds != network).nonzero()[:, 0]
        weights = memories.mixture[network].cpu()[known.kinds]  # (U, K)
        bonus = known.features[:, :, 1 : 1 + weights.shape[1]]
        # The log of a softmax shifts all scores of a row alike.
        scores = known.features[:, :, 0] + (bonus * weights[:, None]).sum(2)
        scores = scores.masked_fill(known.barred, -torch.inf)
        if len(rows):
            reranker.take(network, trained(reranker, known, scores, rows, seed=network))
    reranker.first[:, still] = 0
    return True


def trained(reranker: Reranker, known: Examples, scores: Tensor, rows: Tensor, *, seed: int) -> list[Tensor]:
    """The weights of one network that was trained on some rows: softmax over a row's best items.

    Biases and the last layer begin at 0, so that nothing changes at first.
    """
    draw = torch.Generator().manual_seed(seed)
    weights = []
    for one in reranker.weights(0):
        spread = one.shape[0] ** -0.5 if one.ndim == 2 else 0.0
        weights.append(nn.Parameter((2 * torch.rand(one.shape, generator=draw) - 1) * spread))
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * -(-len(rows) // BATCH) + 1)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for ids in rows[torch.randperm(len(rows), generator=draw)].split(BATCH):
                features = reranker.standard(known.features[ids].to(reranker.mean)).cpu()
                optimizer.zero_grad()
                F.cross_entropy(scores[ids] + judged(features, *weights), known.targets[ids]).backward()
                optimizer.step()
                rate.step()
    return [one.detach() for one in weights]
