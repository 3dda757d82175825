"""Momentum contrast: keys of a slowly following copy of the encoder, and a queue of the last of them."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.augment import Pair, View
from seqcl.encoders import Encoder
from seqcl.errors import UserError, positive
from seqcl.losses import contrast, similarities
from seqcl.objectives.heads import Head
from seqcl.objectives.views import Rows, ViewsObjective, share, users_of
from seqcl.types import SeqBatch, Windows


class Follower(nn.Module):
    """A copy of modules that takes no gradient and follows them: theta <- m theta + (1 - m) leader."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = deepcopy(cast(nn.Module, encoder)).requires_grad_(False)
        self.head = deepcopy(head).requires_grad_(False)

    @torch.no_grad()
    def forward(self, batch: SeqBatch) -> Tensor:
        """Projected states after the newest items: (B, D)."""
        return self.head(cast(Encoder, self.encoder).last(batch))

    @torch.no_grad()
    def follow(self, encoder: Encoder, head: nn.Module, momentum: float) -> None:
        """Move towards the leaders; the statistics of batch norm are its own."""
        mine = [*self.encoder.parameters(), *self.head.parameters()]
        leaders = [*cast(nn.Module, encoder).parameters(), *head.parameters()]
        torch._foreach_lerp_(cast("list[Tensor]", mine), cast("list[Tensor]", leaders), 1 - momentum)


class MoCo(ViewsObjective):
    """Each first view must find the key of the second among the queue's: the term `contrast` (arXiv 1911.05722, eq. 1).

    With head=mlp it is version 2 (arXiv 2003.04297), with head=linear version 1. Differs from the paper: keys of the same
    user or with the same last target are no negatives, and the queue starts empty instead of random.

    Args:
        views: What makes the two views of a row.
        dim: Width of the encoder's states.
        weight: Factor of the term in the sum.
        temperature: What cosines are divided by; 0.07 in the paper.
        queue: Keys kept as negatives; 65536 in the paper, for a million images.
        momentum: Share of the key encoder that stays in each step; 0.999 in the paper.
        head: Projection before contrasting.
    """

    keys: Tensor  # (Q, D), unit length
    users: Tensor  # (Q,)
    targets: Tensor  # (Q,)
    count: Tensor  # (), keys that were ever put in

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        queue: int = 4096,
        momentum: float = 0.999,
        head: Head = "mlp",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("MoCo", temperature=temperature, queue=queue)
        check_momentum("MoCo", momentum)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("keys", torch.zeros(queue, dim))
        self.register_buffer("users", torch.full((queue,), -1))
        self.register_buffer("targets", torch.zeros(queue, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.follower = Follower(encoder, self.head)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        first, second = halves(self.make_views(batch))
        queries = F.normalize(self.head(encoder.last(first)).float(), dim=1)  # (B, D)
        keys = F.normalize(self.follower(second).float(), dim=1)  # (B, D)
        rows = Rows.of(batch)
        asking, kept = rows._replace(users=users_of(first, rows)), rows._replace(users=users_of(second, rows))
        empty = torch.arange(len(self.keys), device=keys.device) >= self.count  # (Q,)
        queue = Rows(self.users, self.targets)
        masked = (rows.like(queue) | asking.like(queue)) & ~empty  # (B, Q)
        own = (queries * keys).sum(1, keepdim=True)  # (B, 1)
        # The queue is copied: what comes in below must not change what the backward pass reads.
        logits = torch.cat((own, similarities(queries, self.keys.clone(), "dot")), 1) / self.temperature  # (B, 1 + Q)
        keep = F.pad(~(masked | empty), (1, 0), value=True)
        positives = torch.zeros_like(keep)
        positives[:, 0] = True
        loss = contrast(logits, positives, keep=keep)
        self.observe(queries, keys, masked_share=share(masked, ~empty))
        self.put(keys, kept)
        return {"contrast": self.weight * loss}

    @torch.no_grad()
    def put(self, keys: Tensor, rows: Rows) -> None:
        """Replace the oldest keys."""
        newest = slice(max(0, len(keys) - len(self.keys)), None)
        keys, users, targets = keys[newest], rows.users[newest], rows.targets[newest]
        place = (self.count + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[place], self.users[place], self.targets[place] = keys, users, targets
        self.count += len(keys)

    def after_step(self, encoder: Encoder) -> None:
        self.follower.follow(encoder, self.head, self.momentum)


def check_momentum(name: str, momentum: float) -> None:
    """Raise UserError unless the momentum is in [0, 1]."""
    if not 0 <= momentum <= 1:
        raise UserError(f"{name}: momentum must be from 0 to 1, not {momentum}")


def halves(both: SeqBatch) -> tuple[SeqBatch, SeqBatch]:
    """The two views of a stacked batch."""
    half = len(both.lengths) // 2
    return (
        SeqBatch._make(None if part is None else part[:half] for part in both),
        SeqBatch._make(None if part is None else part[half:] for part in both),
    )
