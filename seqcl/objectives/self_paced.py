"""Contrast with clusters that are reliable and with all other rows one by one, in one memory: SpCL."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl import processes
from seqcl.augment import Pair, View, halves
from seqcl.encoders import Encoder
from seqcl.errors import UserError, positive
from seqcl.losses import wide
from seqcl.objectives.base import rng
from seqcl.objectives.follower import check_momentum
from seqcl.objectives.kinship import Rows, last_of_each, masked_share, no_other, own_among_others
from seqcl.objectives.prototypes import encode, k_means
from seqcl.objectives.views import ViewsObjective
from seqcl.types import Batches, SeqBatch, Windows


class SpCL(ViewsObjective):
    """Each view must find its row's cluster, or its own vector where it has none, in a hybrid memory: the term `contrast`.

    Every epoch clusters the memory, which holds a vector of every user. A cluster counts if it stays together when there are
    fewer clusters, and of its rows those that stay together when there are more; the others are instances. The bar is
    set in the first epoch, so that better states make more clusters count. Source: SpCL, arXiv 2006.02713, section 3.

    Differs from the paper: k-means with more and with fewer clusters instead of DBSCAN with two radii; one vector for each
    user instead of each row; some instances are drawn as negatives, but for those of the row's user and of users whose vector
    was last made with the same last target. There is no source domain, and the paper's encoder is pre-trained: of a new one the bar
    is low. A user's vector is made of the mean of both views.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.05 in the paper.
        clusters: Number of clusters, before it is told which count.
        looser: Part of that number that the looser clustering has; the tighter one has as many times more.
        trusted: Part of the clusters that count in the first epoch; 0.9 in the paper.
        negatives: Instances drawn for each batch; all in the paper.
        momentum: Fraction of a user's vector that stays when its row comes again; 0.2 in the paper.
    """

    bank: Tensor  # (U, D), unit length, zero where a user has none
    targets: Tensor  # (U,), last target of the row that last changed the vector
    cluster: Tensor  # (U,), -1 for an instance of its own
    centres: Tensor  # (K, D), the mean of each cluster's vectors, zero where it does not count
    sizes: Tensor  # (K,), number of users in each cluster
    alone: Tensor  # (U,), the users without a cluster, then others
    instances: Tensor  # (), number of users without a cluster
    bar: Tensor  # (), the least independence of a cluster that counts

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        clusters: int = 256,
        looser: float = 0.8,
        trusted: float = 0.9,
        negatives: int = 1024,
        momentum: float = 0.2,
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head="none")
        positive("SpCL", temperature=temperature, clusters=clusters, negatives=negatives)
        for name, value in (("looser", looser), ("trusted", trusted)):
            if not 0 < value <= 1:
                raise UserError(f"SpCL: {name} must be above 0 and at most 1, not {value}")
        check_momentum("SpCL", momentum)
        self.temperature, self.clusters, self.looser, self.trusted = temperature, clusters, looser, trusted
        self.negatives, self.momentum = negatives, momentum
        self.register_buffer("bank", torch.zeros(0, dim))
        for name in ("targets", "cluster", "alone"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self.register_buffer("sizes", torch.zeros(clusters, dtype=torch.int64))
        self.register_buffer("instances", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bar", torch.zeros(()))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.bank = self.bank.new_zeros(train.num_users, self.bank.shape[1])
        self.targets, self.alone = (one.new_zeros(train.num_users) for one in (self.targets, self.alone))
        self.cluster = self.cluster.new_full((train.num_users,), -1)

    @torch.no_grad()
    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        super().before_epoch(encoder, batches, epoch=epoch, epochs=epochs)
        first = not self.bank.any()
        if first:
            states = encode(encoder, batches, "newest")  # (W, D)
            users, targets = (torch.cat(part) for part in zip(*map(users_and_targets, batches), strict=True))
            users, place = last_of_each(users)
            self.bank[users], self.targets[users] = states[place].to(self.bank.dtype), targets[place]
        known = self.bank.abs().sum(1).nonzero()[:, 0]  # (n,)
        work = partial(self.clustered, self.bank[known], bar=None if first else float(self.bar), seed=3 * epoch)
        labels, bar = processes.by_first(work)
        self.bar.fill_(bar)
        self.cluster.fill_(-1)
        self.cluster[known] = torch.from_numpy(labels).to(known.device)
        found = self.cluster[known]
        inside = known[found >= 0]
        self.sizes.copy_(torch.bincount(self.cluster[inside], minlength=self.clusters))
        self.centres.zero_().index_add_(0, self.cluster[inside], self.bank[inside])
        self.centres /= self.sizes.clamp(min=1)[:, None]
        self.instances.fill_((found < 0).sum())
        self.alone[: len(known)] = torch.cat((known[found < 0], inside))

    def clustered(self, states: Tensor, *, bar: float | None, seed: int) -> tuple[np.ndarray, float]:
        """Cluster states (n, D): the cluster of each, -1 for none, (n,), and the bar, made anew where there was none."""
        numbers = [self.clusters, round(self.clusters * self.looser), round(self.clusters / self.looser)]
        own, loose, tight = (
            nearest(states, k_means(states, max(1, number), seed=seed + place)[0])
            for place, number in enumerate(numbers)
        )
        return reliable(own, loose, tight, bar=bar, trusted=self.trusted)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        if batch.users is None:
            raise UserError("SpCL: needs a batch with users")
        both = self.make_views(batch)
        queries = F.normalize(wide(encoder.last(both)), dim=1)  # (2B, D)
        mine, device = self.cluster[batch.users], queries.device  # (B,)
        own = torch.where((mine >= 0)[:, None], self.centres[mine], self.bank[batch.users])
        draw = torch.rand(self.negatives, generator=rng(device), device=device, dtype=torch.float64)  # (K,)
        drawn = self.alone[(draw * self.instances).long().clamp(max=len(self.alone) - 1)]
        strangers, rows = Rows(drawn, self.targets[drawn]), Rows.of(batch)
        related = rows.like(strangers)
        for view in halves(both):
            related |= rows.shown_as(view).like(strangers)  # (B, K)
        nobody = (self.instances == 0).expand(len(drawn))
        masked = torch.cat((mine[:, None] == torch.arange(self.clusters, device=device), related), 1)
        empty = torch.cat((self.sizes == 0, nobody))
        loss = own_among_others(
            queries,
            own.repeat(2, 1),
            torch.cat((self.centres, self.bank[drawn])),
            masked=masked.repeat(2, 1),
            empty=empty,
            temperature=self.temperature,
        )
        first, second = queries.detach().chunk(2)
        share = (self.cluster >= 0).float().mean()
        self.observe(first, second, masked_share=masked_share(related, among=~nobody), clustered=share)
        self.lack(contrast=no_other(masked, empty))
        self.put(batch, F.normalize(first + second, dim=1))
        return {"contrast": self.weight * loss}

    @torch.no_grad()
    def put(self, batch: SeqBatch, rows: Tensor) -> None:
        """Move the vectors of the batch's users, and the centres with them, towards their rows (B, D); the last row counts."""
        assert batch.users is not None
        users, place = last_of_each(batch.users)
        old = self.bank[users]
        new = F.normalize(self.momentum * old + (1 - self.momentum) * rows[place], dim=1)
        self.bank[users], self.targets[users] = new, Rows.of(batch).targets[place].clamp(min=0)
        cluster = self.cluster[users]
        inside = cluster >= 0
        moved = (new - old)[inside] / self.sizes[cluster[inside], None]
        self.centres.index_add_(0, cluster[inside], moved)


def users_and_targets(batch: SeqBatch) -> tuple[Tensor, Tensor]:
    """Users and last targets of a batch, PAD where there is none: (B,), (B,)."""
    rows = Rows.of(batch)
    return rows.users, rows.targets.clamp(min=0)


def nearest(states: Tensor, centres: Tensor) -> np.ndarray:
    """The centre (K, D) with the largest inner product with each state (n, D): (n,)."""
    centres = centres.to(states.device, states.dtype)
    return torch.cat([(some @ centres.T).argmax(1) for some in states.split(65536)]).cpu().numpy()


def overlap(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Of each row's clusters in two clusterings (n,), (n,), the rows in both over the rows in either: (n,)."""
    pairs = one.astype(np.int64) * (two.max() + 1) + two
    _, place, both = np.unique(pairs, return_inverse=True, return_counts=True)
    both = both[place]
    return both / (np.bincount(one)[one] + np.bincount(two)[two] - both)


def reliable(
    own: np.ndarray, loose: np.ndarray, tight: np.ndarray, *, bar: float | None, trusted: float
) -> tuple[np.ndarray, float]:
    """Tell which rows of which clusters count: (n,) clusters, -1 for a row that is an instance, and the bar.

    A cluster's independence is the largest overlap that one of its rows has between `own` and `loose`; below the bar none of
    its rows counts. Its rows count whose overlap between `own` and `tight` is the largest of the cluster; at least two.

    Args:
        own: (n,) clusters of the rows.
        loose: (n,) their clusters in a clustering with fewer.
        tight: (n,) their clusters in one with more.
        bar: least independence; None sets it so that the `trusted` part of the clusters of several rows passes.
        trusted: that part.
    """
    size = own.max() + 1
    independence, compactness = np.zeros(size), np.zeros(size)
    by_row = overlap(own, tight)
    np.maximum.at(independence, own, overlap(own, loose))
    np.maximum.at(compactness, own, by_row)
    if bar is None:
        several = np.sort(independence[np.bincount(own) > 1])[::-1]
        bar = float(several[max(0, round(len(several) * trusted) - 1)]) if len(several) else 0.0
    counts = (independence[own] >= bar) & (by_row >= compactness[own])
    labels = np.where(counts, own, -1)
    members = np.bincount(own[counts], minlength=size)
    return np.where(members[own] > 1, labels, -1), bar
