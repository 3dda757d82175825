"""Next item among the items of the batch, corrected for their chance to be in it: the loss for large catalogues."""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.encoders import Encoder, Scoring
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.losses import softmax
from seqcl.objectives.base import Objective, check_prepared, refuse_unread, rng
from seqcl.objectives.positions import Learned, check_one_pass, learned_positions, only_newest
from seqcl.types import PAD, SeqBatch, Similarity, Windows

Correction = Literal["counts", "stream", "none"]


class BatchSoftmax(Objective):
    """Softmax of each state over the different targets of the batch and some items drawn at random: the term `next_item`.

    Each candidate is one item, so that no hit is accidental. The log of its chance to be among the candidates is taken off
    its score (Yi et al., RecSys 2019, section 3.2). The random items are mixed negative sampling (Yang et al., WWW 2020).
    The vectors of all other items are never made, if the encoder can make those of some items alone.

    Args:
        similarity: cosine, or dot product.
        temperature: divisor of the similarities.
        negatives: items drawn for each batch besides its targets, uniformly from those that training knows.
        correction: source of the chances: the counts of training targets (counts), the steps between two batches with the
            item (stream, Yi et al. 2019, algorithm 2; for logs that are not counted before), or none.
        correct_target: take the log of its chance off the target's score too, as the paper does; false leaves that score, as
            `next_item.correction` negatives does, since the target is there for certain.
        rate: rate of the running mean of steps, with correction=stream.
        bias: add to a score a number learned for each item; it begins as half the log of its count in training plus one,
            less the mean, and as 0 for items that training never met. All biases move in each step, with towers.sparse too.

    Raises:
        UserError: a value out of its range.
    """

    chance: Tensor
    catalogue: Tensor
    seen: Tensor
    gap: Tensor
    times: Tensor
    steps: Tensor

    def __init__(
        self,
        *,
        similarity: Similarity = "cosine",
        temperature: float = 0.1,
        negatives: int = 0,
        correction: Correction = "counts",
        correct_target: bool = True,
        rate: float = 0.05,
        bias: bool = False,
    ) -> None:
        super().__init__()
        positive("BatchSoftmax", temperature=temperature)
        not_negative("BatchSoftmax", negatives=negatives)
        if not 0 < rate <= 1:
            raise UserError(f"BatchSoftmax: rate must be above 0 and at most 1, not {rate}")
        check_choice("correction", correction, Correction)
        if correction != "stream":
            refuse_unread("BatchSoftmax", f"correction=stream, not {correction}", BatchSoftmax, rate=rate)
        if correction == "none":
            refuse_unread("BatchSoftmax", "a correction", BatchSoftmax, correct_target=correct_target)
        self.temperature, self.negatives, self.correction, self.rate = temperature, negatives, correction, rate
        self.correct_target = correct_target
        self.scoring = Scoring(similarity=similarity, temperature=temperature, bias=bias)
        self.only_last = False
        self.register_buffer("chance", torch.empty(0, dtype=torch.float64), persistent=False)  # (N + 2,) of one target
        # Items that training knows.
        self.register_buffer("catalogue", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("seen", torch.empty(0, dtype=torch.float64))  # (N + 2,) the step that last had the item
        self.register_buffer("gap", torch.empty(0, dtype=torch.float64))  # (N + 2,) mean steps from one to the next
        self.register_buffer("times", torch.empty(0, dtype=torch.float64))  # (N + 2,) steps that had the item
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, negatives={self.negatives}, correction={self.correction}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.only_last = only_newest(train)
        if not self.only_last:
            check_one_pass(encoder)
        self.scoring.begin(train.item_counts())
        if self.scoring.bias is not None:
            unmet = torch.from_numpy(train.item_counts()[1:-1] == 0).to(self.scoring.bias.device)
            self.scoring.bias.data[unmet] = 0
        device = self.steps.device
        counts = torch.from_numpy(train.target_counts()).double().to(device)  # (N + 2,)
        self.chance = counts / counts.sum()
        self.catalogue = torch.from_numpy(np.flatnonzero(train.item_counts())).to(device)
        if self.correction == "stream":
            self.seen, self.gap, self.times = (torch.zeros_like(counts) for _ in range(3))

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        drawn = self.negatives > 0 or self.correction != "none"
        check_prepared(self, not drawn or len(self.chance) > 0)
        learned = learned_positions(encoder, batch._replace(positions=None), newest=self.only_last)
        states, targets = learned.states, learned.targets  # (T', D), (T',)
        distinct = candidates = self.targets_of(batch, learned).unique()  # (K,)
        if self.negatives:
            place = torch.randint(
                len(self.catalogue), (self.negatives,), generator=rng(targets.device), device=targets.device
            )
            candidates = torch.cat((distinct, self.catalogue[place])).unique()  # (C,)
        if self.correction == "stream" and self.training:
            self.note(distinct)
        self.missing = {"next_item": targets.new_tensor(len(candidates) < 2)}
        if not learned.total:
            return {"next_item": states.sum() * 0}
        table = encoder.item_vectors(candidates)  # (C, D)
        wide = torch.promote_types(states.dtype, torch.float32)
        with torch.autocast(states.device.type, enabled=False):  # half precision would round the chances
            queries = self.scoring.queries(states.to(wide))  # (T, D)
            bias = self.scoring.bias
            table = self.scoring.vectors(table.to(wide), None if bias is None else bias[candidates - 1])  # (C, D)
            if (
                self.correction != "none"
            ):  # one more coordinate, 1 in every query, adds a term to each candidate's logit
                chance = self.log_chance(candidates, learned.total).to(wide)[:, None]  # (C, 1)
                queries = torch.cat((queries, queries.new_ones(len(queries), 1)), 1)
                table = torch.cat((table, -chance), 1)
            place = torch.searchsorted(candidates, targets)  # (T,)
            if self.correction == "none" or self.correct_target:
                return {"next_item": learned.mean(softmax(queries, table, place))}
            logits = (queries @ table.T).scatter_add(1, place[:, None], chance[place])  # (T, C)
            return {"next_item": learned.mean(F.cross_entropy(logits, place))}

    def targets_of(self, batch: SeqBatch, learned: Learned) -> Tensor:
        """The targets of all positions that learn one, on whichever process: (T,)."""
        if learned.places is None:
            return learned.targets
        targets = cast(Tensor, batch.last_targets() if self.only_last else batch.targets)
        return targets[targets != PAD]

    @torch.no_grad()
    def note(self, items: Tensor) -> None:
        """Count a step that has these items among its targets."""
        self.steps += 1
        rate = (1 / (self.times[items] + 1)).clamp(min=self.rate)  # a plain mean at first, which forgets where it began
        self.gap[items] += rate * (self.steps - self.seen[items] - self.gap[items])
        self.seen[items] = self.steps
        self.times[items] += 1

    @torch.no_grad()
    def log_chance(self, items: Tensor, targets: int) -> Tensor:
        """Log of the chance that each item is among the candidates of a batch with that many targets: (C,)."""
        if self.correction == "stream":
            absent = torch.log1p(
                -(1 / self.gap[items].clamp(min=1)).clamp(max=1 - 1e-9)
            )  # (C,), log of the chance not to be
        else:
            absent = targets * torch.log1p(-self.chance[items].clamp(min=1e-12, max=1 - 1e-9))
        if self.negatives:
            absent = absent + self.negatives * math.log1p(-1 / max(len(self.catalogue), 2))
        return torch.log(-torch.expm1(absent))
