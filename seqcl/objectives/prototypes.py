"""Contrast with centres of clusters as positives: PCL, and the intents of ICLRec and ICSRec."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl import processes
from seqcl.augment import Pair, View
from seqcl.encoders import Encoder, dealt
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.losses import contrast, nt_xent, similarities, wide
from seqcl.objectives.follower import Follower, check_momentum
from seqcl.objectives.heads import Head
from seqcl.objectives.kinship import of_another, related, related_share
from seqcl.objectives.rows import States, check_states, row_states
from seqcl.objectives.views import ViewsObjective
from seqcl.types import Batches, SeqBatch, Similarity, Windows

Negatives = Literal["batch", "clusters"]
IntentStates = Literal["newest", "mean"]


class Prototypes(ViewsObjective):
    """Contrast rows with k-means centres of all training rows, made anew every epoch: terms `contrast` and `intent`.

    `contrast` is NT-Xent of the two views; rows of one cluster are no negatives of each other. `intent` is InfoNCE of
    each view and its row's centre, the mean over all numbers of clusters. Its negatives are the centres of the other
    rows in the batch (ICLRec, arXiv 2202.02519), or all other centres, sharper where a cluster is dense (PCL,
    arXiv 2005.04966, eq. 11 and 12). A view of another user's row has the centre closest to its own state (ICSRec,
    arXiv 2310.14318). Clusters are made of training rows alone, before the first epoch too.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of `contrast`.
        intent: Factor of `intent`; 0.1 in ICLRec.
        clusters: Number of centres, or several numbers, each with centres of its own; 256 in ICLRec.
        negatives: batch (ICLRec) or clusters (PCL).
        temperature: Divisor of the similarities; with negatives=clusters the mean of the clusters' own divisors.
        similarity: cosine, or dot product (the authors' code of ICLRec and ICSRec); a row's own centre is always the
            one with the largest cosine.
        momentum: Fraction of a slow copy of the encoder that stays in each step; the copy's states make clusters and find a
            row's own centre. 0.999 in PCL; 0, as in ICLRec and ICSRec, is the encoder itself.
        warmup: Epochs without `intent` at the beginning of pre-training and of training, while the states mean little.
        head: Projection of views before `contrast`; clusters are made of states without it.
        states: Vector of a view in `contrast`: its newest state, the mean of its states, or all of them, aligned at
            their ends; all takes no head; all in the code of ICLRec, newest in that of ICSRec.
        intent_states: Vector of a row in `intent` and in the clusters, newest or mean; in the code of ICLRec mean, over
            padding too.
    """

    centres: Tensor  # (sum of clusters, D), unit length
    density: Tensor  # (sum of clusters,), concentration, small where a cluster is dense; its mean is 1
    active: Tensor  # (), True once there are centres

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        intent: float = 0.1,
        clusters: tuple[int, ...] = (256,),
        negatives: Negatives = "batch",
        temperature: float = 0.2,
        similarity: Similarity = "cosine",
        momentum: float = 0.0,
        warmup: int = 0,
        head: Head = "none",
        states: States = "newest",
        intent_states: IntentStates = "newest",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        check_states("Prototypes", states, head)
        check_choice("intent_states", intent_states, IntentStates)
        check_choice("negatives", negatives, Negatives)
        check_choice("similarity", similarity, Similarity)
        if not clusters or min(clusters) < 1:
            raise UserError(f"Prototypes: clusters must be numbers of 1 or more, not {list(clusters)}")
        not_negative("Prototypes", intent=intent, warmup=warmup)
        positive("Prototypes", temperature=temperature)
        check_momentum("Prototypes", momentum)
        self.momentum = momentum
        self.intent, self.clusters, self.negatives = intent, tuple(clusters), negatives
        self.temperature, self.similarity, self.warmup = temperature, similarity, warmup
        self.states, self.intent_states = states, intent_states
        total = sum(self.clusters)
        self.register_buffer("centres", torch.zeros(total, dim))
        self.register_buffer("density", torch.ones(total))
        self.register_buffer("active", torch.zeros((), dtype=torch.bool))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        if self.momentum:
            self.follower = Follower(encoder, nn.Identity())

    def after_step(self, encoder: Encoder) -> None:
        if self.momentum:
            self.follower.follow(encoder, self.momentum)

    def clustering(self, encoder: Encoder) -> Encoder:
        """The encoder whose states make the clusters."""
        return dealt(self.follower.encoder) if self.momentum else encoder

    @torch.no_grad()
    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        super().before_epoch(encoder, batches, epoch=epoch, epochs=epochs)
        if epoch < self.warmup:
            self.active.fill_(False)  # after pre-training there are centres
            return
        states = encode(self.clustering(encoder), batches, self.intent_states)  # (W, D)
        for seed, (centres, density) in enumerate(self.by_number()):
            made = processes.by_first(partial(k_means, states, len(centres), seed=epoch * len(self.clusters) + seed))
            found, concentration = (one.to(states.device) for one in made)
            centres[: len(found)], density[: len(found)] = found, concentration
            centres[len(found) :] = 0  # fewer rows than clusters
        self.active.fill_(True)

    def by_number(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give centres (K, D) and density (K,) of each number of clusters, as parts of the buffers."""
        return zip(self.centres.split(self.clusters), self.density.split(self.clusters), strict=True)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        both = self.make_views(batch)
        # (2B, D) or (2B, L * D), and (2B, D)
        contrasted, states = row_states(encoder, both, self.states, self.intent_states)
        first, second = self.head(contrasted).chunk(2)
        base = same = related(batch, both)
        intents, alone = [], []
        if self.active:
            with torch.no_grad():
                slow = self.clustering(encoder)
                if self.momentum:
                    slow.eval()  # as its states were when the clusters were made
                (rows,) = row_states(slow, batch._replace(targets=None), self.intent_states)
                another = of_another(batch, both)
                shown = row_states(slow, both, self.intent_states)[0] if self.momentum and another.any() else states
                rows = torch.where(another[:, None], shown, rows.repeat(2, 1))
                rows = F.normalize(wide(rows), dim=1)  # (2B, D)
            for centres, density in self.by_number():
                empty = centres.abs().sum(1) == 0  # (K,), left over where there were fewer rows than clusters
                own = similarities(rows, centres, "dot").masked_fill(empty, -torch.inf).argmax(1).view(2, -1)  # (2, B)
                apart = base | (own[..., None] == own[:, None])  # (2, B, B)
                intents.append(self.against(states, centres, density, own, apart))
                alone.append((~empty).sum() < 2 if self.negatives == "clusters" else apart.all())
                shared = own[:, None, :, None] == own[:, None]  # (2, 2, B, B)
                same = same | shared.flatten(0, 1).any(0)
        loss = nt_xent(first, second, temperature=self.temperature, similarity=self.similarity, same=same)
        terms = {"contrast": self.weight * loss}
        self.lack(contrast=same.all())
        if intents:
            terms["intent"] = self.intent * torch.stack(intents).mean()
            self.missing |= {"intent": torch.stack(alone).all()} if self.intent else {}
        self.observe(first, second, masked_share=related_share(same))
        return terms

    def against(self, states: Tensor, centres: Tensor, density: Tensor, own: Tensor, same: Tensor) -> Tensor:
        """InfoNCE of views and their own centres: a scalar.

        Args:
            states: (2B, D) views, first views first.
            centres: (K, D).
            density: (K,) factor of each centre's temperature.
            own: (2, B) number of each view's own centre.
            same: (2, B, B) bool, rows whose centres are no negatives of each other, for each of the two views.
        """
        if self.negatives == "clusters":
            logits = similarities(states, centres, self.similarity) / (self.temperature * density)  # (2B, K)
            filled = centres.abs().sum(1) > 0  # (K,)
            return contrast(logits, F.one_hot(own.flatten(), len(centres)).bool(), keep=filled)
        views = zip(states.chunk(2), own, strict=True)
        logits = torch.cat([similarities(view, centres[its], self.similarity) for view, its in views])  # (2B, B)
        eye = torch.eye(same.shape[1], dtype=torch.bool, device=states.device).repeat(2, 1)
        return contrast(logits / self.temperature, eye, keep=~same.flatten(0, 1))


def encode(encoder: Encoder, batches: Batches, kind: IntentStates) -> Tensor:
    """Make the vector of every training row, of the kind asked for, without dropout: (W, D) of unit length."""
    training = encoder.training
    encoder.eval()
    states = torch.cat([wide(row_states(encoder, batch._replace(targets=None), kind)[0]) for batch in batches])
    encoder.train(training)
    return F.normalize(states, dim=1)


def k_means(states: Tensor, clusters: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Spherical k-means by faiss, on the CPU: unit centres (K', D) and concentrations (K',), K' = min(clusters, W).

    The concentration is that of PCL, arXiv 2005.04966, eq. 12, divided by its mean over clusters: the mean distance of
    a cluster's rows to the centre, over log(rows + 10). A cluster of one row takes the largest of the others, a cluster
    of equal rows the smallest.

    Args:
        states: (W, D) of unit length.
        clusters: K.
        seed: Seed of the first centres.
    """
    import faiss

    rows = np.ascontiguousarray(states.cpu().numpy(), dtype=np.float32)
    clusters = min(clusters, len(rows))
    kmeans = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=20,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=10**9,
    )
    kmeans.train(rows)
    assert kmeans.centroids is not None
    cosine, own = kmeans.index.search(rows, 1)
    gaps = np.sqrt(np.maximum(2 - 2 * cosine[:, 0], 0))  # distances on the sphere
    gaps[gaps < 1e-3] = 0  # no more than rounding
    count = np.bincount(own[:, 0], minlength=clusters)
    total = np.bincount(own[:, 0], weights=gaps, minlength=clusters)
    concentration = total / (np.maximum(count, 1) * np.log(count + 10))
    some = concentration[concentration > 0] if concentration.any() else np.ones(1)
    # A cluster of one row has no distances of its own.
    concentration = np.where(count > 1, np.maximum(concentration, some.min()), some.max())
    concentration = np.clip(concentration, *np.quantile(concentration, [0.1, 0.9]))
    return torch.from_numpy(kmeans.centroids.copy()), torch.from_numpy(concentration / concentration.mean()).float()
