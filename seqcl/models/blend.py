"""Blend: a trained network beside memories in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from seqcl.encoders import Memories, Memory
from seqcl.encoders.reranker import Reranker, width_of
from seqcl.errors import UserError, unknown
from seqcl.models.base import Baseline
from seqcl.models.ease import EASE
from seqcl.models.ensemble import Ensemble, Networks
from seqcl.models.item_knn import ItemKNN, check_similarity
from seqcl.models.linear import check_weights, closed_form
from seqcl.models.markov import Markov, check_transitions
from seqcl.models.mixture import Seen, choose, ranks_of
from seqcl.models.neighbours import place_in_row
from seqcl.models.reranking import examples, teach
from seqcl.models.slist import SLIST
from seqcl.parts import Part, chosen, part
from seqcl.types import SeqBatch, Windows

MEMORIES: dict[str, tuple[type[Baseline], str]] = {
    "SLIST": (SLIST, "weights"),
    "EASE": (EASE, "weights"),
    "ItemKNN": (ItemKNN, "similarity"),
    "Markov": (Markov, "next_items"),
}
"""The models that can be a memory, and the part of theirs whose options a blend has in a section with the memory's name."""

RECENCY = {"ItemKNN": 0.0, "Markov": 0.1}
"""Where the model has no such option: all items of a row count alike, or the newest alone."""

MOST = 3
"""Memories of a blend: every combination of their weights is tried."""

AMOUNTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Parts by which vectors are moved towards their neighbours; validation chooses one."""


@dataclass(frozen=True, kw_only=True)
class Blending:
    """Options of what stands beside the network.

    Args:
        memories: SLIST, EASE, ItemKNN or Markov, whose options are in a section of that name; [] for none.
        size: largest weights that a memory keeps of each item.
        neighbours: items before an item, by SLIST, towards which its vector is moved; how far, validation chooses; 0: it stays.
        gates: kinds of newest item, by count in training, each with weights of its own.
        folds: groups of users; each is validated with weights, and a network of the reranker, that were learned from the others.
        rerank: best items of a row that small networks rank anew, taught on validation, where there are memories and it pays; 0: none.

    Raises:
        UserError: an unknown memory, or a number out of its range.
    """

    memories: tuple[str, ...] = ("SLIST", "EASE")
    size: int = 500
    neighbours: int = 20
    gates: int = 2
    folds: int = 5
    rerank: int = 200

    def __post_init__(self) -> None:
        for name in self.memories:
            if name not in MEMORIES:
                raise unknown("memory in --blend.memories", name, MEMORIES)
        if len(set(self.memories)) < len(self.memories) or len(self.memories) > MOST:
            raise UserError(f"--blend.memories {', '.join(self.memories)}: up to {MOST}, each once")
        for name, least in (("size", 1), ("gates", 1), ("folds", 2), ("neighbours", 0), ("rerank", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--blend.{name} {getattr(self, name)}: must be {least} or more")


class Blend(Ensemble):
    """Next item by a network beside memories in closed form, weighed on validation (after Khandelwal et al. 2020, arXiv 1911.00172).

    Training is the network's own. After it, vectors are moved towards those of the items before them, and a score is that of the
    network plus weight * log(1 + share / 1e-5) for each memory, share being the item's part of what the memory recalls.
    Small networks rank the best items anew, see `Reranker`.

    Differs from the paper: memories are linear models of items (SLIST, EASE) instead of stored states, and their logs are added.
    """

    after_training = ("blend", *(name.lower() for name in MEMORIES))

    ensemble = part(Networks)
    blend = part(Blending)
    slist = part(closed_form, ridge=100.0, recency=2.0)
    ease = part(closed_form, likeness=1.0, diagonal=0.0, ridge=200.0, recency=2.0)
    itemknn = ItemKNN.similarity
    markov = Markov.next_items

    table: Tensor | None
    memories: Memories | None

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        own = chosen(type(self), parts)
        self.train_windows, self.blending = train, own["blend"]()
        self.sections = {name: own[name.lower()] for name in MEMORIES}
        for name in self.remembered():
            section, options = name.lower(), self.sections[name].options
            if name == "ItemKNN":
                check_similarity(section, **options)
            elif name == "Markov":
                check_transitions(section, **options)
            else:
                check_weights(section, train.num_items, **options)
        self.held_out = False
        self.memories = None
        self.register_buffer("table", None)  # (N, D) vectors of items that were moved

    def remembered(self) -> list[str]:
        """The models that are counted once the network is trained."""
        first = ["SLIST"] if self.blending.neighbours else []
        return list(dict.fromkeys([*first, *self.blending.memories]))

    def vectors(self) -> Tensor | None:  # type: ignore[override]
        """Vectors of items 1..N: (N, D); None where memories add to their inner products."""
        return self.dense() if self.memories is None else None

    def dense(self) -> Tensor:
        """The network's vectors of items 1..N, moved if they are: (N, D)."""
        return super().vectors() if self.table is None else self.table

    def vector_pieces(self) -> Iterator[Tensor]:
        """The same, some 65,536 at a time: (n, D) each."""
        return super().vector_pieces() if self.table is None else iter(self.table.split(65536))

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        found = self.network(batch)
        return (
            found if self.memories is None else self.memories(found, batch, self.directions(), held_out=self.held_out)
        )

    def network(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N without memories: (B, N)."""
        return self.queries(batch) @ self.dense().T

    def directions(self) -> Tensor:
        """The vectors of items 1..N without what stands for a bias: (N, d)."""
        vectors = self.dense()
        return vectors[:, : vectors.shape[1] - self.objective.scoring.biased]

    @torch.no_grad()
    def settle(
        self,
        made: Mapping[str, Memory],
        valid: Iterable[SeqBatch],
        *,
        figure: Callable[[], float],
        gain: Callable[[np.ndarray], np.ndarray],
        seen: Seen | None,
    ) -> float:
        """Move the vectors, put memories beside them and rank the best anew; choose how far, with which weights, and whether.

        Give how far.

        Args:
            made: what `count` gives for each name of `remembered`.
            valid: validation rows with targets (B,) and users, to be gone through several times.
            figure: the figure of this model on them.
            gain: what a rank (n,) is worth in that figure.
            seen: what is no candidate of these rows; None: all items are.
        """
        amount = self.move(made["SLIST"], figure) if self.blending.neighbours else 0.0
        if self.blending.memories:
            memories = self.empty()
            for name, part in memories.parts.items():
                part.load_state_dict(made[name].state_dict())
            memories.kinds.copy_(self.kinds())
            memories.to(self.dense().device)
            found = ranks_of(valid, self.network, memories, seen=seen)
            choose(found, gain, memories)
            self.memories = memories
            if self.blending.rerank:
                self.rerank(valid, memories, rows=len(found.ranks), figure=figure, seen=seen)
        return amount

    def rerank(
        self,
        valid: Iterable[SeqBatch],
        memories: Memories,
        *,
        rows: int,
        figure: Callable[[], float],
        seen: Seen | None,
    ) -> None:
        """Teach a reranker, and keep it where the figure grows: each user is then ranked by what others taught."""
        before = figure()
        memories.reranker = Reranker(num_items=memories.num_items, **self.reranker()).to(self.dense().device)
        memories.reranker.counts.copy_(torch.from_numpy(self.train_windows.item_counts()).log1p())
        known = examples(valid, self.network, memories, self.directions(), rows=rows, seen=seen)
        if not (teach(memories, known) and figure() > before):
            memories.reranker = None

    def begin(self, *, reranked: bool) -> None:
        """Make room for what `settled` gives, without content."""
        vectors = super().vectors()
        self.memories = self.empty(reranked=reranked).to(vectors.device) if self.blending.memories else None
        self.table = torch.zeros_like(vectors) if self.blending.neighbours else None

    def settled(self) -> dict[str, Tensor]:
        """What `settle` made, by name."""
        own = {} if self.memories is None else {f"memories.{n}": one for n, one in self.memories.state_dict().items()}
        return own if self.table is None else {"table": self.table, **own}

    def empty(self, *, reranked: bool = False) -> Memories:
        """Memories without content."""
        options = self.blending
        return Memories(
            num_items=self.train_windows.num_items,
            size=options.size,
            recency={name: self.recency(name) for name in options.memories},
            gates=options.gates,
            folds=options.folds,
            reranker=self.reranker() if reranked else None,
        )

    def reranker(self) -> dict[str, int]:
        """The arguments of a reranker, but for the number of items."""
        options = self.blending
        return {"size": options.rerank, "width": width_of(len(options.memories)), "networks": options.folds}

    def recency(self, name: str) -> float:
        """The age in items at which an item's part of a memory has fallen to 1 / e."""
        if name in RECENCY:
            return RECENCY[name]
        return float({"recency": 1.0, **self.sections[name].options}["recency"])

    def count(self, name: str) -> Memory:
        """Count a memory on the training rows."""
        kind, own = MEMORIES[name]
        size = min(self.blending.size, self.train_windows.num_items)
        memory = Memory(num_items=self.train_windows.num_items, size=size, recency=self.recency(name))
        memory.fill(kind(self.train_windows, **{own: self.sections[name]}).scores)
        return memory

    def kinds(self) -> Tensor:
        """The kind of each item: as many as there are gates, by counts that part the newest items of training evenly: (N + 2,)."""
        train = self.train_windows
        counts = train.item_counts()
        newest = train.items[np.maximum(train.ends, 1) - 1][train.ends > train.offsets[:-1]]  # (U,)
        bounds = np.quantile(counts[newest], np.arange(1, self.blending.gates) / self.blending.gates)
        return torch.from_numpy(np.searchsorted(bounds, counts))

    def move(self, memory: Memory, figure: Callable[[], float]) -> float:
        """Move the vectors towards those of the items before them, as far as the figure grows; give how far."""
        vectors = self.dense()
        width = vectors.shape[1] - self.objective.scoring.biased  # a bias stays
        mean = mean_before(vectors[:, :width], memory, self.blending.neighbours)
        tables = {amount: moved(vectors, mean, amount) for amount in AMOUNTS}
        figures = {}
        for amount, table in tables.items():
            self.table = table
            figures[amount] = figure()
        best = max(figures, key=lambda amount: figures[amount])
        self.table = tables[best]
        return best


def moved(vectors: Tensor, mean: Tensor, amount: float) -> Tensor:
    """Vectors (N, D) of which the first coordinates went towards a mean (N, d), and are as long as before."""
    before = vectors[:, : mean.shape[1]]
    after = torch.lerp(before, mean, amount)
    after = after * (before.norm(dim=1, keepdim=True) / after.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return torch.cat((after, vectors[:, mean.shape[1] :]), 1)


def mean_before(vectors: Tensor, memory: Memory, number: int) -> Tensor:
    """The mean of the vectors (N, d) of the items from which a memory has the largest weights to each item, so weighed: (N, d).

    It is an item's own vector where there is none.
    """
    weights = memory.weights[1:-1].flatten().cpu().numpy()
    first, second = (
        np.arange(len(vectors)).repeat(memory.items.shape[1]),
        memory.items[1:-1].flatten().cpu().numpy() - 1,
    )
    kept = np.flatnonzero((weights > 0) & (first != second))
    kept = kept[np.lexsort((-weights[kept], second[kept]))]  # by item, the largest first
    kept = kept[place_in_row(second[kept]) < number]
    shape = (len(vectors), len(vectors))
    before = sparse.csr_array((weights[kept], (second[kept], first[kept])), shape=shape)
    sums = np.asarray(before.sum(1)).reshape(-1, 1)
    own = vectors.cpu().numpy()
    return torch.from_numpy(np.where(sums > 0, before @ own / np.maximum(sums, 1e-12), own)).to(vectors)
