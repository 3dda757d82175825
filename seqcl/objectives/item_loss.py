"""The loss of states that are to find items: scoring, negatives and a loss, composed."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.encoders import Scoring
from seqcl.errors import UserError, check_choice
from seqcl.losses import LOSSES, Correction, Negatives, Sampling, check_share
from seqcl.objectives.base import Objective, rng
from seqcl.objectives.positions import Learned
from seqcl.shapes import fixed
from seqcl.types import Similarity


class ItemLoss(Objective):
    """A loss over states and the items that they are to find.

    Args:
        loss: softmax over all items (in chunks); or against drawn negatives: sampled_softmax with logQ correction, bce
            (SASRec, arXiv 1808.09781), gbce (gSASRec, arXiv 2308.07192), bpr (arXiv 1205.2618).
        negatives: Items drawn, for all losses but softmax (SASRec 1, gSASRec 256).
        shared: Draw once for all positions of a batch, which is quicker; else each position draws its own.
        sampling: uniform over items, or popularity, by the count of an item in training plus one.
        correction: Correction of sampled_softmax by the chance to be drawn: of the negatives alone, which estimates the
            full softmax, or of both, the target too.
        similarity: dot, or cosine of state and item embedding.
        temperature: Divisor of the scores; with cosine some 0.05 to 0.1.
        bias: Add to a score a number learned for each item; it begins as half the log of its count in training plus one,
            less the mean.
        smoothing: Fraction of the softmax target spread over all items; for softmax alone.
        t: Calibration of gbce, 0 to 1 (paper 0.75).

    Raises:
        UserError: a value out of its range.
    """

    def __init__(
        self,
        *,
        loss: Annotated[str, "loss"] = "softmax",
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
        name = type(self).__name__
        self.loss, self.function = loss, LOSSES.find(loss)
        self.takes = set(inspect.signature(self.function).parameters)
        check_choice("correction", correction, Correction)
        check_share(name, smoothing=smoothing, t=t)
        if smoothing and "smoothing" not in self.takes:
            able = [one for one, function in LOSSES.items() if "smoothing" in inspect.signature(function).parameters]
            raise UserError(f"{name}: smoothing={smoothing} works with loss={' or '.join(able)} alone, not with {loss}")
        if loss == "gbce" and sampling != "uniform":
            raise UserError(f"{name}: loss=gbce is calibrated for sampling=uniform (arXiv 2308.07192), not {sampling}")
        self.correction, self.smoothing, self.t = correction, smoothing, t
        self.scoring = Scoring(similarity=similarity, temperature=temperature, bias=bias)
        self.negatives = Negatives(count=negatives, shared=shared, sampling=sampling)

    def extra_repr(self) -> str:
        return f"loss={self.loss}"

    def bind(self, item_counts: np.ndarray | Tensor) -> None:
        """Take from the data the chances of negatives and the first values of biases.

        Args:
            item_counts: (N + 2,) how often each id occurs in training.
        """
        self.negatives.bind(item_counts)
        self.scoring.begin(item_counts)

    def mean(
        self,
        states: Tensor,
        targets: Tensor,
        table: Tensor,
        *,
        total: int | None = None,
        places: Tensor | None = None,
        real: Tensor | None = None,
    ) -> Tensor:
        """The mean loss: a scalar, 0 where there is nothing to find.

        Args:
            states: (T, D).
            targets: (T,) ids of the items to find.
            table: (N + 2, D) the encoder's item embeddings.
            total: number of positions of all processes, if these are a share of them.
            places: (T,) the numbers of these positions among all.
            real: (T,) bool, False where a position only fills the shape and counts for nothing.
        """
        if real is not None and "real" not in self.takes:  # one's own loss may know of no fillers
            states, targets, real = states[real], targets[real], None
            total = len(targets)
        queries, targets = self.scoring.queries(states), targets - 1  # rows of the N candidates
        if real is not None:
            targets = targets.clamp(min=0)
        total = len(targets) if total is None else total
        if not total or ("negatives" not in self.takes and not len(targets)):
            return queries.sum() * 0
        if "negatives" not in self.takes:
            return self.function(queries, self.scoring.candidates(table), targets, **self.wanted(real=real))
        items = len(table) - 2
        drawn = self.negatives.draw(items, total, rng(self.negatives.cumulative.device))
        if places is not None and drawn.dim() == 2:
            drawn = drawn[places]
        if not len(targets):
            return queries.sum() * 0
        log_q: Tensor = self.negatives.log_chance(items, table)
        bias: Tensor | None = self.scoring.bias
        if len(targets) + drawn.numel() < items:  # only M < N of the items take part
            met, places = distinct(torch.cat((targets, drawn.flatten())))  # (M,)
            targets, drawn = places[: len(targets)], places[len(targets) :].view(drawn.shape)
            rows, log_q, bias = F.embedding(met + 1, table), log_q[met], None if bias is None else bias[met]
        else:
            rows = table[1:-1]
        candidates = self.scoring.vectors(rows, bias)  # (M, D) or (N, D)
        return self.function(queries, candidates, targets, drawn, **self.wanted(log_q=log_q, items=items, real=real))

    def over(self, learned: Learned, table: Tensor) -> Tensor:
        """What this process adds to the mean loss over the learned positions of all: a scalar."""
        own = self.mean(
            learned.states, learned.targets, table, total=learned.total, places=learned.places, real=learned.real
        )
        return learned.mean(own)

    def wanted(self, **made: Any) -> dict[str, Any]:
        """The keywords that the loss has, among those made here and the options."""
        known = {"correction": self.correction, "smoothing": self.smoothing, "t": self.t, **made}
        return {name: value for name, value in known.items() if name in self.takes}


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted ids (M,) and the place of each of (n,) among them; with fixed shapes M is n, and all but the first of equals go unused."""
    if not fixed():
        return ids.unique(return_inverse=True)
    ordered = ids.sort().values
    return ordered, torch.searchsorted(ordered, ids)
