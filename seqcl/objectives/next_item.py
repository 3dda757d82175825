"""The next item at every position that has a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders import Encoder
from seqcl.errors import UserError, check_choice, positive
from seqcl.losses import Correction, Similarity, bce, bpr, gbce, sampled_softmax, softmax
from seqcl.objectives.base import Objective, rng
from seqcl.types import PAD, SeqBatch, Windows

Loss = Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"]
Sampling = Literal["uniform", "popularity"]

LOSSES: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax,
    "sampled_softmax": sampled_softmax,
    "bce": bce,
    "gbce": gbce,
    "bpr": bpr,
}
"""Every next-item loss by the name that configurations use."""


class NextItem(Objective):
    """The mean loss over all positions with a target, of inner products with the item table: the term `next_item`.

    Args:
        loss: softmax over all items (chunked); or against drawn negatives: sampled_softmax with logQ correction, bce
            (SASRec, arXiv 1808.09781), gbce (gSASRec, arXiv 2308.07192), bpr (arXiv 1205.2618).
        negatives: Items drawn, for all losses but softmax (SASRec 1, gSASRec 256).
        shared: Whether one draw serves all positions of a batch, which is quicker, or each position draws its own.
        sampling: uniform over items, or popularity, by how often an item occurs in training, plus one.
        correction: of sampled_softmax by the chance to be drawn: of the negatives alone, which estimates the full
            softmax, or of both, the target too.
        similarity: dot, or cosine of state and item embedding.
        temperature: What scores are divided by; with cosine some 0.05 to 0.1.
        bias: Whether a score also has a number learned for each item, which begins as half the log of its count
            in training plus one, less the mean.
        smoothing: Share of the softmax target spread over all items; for softmax alone.
        t: Calibration of gbce, 0 to 1 (paper 0.75).

    Raises:
        UserError: a value out of its range.
    """

    cumulative: Tensor
    log_q: Tensor

    def __init__(
        self,
        *,
        loss: Loss = "softmax",
        negatives: int = 256,
        shared: bool = True,
        sampling: Sampling = "uniform",
        correction: Correction = "negatives",
        similarity: Similarity = "dot",
        temperature: float = 1.0,
        bias: bool = False,
        smoothing: float = 0.0,
        t: float = 0.75,
    ) -> None:
        super().__init__()
        check_choice("loss", loss, Loss)
        check_choice("sampling", sampling, Sampling)
        check_choice("correction", correction, Correction)
        check_choice("similarity", similarity, Similarity)
        if negatives < 1:
            raise UserError(f"NextItem: negatives must be 1 or more, not {negatives}")
        for name, value in (("smoothing", smoothing), ("t", t)):
            if not 0 <= value <= 1:
                raise UserError(f"NextItem: {name} must be from 0 to 1, not {value}")
        positive("NextItem", temperature=temperature)
        if smoothing and loss != "softmax":
            raise UserError(f"NextItem: smoothing={smoothing} works with loss=softmax alone, not with {loss}")
        self.loss, self.negatives, self.shared, self.sampling = loss, negatives, shared, sampling
        self.correction = correction
        self.similarity, self.temperature, self.smoothing, self.t = similarity, temperature, smoothing, t
        self.biased, self.only_last = bias, False
        self.register_parameter("bias", None)  # (N,)
        self.register_buffer("cumulative", torch.empty(0, dtype=torch.float64), persistent=False)  # (N,)
        self.register_buffer("log_q", torch.empty(0), persistent=False)  # (N,)

    def extra_repr(self) -> str:
        return f"loss={self.loss}, similarity={self.similarity}, temperature={self.temperature}"

    def bind(self, *, item_counts: np.ndarray | Tensor, only_last: bool = False) -> NextItem:
        """Hand in what the data decides and return the objective itself.

        Args:
            item_counts: (N + 2,) how often each id occurs in training.
            only_last: Whether every row's last position alone has a target, so that the encoder need not do the others.
        """
        counts = torch.as_tensor(item_counts, dtype=torch.float64, device=self.cumulative.device)[1:-1] + 1  # (N,)
        self.cumulative = (counts / counts.sum()).cumsum(0)
        self.log_q = (counts / counts.sum()).log().float()
        self.only_last = only_last
        if self.biased:
            self.bias = nn.Parameter((0.5 * (counts.log() - counts.log().mean())).float())
        return self

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.bind(item_counts=train.item_counts(), only_last=bool((train.first == train.stop - 1).all()))
        self.check(encoder)

    def check(self, encoder: Encoder) -> None:
        """Raise UserError if the encoder would read what it is to predict."""
        if self.only_last or getattr(encoder, "one_pass", True):
            return
        if getattr(encoder, "causal", True):
            raise UserError(
                "this encoder gives the state of a whole row alone, so it cannot learn all positions in one pass: "
                "use --data.windows prefix"
            )
        raise UserError(
            "this encoder reads the next item at every position, so it cannot learn to predict it in one pass: "
            "use --model BERT4Rec, which masks what it predicts, or --data.windows prefix, or another --encoder"
        )

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        states, targets = self.positions(encoder, batch)
        return {"next_item": self.mean(states, targets, encoder.item_embeddings())}

    def mean(self, states: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """The mean loss of states (T, D) that are to find the items targets (T,) in the encoder's table (N + 2, D)."""
        queries, targets = self.queries(states), targets - 1  # rows of the N candidates
        if self.loss == "softmax":
            return softmax(queries, self.candidates(table), targets, smoothing=self.smoothing)
        items = len(table) - 2
        drawn = self.draw(items, len(targets))
        log_q: Tensor = self.log_q
        bias: Tensor | None = self.bias
        if self.sampling == "uniform":
            wide = torch.promote_types(table.dtype, torch.float32)
            log_q = torch.full((items,), -math.log(items), dtype=wide, device=table.device)
        if len(targets) + drawn.numel() < items:  # only M < N of the items take part
            met, places = torch.cat((targets, drawn.flatten())).unique(return_inverse=True)  # (M,)
            targets, drawn = places[: len(targets)], places[len(targets) :].view(drawn.shape)
            rows, log_q, bias = F.embedding(met + 1, table), log_q[met], None if bias is None else bias[met]
        else:
            rows = table[1:-1]
        candidates = self.vectors(rows, bias)  # (M, D) or (N, D)
        if self.loss == "sampled_softmax":
            return sampled_softmax(queries, candidates, targets, drawn, log_q=log_q, correction=self.correction)
        if self.loss == "gbce":
            return gbce(queries, candidates, targets, drawn, t=self.t, items=items)
        return LOSSES[self.loss](queries, candidates, targets, drawn)

    def positions(self, encoder: Encoder, batch: SeqBatch) -> tuple[Tensor, Tensor]:
        """States (T, D) and target ids (T,) of the positions that have a target."""
        if batch.targets is None:
            raise ValueError("NextItem: the batch has no targets")
        if self.only_last:
            return encoder.last(batch), cast(Tensor, batch.last_targets())
        targets = batch.targets.flatten()  # (B * L,)
        places = (targets != PAD).nonzero()[:, 0]  # (T,)
        return encoder(batch).flatten(0, 1).index_select(0, places), targets[places]

    def draw(self, items: int, positions: int) -> Tensor:
        """Negatives as rows of the candidates: (K,) if shared, else (T, K)."""
        device = self.cumulative.device
        shape = (self.negatives,) if self.shared else (positions, self.negatives)
        if self.sampling == "uniform":
            return torch.randint(items, shape, generator=rng(device), device=device)
        if len(self.cumulative) != items:
            raise ValueError(f"NextItem: bound to {len(self.cumulative)} items, not to {items}; call bind first")
        chance = torch.rand(shape, generator=rng(device), device=device, dtype=torch.float64)
        return torch.searchsorted(self.cumulative, chance).clamp(max=items - 1)

    def queries(self, states: Tensor) -> Tensor:
        if self.similarity == "cosine":
            states = F.normalize(states, dim=-1)
        states = states / self.temperature if self.temperature != 1 else states
        if not self.biased:
            return states
        # As long as an item's vector is in the other coordinates, its bias in the last would mislead graph indexes.
        return torch.cat((states, states.new_full((*states.shape[:-1], 1), 1 / self.temperature)), -1)

    def candidates(self, table: Tensor) -> Tensor:
        return self.vectors(table[1:-1], self.bias)

    def vectors(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        """What queries meet of items, from their rows (n, D) of the table and their biases (n,): (n, D), or (n, D + 1) with a bias."""
        rows = F.normalize(rows, dim=-1) if self.similarity == "cosine" else rows
        return rows if bias is None else torch.cat((rows, self.temperature * bias[:, None].to(rows.dtype)), 1)
