"""Ways to make TapRec remember which item follows which, or to train it otherwise; docs/results.md says what each is worth.

They are parts for `--plugin` and no parts of the package, since none is better on Beauty. They have the options of configs/beauty-taprec.yaml:

    python run.py --plugin benchmarks/remembering.py --config configs/beauty-taprec.yaml --model Remembering --encoder.newest true
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from torch import Tensor, nn

import seqcl
from seqcl.encoders import ItemTable, Scoring, TapRec
from seqcl.losses import Correction, sampled_softmax
from seqcl.models import TapRec as TapRecModel
from seqcl.objectives import NextItem
from seqcl.objectives.positions import Learned
from seqcl.parts import part
from seqcl.types import PAD, SeqBatch, Windows

TEMPERATURE = 0.1
"""Divisor of the cosines."""


@seqcl.register("encoder")
class RememberingTapRec(TapRec):
    """TapRec with a second table of items.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items.
        dim: width D of states and item embeddings.
        dropout: share of embedding and block outputs dropped in training.
        newest: add to a state a vector of its newest item, from a table for that alone.
        newest_rows: share of these vectors dropped in training.
        newest_channels: share of their numbers dropped in training.
        untied: read items from a table of its own; scores have the other one.
        directed: begin both tables with left and right singular vectors of the transitions; those of `newest` have this length. 0: do not.
        masked: share of the items of a row that are read as the MASK in training.
        swapped: share of the items of a row that change places with the one before in training.
    """

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int = 64,
        dropout: float = 0.3,
        newest: bool = False,
        newest_rows: float = 0.0,
        newest_channels: float = 0.0,
        untied: bool = False,
        directed: float = 0.0,
        masked: float = 0.0,
        swapped: float = 0.0,
    ) -> None:
        super().__init__(num_items=num_items, max_len=max_len, dim=dim, dropout=dropout)
        self.newest_rows, self.newest_channels, self.directed = newest_rows, newest_channels, directed
        self.masked, self.swapped = masked, swapped
        self.newest = ItemTable(num_items, dim) if newest else None
        self.inputs = ItemTable(num_items, dim) if untied else None
        if untied:
            self.table.read = lambda items: self.inputs(items)

    def forward(self, batch: SeqBatch) -> Tensor:
        states = super().forward(self.changed(batch))
        return states if self.newest is None else states + self.recalled(batch.items)

    def last(self, batch: SeqBatch) -> Tensor:
        states = super().last(self.changed(batch))
        newest = batch.items.gather(1, batch.lengths[:, None] - 1)[:, 0]
        return states if self.newest is None else states + self.recalled(newest)

    def recalled(self, items: Tensor) -> Tensor:
        """The vectors that are added after items of any shape: (..., D)."""
        found = self.newest(items)
        if self.training and self.newest_channels:
            found = F.dropout(found, self.newest_channels)
        if self.training and self.newest_rows:
            found = found * (torch.rand(items.shape) >= self.newest_rows)[..., None]
        return found

    def changed(self, batch: SeqBatch) -> SeqBatch:
        """The rows as they are read in training, some items masked or swapped; targets stay."""
        items = batch.items
        if self.training and self.masked:
            hidden = (torch.rand(items.shape) < self.masked) & (items != PAD)
            items = items.masked_fill(hidden, self.num_items + 1)
        if self.training and self.swapped:
            first, second = items[:, :-1], items[:, 1:]
            swap = (torch.rand(second.shape) < self.swapped) & (second != PAD)
            items = items.clone()
            items[:, 1:] = torch.where(swap, first, items[:, 1:])
            items[:, :-1] = torch.where(swap, second, items[:, :-1])
        return batch._replace(items=items)

    def begin(self, train: Windows) -> None:
        """Put the first values into the second table."""
        length = self.table.weight[1:-1].norm(dim=1).mean()
        if self.directed:
            left, right = directed_vectors(train, self.dim)
            self.table.weight += length * right
            for second, size in ((self.newest, self.directed), (self.inputs, length)):
                if second is not None:
                    second.weight += size * left
        elif self.inputs is not None:
            self.inputs.weight += self.table.weight


def directed_vectors(train: Windows, dim: int) -> tuple[Tensor, Tensor]:
    """Vectors of unit length of items as the first and as the second of a transition: (N + 2, D) each.

    A transition over a gap of g items counts e^(-g / 2), up to two; counts are divided by the roots of both items' own.
    """
    rows = [train.items[start:stop] for start, stop in zip(train.offsets[:-1], train.ends, strict=True)]
    pairs = [(row[: -1 - gap], row[1 + gap :], math.exp(-gap / 2)) for row in rows for gap in range(3)]
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    weights = np.concatenate([np.full(len(one), weight) for one, _, weight in pairs])
    shape = (train.num_items + 2, train.num_items + 2)
    counts = csr_array((weights, (first, second)), shape=shape)
    by_first, by_second = counts.sum(1) + 1, counts.sum(0) + 1
    counts.data /= np.sqrt(np.repeat(by_first, np.diff(counts.indptr)) * by_second[counts.indices])
    left, values, right = svds(counts, k=dim, v0=np.random.default_rng(0).standard_normal(shape[0]))
    both = (torch.from_numpy(one * np.sqrt(values)) for one in (left, right.T))
    one, other = (F.normalize(vectors, dim=1, eps=1e-9).float() for vectors in both)
    return one, other


@seqcl.register("objective")
class TriedNextItem(NextItem):
    """Next item against popular negatives, otherwise.

    Args:
        loss: sampled_softmax, or softmax.
        margin: taken off the cosine of the target.
        ahead: items after a position that it learns.
        decay: weight of each of them beside the one before.
        learned: learn the temperature, which begins as TEMPERATURE.
    """

    def __init__(
        self,
        *,
        loss: str = "sampled_softmax",
        margin: float = 0.0,
        ahead: int = 1,
        decay: float = 0.5,
        learned: bool = False,
    ) -> None:
        super().__init__(
            loss=loss, negatives=2048, sampling="popularity", similarity="cosine", temperature=TEMPERATURE, bias=True
        )
        self.weights = [decay**step / sum(decay**one for one in range(ahead)) for step in range(ahead)]
        if margin:
            self.function = partial(with_margin, margin=margin / TEMPERATURE)
        if learned:
            self.scoring = LearnedScoring()

    def forward(self, encoder: seqcl.encoders.Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        if len(self.weights) == 1:
            return super().forward(encoder, batch)
        assert batch.targets is not None
        states, loss = encoder(batch).flatten(0, 1), torch.zeros(())
        for step, weight in enumerate(self.weights):
            later = F.pad(batch.targets[:, step:], (0, step)) * (batch.targets != PAD)
            places = (later.flatten() != PAD).nonzero()[:, 0]
            learned = Learned(states[places], later.flatten()[places], len(places))
            loss = loss + weight * self.over(learned, encoder.item_embeddings())
        return {"next_item": loss}


def with_margin(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    log_q: Tensor,
    margin: float,
    correction: Correction = "negatives",
    real: Tensor | None = None,
) -> Tensor:
    """`sampled_softmax` of logits of which the target's is less by a margin."""
    return sampled_softmax(states, table, targets, negatives, log_q=log_q - margin, correction=correction, real=real)


class LearnedScoring(Scoring):
    """Cosines over a temperature that is learned, as in CLIP (arXiv 2103.00020)."""

    def __init__(self) -> None:
        super().__init__(similarity="cosine", temperature=TEMPERATURE, bias=True)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))

    def queries(self, states: Tensor) -> Tensor:
        found = F.normalize(states, dim=-1) / self.log_temperature.exp()
        return torch.cat((found, (1 / self.log_temperature.exp()).expand(*found.shape[:-1], 1)), -1)

    def vectors(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        rows = F.normalize(rows, dim=-1)
        return rows if bias is None else torch.cat((rows, self.log_temperature.exp() * bias[:, None]), 1)


@seqcl.register("model")
class Remembering(TapRecModel):
    """TapRec with what was tried."""

    encoder = part(RememberingTapRec)
    next_item = part(TriedNextItem)

    def make_encoder(self, train: Windows, parts: dict) -> seqcl.encoders.Encoder:
        made = super().make_encoder(train, parts)
        with torch.no_grad():
            made.begin(train)
        return made
