"""Contrast items with themselves over two thinned graphs of what follows what: SGL, on transitions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqcl.encoders import Encoder
from seqcl.errors import UserError, not_negative, positive
from seqcl.losses import info_nce
from seqcl.objectives.base import Objective, check_prepared, rng
from seqcl.objectives.kinship import related_share
from seqcl.types import SeqBatch, Windows


class ItemGraph(Objective):
    """InfoNCE of items over two graphs of transitions, each without edges dropped at random: the term `graph`.

    An edge leads from an item to one that followed it in training, and weighs as often as it did. An item's vector in a
    graph is its embedding plus the weighted mean of those that its edges come from. The items are the newest of the rows,
    each once. Source: SGL with edge dropout, arXiv 2010.10783, section 3.

    Differs from the paper: the directed graph of transitions between items, as in DCRec (arXiv 2303.11780), instead of that of
    users and items; one layer instead of three; weighted edges; items that an edge joins are no negatives of each other.

    Args:
        weight: Factor of the term; 0.1 in the paper.
        temperature: Divisor of the cosines; 0.2 in the paper.
        rate: Chance of an edge to be dropped; 0.1 in the paper.
    """

    starts: Tensor  # (N + 3,), the edges into item i are those from starts[i] to starts[i + 1]
    others: Tensor  # (E,), the item that an edge comes from
    counts: Tensor  # (E,), how often it happened

    def __init__(self, *, weight: float = 0.1, temperature: float = 0.2, rate: float = 0.1) -> None:
        super().__init__()
        not_negative("ItemGraph", weight=weight)
        positive("ItemGraph", temperature=temperature)
        if not 0 <= rate < 1:
            raise UserError(f"ItemGraph: rate must be from 0 to below 1, not {rate}")
        self.weight, self.temperature, self.rate = weight, temperature, rate
        for name in ("starts", "others"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("counts", torch.zeros(0), persistent=False)

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        users, items = train.known()
        size = train.num_items + 2
        before, after = (part[users[1:] == users[:-1]].astype(np.int64) for part in (items[:-1], items[1:]))
        edges, counts = np.unique(after * size + before, return_counts=True)
        self.starts = torch.from_numpy(np.searchsorted(edges, np.arange(size + 1) * size))
        self.others, self.counts = torch.from_numpy(edges % size), torch.from_numpy(counts).float()

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        check_prepared(self, len(self.starts) > 0)
        items = batch.items.gather(1, batch.lengths[:, None] - 1).unique()  # (M,)
        owner, edges = self.into(items)  # (E',)
        ids, place = torch.cat((items, self.others[edges])).unique(return_inverse=True)
        vectors = encoder.item_vectors(ids)[place]  # (M + E', D)
        own, sent = vectors.split([len(items), len(edges)])
        first, second = (own + self.mean(sent, self.counts[edges], owner, len(items)) for _ in range(2))  # (M, D)
        same = self.joined(items, owner, self.others[edges])  # (M, M)
        self.observed = {"masked_share": related_share(same)}
        self.missing = {"graph": same.all()} if self.weight else {}
        loss = info_nce(first, second, temperature=self.temperature, keep=~same)
        return {"graph": self.weight * loss}

    def into(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The edges into items (M,): for each edge, the place of its item among them, and its number: (E',), (E',)."""
        begin, sizes = self.starts[items], self.starts[items + 1] - self.starts[items]  # (M,)
        owner = torch.arange(len(items), device=items.device).repeat_interleave(sizes)  # (E',)
        within = torch.arange(len(owner), device=items.device) - (sizes.cumsum(0) - sizes)[owner]
        return owner, begin[owner] + within

    def mean(self, sent: Tensor, weights: Tensor, owner: Tensor, items: int) -> Tensor:
        """The weighted mean of what the edges that are not dropped send, (E', D), to each of M items, 0 without any: (M, D)."""
        draw = torch.rand(weights.shape, generator=rng(weights.device), device=weights.device)
        kept = (weights * (draw >= self.rate)).to(sent.dtype)  # (E',)
        total = sent.new_zeros(items).index_add(0, owner, kept)
        whole = sent.new_zeros(items, sent.shape[1]).index_add(0, owner, sent * kept[:, None])
        return whole / total.clamp(min=1)[:, None]

    def joined(self, items: Tensor, owner: Tensor, others: Tensor) -> Tensor:
        """Mark items (M,) that one of these edges joins, and each with itself: (M, M) bool."""
        place = torch.full((len(self.starts) - 1,), -1, device=items.device)
        place[items] = torch.arange(len(items), device=items.device)
        same = torch.eye(len(items), dtype=torch.bool, device=items.device)
        among = place[others] >= 0
        same[owner[among], place[others[among]]] = True
        return same | same.T
