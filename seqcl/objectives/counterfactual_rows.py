"""Learn from rows that might have been: one item is another one, and a trained copy tells what would follow: CASR."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor

from seqcl import processes
from seqcl.augment import by_embedding
from seqcl.blocks import block_rows, exclude_
from seqcl.encoders import Encoder, states_of_all
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.objectives.base import Objective, refuse_unread, rng
from seqcl.objectives.follower import Follower
from seqcl.objectives.next_item import NextItem
from seqcl.objectives.positions import only_newest
from seqcl.types import PAD, Batches, SeqBatch, Windows

log = logging.getLogger("seqcl")

Sampler = Literal["nearest", "random"]


class CounterfactualRows(Objective):
    """Learn the next item of rows with one item replaced, as a trained copy of the model tells it: the term `counterfactual`.

    After `warmup` epochs the model is copied. The copy is the sampler, and the model in training is the anchor. Each row gives one
    beginning of it, and one place there, both drawn. At this place the sampler reads, one after the other, the items nearest to the
    row's own. The first with which it recommends another item than before makes the counterfactual row, and what it recommends is
    the target: the least change that changes the recommendation. No item of the row is recommended, neither the one taken out nor one
    put in, and what was recommended before is not put in, unless `repeats`. The row is learned if the sampler gives its target a chance
    of at least `confidence`, the paper's kappa. Until the copy is made there is no term. `observed` has `kept_share`, the rows that
    gave one to learn.

    Source: CASR, Wang et al., SIGIR 2021, doi 10.1145/3404835.3462855: the data-oriented sampler, or the random one.

    Differs from the paper: rows are made anew for every batch instead of once before training. Sampler and anchor are of one kind,
    and the anchor begins as the sampler. Of the items to put in, the nearest ones by cosine of their embeddings are tried,
    where the paper finds one by gradient. An item of the row is a target only with `repeats`. The sampler that seeks rows of large
    loss is not here.

    Args:
        next_item: The objective that ranks; sampler and anchor score as it does.
        weight: Factor of the term, which is the sum over the rows that are made, divided by the rows of the batch; one over the positions of a row lets
            a row that is made count as one position.
        warmup: Epochs on observed rows alone, after which the copy is made.
        renew: Epochs after which the copy is made anew; 0 for never, as in the paper.
        sampler: Item to put in: the nearest that changes the recommendation, or a random one, whatever it does.
        near: Nearest items that are tried.
        confidence: Least chance that the sampler gives a target, 0 to 1.
        repeats: A target may be an item that its row holds; false where seen items are no candidates (`eval.exclude_seen`).
    """

    neighbours: Tensor  # (N + 2, K), the items nearest to each, the nearest first
    ready: Tensor  # (), bool: there is a copy

    def __init__(
        self,
        *,
        next_item: NextItem,
        weight: float = 0.1,
        warmup: int = 5,
        renew: int = 0,
        sampler: Sampler = "nearest",
        near: int = 4,
        confidence: float = 0.1,
        repeats: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        not_negative(name, weight=weight, warmup=warmup, renew=renew)
        positive(name, near=near)
        check_choice("sampler", sampler, Sampler)
        if sampler == "random":
            refuse_unread(name, "sampler=nearest, not random", CounterfactualRows, near=near)
        if not 0 <= confidence <= 1:
            raise UserError(f"{name}: confidence must be from 0 to 1, not {confidence}")
        self.weight, self.warmup, self.renew = weight, warmup, renew
        self.sampler, self.near, self.confidence, self.repeats = sampler, near, confidence, repeats
        self.ranks = (next_item,)  # in a tuple, so that its parameters stay with the objective that ranks
        self.newest = False
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.newest = only_newest(train)
        self.follower = Follower(encoder, self.ranks[0].scoring)
        self.num_items = train.num_items
        if self.sampler == "nearest":
            self.register_buffer("neighbours", torch.zeros(train.num_items + 2, self.near, dtype=torch.int64))

    @torch.no_grad()
    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        if epoch == 0 and self.warmup >= epochs:
            log.warning("warmup %d of %d epochs: no counterfactual row is ever learned", self.warmup, epochs)
        due = not self.ready or (self.renew and (epoch - self.warmup) % self.renew == 0)
        if epoch < self.warmup or not due:
            return
        self.follower.follow(encoder, 0.0)
        if self.sampler == "nearest":
            table = self.follower.encoder.item_embeddings()
            found = processes.by_first(lambda: by_embedding(table, top_k=self.near)[0])
            self.neighbours.copy_(found)
        self.ready.fill_(True)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        self.observed, self.missing = {}, {}
        if not self.ready:
            return {}
        rows, targets = self.rows(batch)
        table = encoder.item_embeddings()
        share = len(targets) / len(batch.lengths)
        self.observed = {"kept_share": table.new_tensor(share).detach()}
        self.missing = {"counterfactual": table.new_tensor(not len(targets))} if self.weight else {}
        if not len(targets):
            return {"counterfactual": table.sum() * 0}
        return {"counterfactual": self.weight * share * self.ranks[0].mean(encoder.last(rows), targets, table)}

    @torch.no_grad()
    def rows(self, batch: SeqBatch) -> tuple[SeqBatch, Tensor]:
        """Make the counterfactual rows of a batch that are kept, M of them, and their targets (M,)."""
        begun = batch if self.newest else self.beginnings(batch)
        place = self.drawn(begun.lengths)[:, None]  # (B, 1)
        items, lengths = begun.items, begun.lengths
        others = self.others(items.gather(1, place)[:, 0])  # (B, K)
        tried = torch.stack([items, *(items.scatter(1, place, one[:, None]) for one in others.T)])  # (1 + K, B, L)
        users = None if batch.users is None else batch.users.repeat(len(tried))
        answers, chances = self.answers(SeqBatch(tried.flatten(0, 1), lengths.repeat(len(tried)), users=users), items)
        answers, chances = answers.unflatten(0, (len(tried), -1)), chances.unflatten(0, (len(tried), -1))
        changed = torch.ones_like(answers[1:], dtype=torch.bool)  # (K, B)
        if self.sampler == "nearest":
            changed = answers[1:] != answers[0]
            if not self.repeats:  # what is put in is no candidate, so that another item is recommended in any case
                changed &= answers[0] != others.T
        first = (changed.int().argmax(0) + 1)[None]  # (1, B)
        kept = (changed.any(0) & (chances.gather(0, first)[0] >= self.confidence)).nonzero()[:, 0]
        chosen = first[0, kept]  # (M,)
        made = SeqBatch(tried[chosen, kept], lengths[kept], users=None if batch.users is None else batch.users[kept])
        return made, answers[chosen, kept]

    def beginnings(self, batch: SeqBatch) -> SeqBatch:
        """Cut each row behind one of its items, each equally likely."""
        lengths = self.drawn(batch.lengths) + 1
        behind = torch.arange(batch.items.shape[1], device=lengths.device) >= lengths[:, None]
        return SeqBatch(batch.items.masked_fill(behind, PAD), lengths)

    def drawn(self, lengths: Tensor) -> Tensor:
        """Draw a place of each row (B,), each equally likely: (B,)."""
        draw = torch.rand(lengths.shape, generator=rng(lengths.device), device=lengths.device)
        return (draw * lengths).long()

    def others(self, items: Tensor) -> Tensor:
        """The items to try in the place of some (B,): (B, K)."""
        if self.sampler == "nearest":
            return self.neighbours[items]
        return torch.randint(1, self.num_items + 1, (len(items), 1), generator=rng(items.device), device=items.device)

    def answers(self, rows: SeqBatch, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Take the sampler's best item behind each of n rows, and its chance among the candidates: (n,) ids, (n,).

        Args:
            rows: n rows.
            observed: (B, L) the rows of which they were made, over and over: their items are no candidates either.
        """
        encoder, scoring = self.follower.encoder.eval(), self.follower.head
        queries = scoring.queries(states_of_all(encoder.last, rows))  # type: ignore[operator]
        vectors = scoring.candidates(encoder.item_embeddings())  # type: ignore[operator]
        best, chances = [], []
        step = block_rows(len(vectors), queries.device)
        barred = torch.cat((rows.items, observed.repeat(len(rows.items) // len(observed), 1)), 1)  # (n, 2L)
        for part, items in zip(queries.split(step), barred.split(step), strict=True):
            logits = part @ vectors.T  # (C, N)
            if not self.repeats:
                row, place = (items != PAD).nonzero(as_tuple=True)
                exclude_(logits, row, items[row, place] - 1)
            top = logits.max(1)
            best.append(top.indices + 1)
            chances.append((top.values - logits.logsumexp(1)).exp())
        return torch.cat(best), torch.cat(chances)
