"""Mutual information of items, attributes, segments and rows: the pre-training of S3-Rec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

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
from seqcl.parts import FileName
from seqcl.types import PAD, SeqBatch, Similarity, Windows

Associated = Literal["items", "states"]


class MutualInformation(Objective):
    """Four terms of InfoNCE with bilinear scores, over whole rows that are read both ways.

    Source: S3-Rec, arXiv 2008.07873, section 4.2.

    A whole row is a window and its last target; the encoder's longest row must be one item longer than the window's.

    Differs from the paper and its code: similarities are cosines over a temperature, because dot products of new
    embeddings hardly move at first. The negatives of an item are all other items of the batch, none left out; the code
    draws one. The negatives of a segment are the other segments of the batch, without those of the same user, with the
    same target, or equal to it; the code draws one. An item in several rows of a batch counts once for its attributes.
    A segment is encoded by itself, not between MASKs. Places are masked at random; the last place is not always among
    them. One vector stands for a distance in both directions. Whole rows are read, where the code reads every prefix of them
    (`prefixes`); an item's attributes are found by its embedding, as the paper says, where the code has the state at its place
    (`aap` states).

    Args:
        dim: Width D of states and item embeddings.
        attributes: Attributes of items: columns of the item table, or a .json file of item -> [attributes]; without a
            choice, all columns of words.
        rate: Fraction of a row that is masked, one item at least.
        prefixes: Read every prefix of a row of two items or more, each once in an epoch, as the authors' code does.
        aap: Vectors that are to find an item's attributes: the embeddings of items, as in the paper, or the states at places
            that are not masked, as in the authors' code, so that the term reaches the blocks.
        item_attribute: Weight of the term between an item's embedding and its attributes (AAP, section 4.2.1); 0 leaves
            it out, here and below.
        masked_item: Weight of the term between the state at a MASK and the item it hides (MIP, section 4.2.2).
        masked_attribute: Weight of the term between the state at a MASK and the attributes of the item it hides (MAP,
            section 4.2.3).
        segment: Weight of the term between a row without a segment and the segment (SP, section 4.2.4).
        similarity: cosine, or dot product (the paper), after a bilinear map.
        temperature: Divisor of the similarities (paper 1).

    Raises:
        UserError: a value out of its range, an encoder that reads one way, or no attributes for a term that needs them.
    """

    offsets: Tensor  # (N + 3,), first place in `ids` of PAD, every item and MASK
    ids: Tensor  # (E,), attributes of all items

    def __init__(
        self,
        *,
        dim: int,
        attributes: Annotated[str | None, FileName(".json")] = None,
        rate: float = 0.2,
        prefixes: bool = False,
        aap: Associated = "items",
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
        check_choice("aap", aap, Associated)
        self.prefixes, self.aap = prefixes, aap
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
            raise UserError(
                "MutualInformation: these windows come without tables, so the attributes of items are unknown"
            )
        known = item_attributes(train.tables, self.chosen)
        text = json.dumps([known.offsets.tolist(), known.ids.tolist(), known.names])
        self.identity = {"attributes": hashlib.sha256(text.encode()).hexdigest()[:16]}
        self.register_buffer("offsets", torch.from_numpy(known.offsets), persistent=False)
        self.register_buffer("ids", torch.from_numpy(known.ids), persistent=False)
        self.attributes = nn.Embedding(len(known.names), encoder.dim)
        nn.init.normal_(self.attributes.weight, std=0.02)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        batch = prefixes_of(batch) if self.prefixes else batch
        rows = whole_rows(batch)
        distinct = rows.items.unique()
        distinct = distinct[distinct > PAD]  # (K,)
        terms: dict[str, Tensor] = {}
        self.missing = {}
        with reading_both_ways(encoder):
            associated = self.weights["item_attribute"] and self.aap == "states"
            if self.weights["masked_item"] or self.weights["masked_attribute"] or associated:  # M places are masked
                marks = choose(rows, rate=self.rate, least=1, generator=rng(rows.items.device))  # (B, L + 1)
                masked = rows._replace(items=rows.items.masked_fill(marks, encoder.num_items + 1))
                every = encoder(masked)  # (B, L + 1, D)
                states, items = every[marks], rows.items[marks]  # (M, D), (M,)
            if self.weights["item_attribute"]:
                if self.aap == "states":
                    shown = (rows.items > PAD) & ~marks  # (B, L + 1)
                    vectors, whose = every[shown], rows.items[shown]
                else:
                    vectors, whose = encoder.item_embeddings()[distinct], distinct
                terms["item_attribute"] = self.with_attributes("item_attribute", vectors, whose)
            if self.weights["masked_item"]:
                scores = self.scores("masked_item", states, encoder.item_embeddings()[distinct])  # (M, K)
                terms["masked_item"] = contrast(scores, items[:, None] == distinct)
                self.missing["masked_item"] = distinct.new_tensor(len(distinct) < 2)
            if self.weights["masked_attribute"]:
                terms["masked_attribute"] = self.with_attributes("masked_attribute", states, items)
            if self.weights["segment"]:
                terms["segment"] = self.with_segments(encoder, rows, Rows.of(batch))
        return {name: self.weights[name] * term for name, term in terms.items()}

    def with_segments(self, encoder: Encoder, rows: SeqBatch, whose: Rows) -> Tensor:
        """InfoNCE of rows without a segment and the segments of all rows: a scalar.

        Args:
            encoder: Encoder of rows and segments.
            rows: B whole rows.
            whose: Users and last targets of the rows.
        """
        without, segments = cut(rows, token=encoder.num_items + 1)
        context, segment = encoder.last(stack(without, segments)).chunk(2)  # (B, D) each
        itself = torch.eye(len(context), dtype=torch.bool, device=context.device)
        number = segments.items.unique(dim=0, return_inverse=True)[1]  # (B,), of each distinct segment
        one = number[:, None] == number  # (B, B), the same segment
        alike = (whose.like(whose) | one) & ~itself
        self.observed = {"masked_share": masked_share(alike, among=~itself)}
        self.missing["segment"] = (alike | itself).all()
        return contrast(self.scores("segment", context, segment), itself, keep=~alike)

    def with_attributes(self, name: str, states: Tensor, items: Tensor) -> Tensor:
        """Contrast states (M, D) with all attributes; those of `items` (M,) are the positives: a scalar."""
        assert self.attributes is not None
        owner, words = words_of(self.offsets, self.ids, items)  # (P,) each
        has = torch.zeros(len(items), self.attributes.num_embeddings, dtype=torch.bool, device=owner.device)  # (M, A)
        has[owner, words] = True
        self.missing[name] = ~(has.any(1) & ~has.all(1)).any()
        return each_positive(self.scores(name, states, self.attributes.weight), has)

    def scores(self, name: str, states: Tensor, others: Tensor) -> Tensor:
        """Compute bilinear scores of all pairs, over the temperature: (M, D), (C, D) -> (M, C)."""
        return similarities(self.maps[name](states), others, self.similarity) / self.temperature


def prefixes_of(batch: SeqBatch) -> SeqBatch:
    """Every position of B rows that has a target, as a row that ends there: items (P, L), targets (P, L) at their ends alone.

    Raises:
        ValueError: the batch has no targets.
    """
    if batch.targets is None:
        raise ValueError("a prefix ends in a target, and the batch has none")
    row, place = (batch.targets > PAD).nonzero(as_tuple=True)  # (P,), (P,)
    time = torch.arange(batch.items.shape[1], device=row.device)
    items = batch.items[row].masked_fill(time > place[:, None], PAD)  # (P, L)
    targets = batch.targets[row].masked_fill(time != place[:, None], PAD)  # (P, L)
    return SeqBatch(items, place + 1, targets=targets, users=None if batch.users is None else batch.users[row])


def cut(rows: SeqBatch, *, token: int) -> tuple[SeqBatch, SeqBatch]:
    """Cut a segment out of every row and put `token` in its places: the rows (B, L) and the segments (B, L / 2).

    A segment has 1 to n / 2 of a row's n items; every length and every place is equally likely.

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
