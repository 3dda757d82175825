"""Find the next items of a row among those of the batch: CPC, and with a memory and several instances MMInfoRec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders import Encoder
from seqcl.encoders.dropout import Dropout
from seqcl.errors import check_choice, not_negative, positive
from seqcl.losses import similarities, wide
from seqcl.objectives.base import rng
from seqcl.objectives.kinship import different_items, masked_share, related
from seqcl.objectives.positions import check_one_pass, only_newest
from seqcl.objectives.rows import whole_rows
from seqcl.objectives.temperature import Schedule, Tempered
from seqcl.types import PAD, SeqBatch, Similarity, Windows


class Ahead(NamedTuple):
    """States, and the items that come after each of them."""

    states: Tensor  # (T, D)
    rows: Tensor  # (T,), the row of each state
    items: Tensor  # (k, T), the items 1 to k places after each, PAD where the row has ended


class PredictiveCoding(Tempered):
    """The base of both: each state must find the next items of its row among items of the batch, by the term `ahead`."""

    def __init__(self, *, weight: float, steps: int, similarity: Similarity, negatives: int) -> None:
        super().__init__()
        name = type(self).__name__
        not_negative(name, weight=weight)
        positive(name, steps=steps, negatives=negatives)
        check_choice("similarity", similarity, Similarity)
        self.weight, self.steps, self.negatives = weight, steps, negatives
        self.similarity, self.newest = similarity, False

    def predictions(self, states: Tensor, lasting: Sequence[Tensor]) -> Tensor:
        """Predict the vectors of the items after each state, nearest items first: (M, D).

        Args:
            states: (T, D).
            lasting: k tensors: in ascending order, the numbers of the states that have an item 1, 2, ... k places after them.
        """
        raise NotImplementedError

    def instances(self, vectors: Tensor) -> Tensor:
        """Make the n vectors by which each item is found: (K, D) -> (n, K, D)."""
        return vectors[None]

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.newest = only_newest(train)
        if not self.newest:
            check_one_pass(encoder)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        whole = batch if batch.targets is None else whole_rows(batch)
        reading = from_one_place if self.newest else from_all_places
        ahead = reading(encoder, batch, whole, self.steps)
        known = ahead.items > PAD  # (k, T), M of them
        lasting = [some.nonzero()[:, 0] for some in known]
        distinct, has = different_items(whole.items, encoder.num_items)  # (K,), (B, K)
        generator = rng(distinct.device)
        drawn = torch.randperm(len(distinct), generator=generator, device=distinct.device)[: self.negatives]  # (C,)
        kin = related(batch).float() @ has[:, drawn].float() > 0  # (B, C), items of the row and of related rows
        masked = kin[ahead.rows[torch.cat(lasting)]]  # (M, C)
        loss = self.loss(
            self.predictions(ahead.states, lasting),
            self.instances(encoder.item_vectors(distinct)),
            own=torch.searchsorted(distinct, ahead.items[known]),
            drawn=drawn,
            masked=masked,
        )
        self.observed = {"masked_share": masked_share(masked), **self.seen()}
        self.missing = {"ahead": masked.all()} if self.weight else {}
        return {"ahead": self.weight * loss}

    def loss(self, predicted: Tensor, vectors: Tensor, *, own: Tensor, drawn: Tensor, masked: Tensor) -> Tensor:
        """InfoNCE of predictions and the vectors of their items, among those drawn: a scalar, 0 without any negative.

        The exponentials of the instances of an item are added up (MIL-NCE, arXiv 1912.06430, eq. 1).

        Args:
            predicted: (M, D).
            vectors: (n, K, D) instances of the items.
            own: (M,) the item of each prediction.
            drawn: (C,) the items that are negatives.
            masked: (M, C) bool, True where one is no negative of a prediction.
        """
        predicted, vectors = wide(predicted), wide(vectors)
        if self.similarity == "cosine":
            predicted, vectors = F.normalize(predicted, dim=-1), F.normalize(vectors, dim=-1)
        predicted = predicted / self.temperature
        near = (vectors.index_select(1, own) * predicted).sum(2)  # (n, M)
        far = similarities(predicted, vectors.index_select(1, drawn).flatten(0, 1), "dot")  # (M, nC)
        with torch.no_grad():  # in place, where a new tensor and its gradient cost a sixth of the loss
            # Without negatives a finite floor takes the place of minus infinity, which would make the gradient NaN.
            far.unflatten(1, (len(vectors), -1)).masked_fill_(masked[:, None], torch.finfo(far.dtype).min)
        losses = F.softplus(far.logsumexp(1) - near.logsumexp(0))  # (M,)
        return losses.sum() / max(len(losses), 1)


class CPC(PredictiveCoding):
    """Each state must find the next items of its row, with a map for each distance: the term `ahead` (arXiv 1807.03748, eq. 3 and 4).

    Items are their embeddings in the encoder. Negatives are items of the batch, the same for all states, without those of
    the row and of related rows, which are of the same user or have the same last target. Where the newest position of a
    row alone is learned (windows=prefix), a row gives one state, `steps` items before its end; any encoder can do so.

    Differs from the paper: cosines over a temperature, because inner products of new embeddings hardly move at first. States
    and items are scored in the same space in which items are ranked.

    Args:
        dim: Width D of states and item embeddings.
        weight: Factor of the term.
        steps: Number k of next items to find; 12 in the paper, for speech.
        temperature: Divisor of the similarities; 1 in the paper.
        similarity: cosine, or dot product (the paper), of a mapped state and an item.
        negatives: Most items of a batch that are drawn as negatives.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
    """

    def __init__(
        self,
        *,
        dim: int,
        weight: float = 0.1,
        steps: int = 3,
        temperature: float = 0.1,
        similarity: Similarity = "cosine",
        negatives: int = 256,
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(weight=weight, steps=steps, similarity=similarity, negatives=negatives)
        self.begin(temperature, schedule, highest, period)
        self.maps = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(steps))

    def predictions(self, states: Tensor, lasting: Sequence[Tensor]) -> Tensor:
        return torch.cat([one(states.index_select(0, some)) for one, some in zip(self.maps, lasting, strict=True)])


class MemoryCPC(PredictiveCoding):
    """Each state must find several instances of its next items, read one after another through a memory: the term `ahead`.

    Source: MMInfoRec, arXiv 2109.00368. A state, and what a GRU makes of each prediction, gets the softmax reading of a
    learned memory added; the instances of an item are dropout draws of its vector.

    Differs from the paper: negatives are some different items of the batch instead of all occurrences, without those of the row
    and of related rows; cosines over a temperature; no attributes in an item's vector, no dropout after the memory, and the next-item
    term, not the memory, ranks.

    Args:
        dim: Width D of states and item embeddings.
        weight: Factor of the term.
        steps: Number k of next items to find; 1 in the code, 2 on Toys.
        temperature: Divisor of the similarities.
        similarity: cosine, or dot product (the paper).
        negatives: Most items of a batch that are drawn as negatives.
        memory: Learned vectors that a prediction reads; 64 in the code.
        instances: Dropout draws of each item; 4 in the code.
        dropout: Share of an item's vector that a draw drops; 0.5 in the code.
        schedule: Course of the temperature: constant, cosine over the epochs (arXiv 2303.13664), or learned (CLIP).
        highest: Temperature at which a cosine begins; `temperature` is then its lowest; 1 in the paper.
        period: Epochs of one swing of the cosine; 0 for all planned epochs.
    """

    def __init__(
        self,
        *,
        dim: int,
        weight: float = 0.1,
        steps: int = 3,
        temperature: float = 0.1,
        similarity: Similarity = "cosine",
        negatives: int = 128,
        memory: int = 64,
        instances: int = 4,
        dropout: float = 0.5,
        schedule: Schedule = "constant",
        highest: float = 1.0,
        period: int = 0,
    ) -> None:
        super().__init__(weight=weight, steps=steps, similarity=similarity, negatives=negatives)
        self.begin(temperature, schedule, highest, period)
        positive("MemoryCPC", memory=memory, instances=instances)
        self.number = instances
        self.dropout = Dropout(dropout, "objective.dropout")
        self.address = nn.Linear(dim, memory)
        self.memory = nn.Parameter(torch.randn(memory, dim))  # as long as a state, so that a reading shows
        self.step = nn.GRUCell(dim, dim) if steps > 1 else None

    def predictions(self, states: Tensor, lasting: Sequence[Tensor]) -> Tensor:
        last, states = lasting[0], states.index_select(0, lasting[0])
        found, hidden = [self.read(states)], torch.zeros_like(states)
        for some in lasting[1:]:
            kept, last = torch.searchsorted(last, some), some  # who has a farther item has all the nearer ones
            assert self.step is not None
            hidden = self.step(found[-1].index_select(0, kept), hidden.index_select(0, kept))
            found.append(self.read(hidden))
        return torch.cat(found)

    def read(self, states: Tensor) -> Tensor:
        """Add to each state (T, D) the mean of the memory by the softmax of its address."""
        return states + self.address(states).softmax(1) @ self.memory

    def instances(self, vectors: Tensor) -> Tensor:
        return self.dropout(vectors.expand(self.number, -1, -1))


def from_all_places(encoder: Encoder, batch: SeqBatch, whole: SeqBatch, steps: int) -> Ahead:
    """Read every state that an item comes after, in one pass; the states must not read what comes after them.

    Args:
        encoder: a causal one.
        batch: B rows.
        whole: the rows with their last targets behind them.
        steps: k.
    """
    length = batch.items.shape[1]
    items = F.pad(whole.items, (0, steps + length - whole.items.shape[1]), value=PAD)
    after = torch.stack([items[:, step : step + length] for step in range(1, steps + 1)])  # (k, B, L)
    some = after[0] > PAD  # (B, L), T of them
    return Ahead(encoder(batch)[some], some.nonzero()[:, 0], after[:, some])


def from_one_place(encoder: Encoder, batch: SeqBatch, whole: SeqBatch, steps: int) -> Ahead:
    """Read one state of every row, k items before its end, or after the first item of a shorter row."""
    lengths = (whole.lengths - steps).clamp(min=1)  # (B,)
    time = torch.arange(batch.items.shape[1], device=lengths.device)
    read = batch._replace(items=batch.items.masked_fill(time >= lengths[:, None], PAD), lengths=lengths, targets=None)
    items = F.pad(whole.items, (0, steps), value=PAD)
    places = lengths[None] + torch.arange(steps, device=lengths.device)[:, None]  # (k, B)
    return Ahead(encoder.last(read), torch.arange(len(lengths), device=lengths.device), items.T.gather(0, places))
