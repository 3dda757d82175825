"""Mutual information of items, attributes, segments and rows: what S3-Rec is pre-trained with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seqcl.augment.compose import stack
from seqcl.augment.operators import choose, random_start
from seqcl.data.attributes import item_attributes
from seqcl.encoders import Encoder
from seqcl.encoders.features import words_of
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.losses import contrast, each_positive, similarities
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.kinship import Rows, masked_share
from seqcl.objectives.rows import whole_rows
from seqcl.types import PAD, SeqBatch, Similarity, Windows


class MutualInformation(Objective):
    """Four terms of InfoNCE with bilinear scores, over whole rows that are read both ways (S3-Rec, arXiv 2008.07873, section 4.2).

    A whole row is what a window reads and its last target; the encoder's longest row must be one longer than the window's.
    Differs from the paper and its code: cosines over a temperature, because dot products of new embeddings hardly move at first;
    the negatives of an item are all others of the batch, none left out, and those of a segment the other segments of the
    batch, unless they are of one user, lead to one target or are the same, where the code draws one of each; an item in several rows of a batch
    counts once for its attributes; a segment is encoded by itself, not between MASKs; places are masked at random, without
    the last one always among them; one vector stands for a distance whichever way it goes.

    Args:
        dim: width D of states and item embeddings.
        attributes: what items are: columns of the item table, or a .json file of item -> [attributes]; all columns that suit if
            not given.
        rate: share of a row that is masked, one item at least.
        item_attribute: weight of an item's embedding with its attributes (AAP, section 4.2.1); 0 leaves it out.
        masked_item: weight of the state at a MASK with the item that belongs there (MIP, section 4.2.2).
        masked_attribute: weight of the state at a MASK with the attributes of that item (MAP, section 4.2.3).
        segment: weight of a row without a segment with the segment (SP, section 4.2.4).
        similarity: cosine, or dot product (the paper), of what a bilinear map has made comparable.
        temperature: what similarities are divided by (paper 1).

    Raises:
        UserError: a value out of its range, an encoder that reads one way, or attributes are asked for and there are none.
    """

    offsets: Tensor
    ids: Tensor

    def __init__(
        self,
        *,
        dim: int,
        attributes: str | None = None,
        rate: float = 0.2,
        item_attribute: float = 0.2,
        masked_item: float = 1.0,
        masked_attribute: float = 1.0,
        segment: float = 0.5,
        similarity: Similarity = "cosine",
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        positive("MutualInformation", temperature=temperature)
        check_choice("similarity", similarity, Similarity)
        if not 0 <= rate < 1:
            raise UserError(f"MutualInformation: rate must be from 0 to below 1, not {rate}")
        self.weights = {
            "item_attribute": item_attribute,
            "masked_item": masked_item,
            "masked_attribute": masked_attribute,
            "segment": segment,
        }
        not_negative("MutualInformation", **self.weights)
        if not any(self.weights.values()):
            raise UserError(f"MutualInformation: one of {', '.join(self.weights)} must be above 0")
        self.rate, self.chosen = rate, attributes
        self.similarity, self.temperature = similarity, temperature
        self.maps = nn.ModuleDict(
            {name: nn.Linear(dim, dim, bias=False) for name, weight in self.weights.items() if weight}
        )
        self.attributes: nn.Embedding | None = None

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={weight}" for name, weight in {"rate": self.rate, **self.weights}.items())

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        if encoder.causal and not encoder.both_ways:
            raise UserError(
                f"MutualInformation: {type(encoder).__name__} cannot read what follows a masked item; "
                "an encoder that can: SASRec"
            )
        if not (self.weights["item_attribute"] or self.weights["masked_attribute"]):
            return
        if train.tables is None:
            raise UserError("MutualInformation: these windows do not tell what their items are")
        known = item_attributes(train.tables, self.chosen)
        text = json.dumps([known.offsets.tolist(), known.ids.tolist(), known.names])
        self.identity = {"attributes": hashlib.sha256(text.encode()).hexdigest()[:16]}
        self.register_buffer("offsets", torch.from_numpy(known.offsets), persistent=False)  # (N + 3,)
        self.register_buffer("ids", torch.from_numpy(known.ids), persistent=False)  # (E,)
        self.attributes = nn.Embedding(len(known.names), encoder.dim)
        nn.init.normal_(self.attributes.weight, std=0.02)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        rows = whole_rows(batch)
        distinct = rows.items.unique()
        distinct = distinct[distinct > PAD]  # (K,)
        terms: dict[str, Tensor] = {}
        with reading_both_ways(encoder):
            if self.weights["masked_item"] or self.weights["masked_attribute"]:  # M places are masked
                marks = choose(rows, rate=self.rate, least=1, generator=rng(rows.items.device))  # (B, L + 1)
                masked = rows._replace(items=rows.items.masked_fill(marks, encoder.num_items + 1))
                states, items = encoder(masked)[marks], rows.items[marks]  # (M, D), (M,)
            if self.weights["item_attribute"]:
                terms["item_attribute"] = self.with_attributes(
                    "item_attribute", encoder.item_embeddings()[distinct], distinct
                )
            if self.weights["masked_item"]:
                scores = self.scores("masked_item", states, encoder.item_embeddings()[distinct])  # (M, K)
                terms["masked_item"] = contrast(scores, items[:, None] == distinct)
            if self.weights["masked_attribute"]:
                terms["masked_attribute"] = self.with_attributes("masked_attribute", states, items)
            if self.weights["segment"]:
                terms["segment"] = self.with_segments(encoder, rows, Rows.of(batch))
        return {name: self.weights[name] * term for name, term in terms.items()}

    def with_segments(self, encoder: Encoder, rows: SeqBatch, whose: Rows) -> Tensor:
        """Rows without a segment against the segments of all rows."""
        without, segments = cut(rows, token=encoder.num_items + 1)
        context, segment = encoder.last(stack(without, segments)).chunk(2)  # (B, D) each
        itself = torch.eye(len(context), dtype=torch.bool, device=context.device)
        one = (segments.items[:, None] == segments.items).all(-1)  # (B, B), the same segment
        alike = (whose.like(whose) | one) & ~itself
        self.observed = {"masked_share": masked_share(alike, among=~itself)}
        return contrast(self.scores("segment", context, segment), itself, keep=~alike)

    def with_attributes(self, name: str, states: Tensor, items: Tensor) -> Tensor:
        """States (M, D) against all attributes, those of items (M,) being the positives."""
        assert self.attributes is not None
        owner, words = words_of(self.offsets, self.ids, items)  # (P,) each
        has = torch.zeros(len(items), self.attributes.num_embeddings, dtype=torch.bool, device=owner.device)  # (M, A)
        has[owner, words] = True
        return each_positive(self.scores(name, states, self.attributes.weight), has)

    def scores(self, name: str, states: Tensor, others: Tensor) -> Tensor:
        """Bilinear scores of all pairs: (M, D), (C, D) -> (M, C)."""
        return similarities(self.maps[name](states), others, self.similarity) / self.temperature


def cut(rows: SeqBatch, *, token: int) -> tuple[SeqBatch, SeqBatch]:
    """Rows with `token` in the places of one segment, and the segments; 1 to n / 2 of n items, every length and every place equally likely.

    Source: S3-Rec, arXiv 2008.07873, section 4.2.4; the lengths are those of the authors' code.
    """
    device = rows.items.device
    generator, time = rng(device), torch.arange(rows.items.shape[1], device=device)  # (L,)
    size = 1 + random_start(rows.lengths // 2, torch.ones_like(rows.lengths), generator)  # (B,)
    start = random_start(rows.lengths, size, generator)  # (B,)
    inside = (time >= start[:, None]) & (time < (start + size)[:, None])  # (B, L)
    without = rows._replace(items=rows.items.masked_fill(inside, token))
    time = time[: len(time) // 2]  # no segment is longer
    segment = rows.items.gather(1, start[:, None] + time.minimum(size[:, None] - 1))  # (B, L / 2)
    return without, SeqBatch(segment.masked_fill(time >= size[:, None], PAD), size, users=rows.users)


@contextmanager
def reading_both_ways(encoder: Encoder) -> Iterator[None]:
    """Let the states of an encoder read the items after them too, inside the `with`."""
    before, encoder.causal = encoder.causal, False
    try:
        yield
    finally:
        encoder.causal = before
