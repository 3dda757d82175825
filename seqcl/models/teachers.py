"""Models as teachers: a network by its scores, a counted model by its scores as shares of their sum."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from seqcl import registry
from seqcl.errors import UserError
from seqcl.models.base import Baseline, Model, Recommender
from seqcl.objectives.teachers import Logits, Teacher
from seqcl.types import SeqBatch, Windows

LEAST = 1e-5
"""Share of every item, so that an item without a score has a logit."""


class OfCounts(Teacher):
    """A model that is counted: its scores, those below 0 left out, are shares, and their logs are logits."""

    counted = True

    def __init__(self, model: Model) -> None:
        self.model = model

    def without(self, train: Windows, users: np.ndarray) -> Teacher:
        rest = replace(train, ends=np.where(users, train.offsets[:-1], train.ends))
        device = next((one.device for one in self.model.buffers()), torch.device("cpu"))
        return OfCounts(type(self.model)(rest, **cast(Baseline, self.model).parts).to(device))

    @torch.no_grad()
    def logits(self, batch: SeqBatch) -> Tensor:
        scores = self.model.scores(batch).clamp(min=0)  # (B, N)
        shares = scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
        return (shares + LEAST).log()

    def to(self, device: torch.device) -> Teacher:
        self.model.to(device)
        return self


class OfNetwork(Teacher):
    """A trained model: scores are logits; states of all positions of a row come from one pass, where that gives the same."""

    def __init__(self, model: Recommender) -> None:
        self.model = model.eval().requires_grad_(False)
        self.vectors: Tensor | None = None

    @torch.no_grad()
    def items(self) -> Tensor:
        """Vectors of all items, which do not change: (N, D)."""
        if self.vectors is None:
            self.vectors = self.model.vectors()
        return self.vectors

    @torch.no_grad()
    def logits(self, batch: SeqBatch) -> Tensor:
        return self.model.queries(batch) @ self.items().T

    @torch.no_grad()
    def at(self, batch: SeqBatch, places: Tensor) -> Logits:
        encoder = self.model.encoder
        # Places counted from the end would tell a state how many items follow it.
        if not encoder.one_pass or any(getattr(one, "positions", "") == "end" for one in encoder.modules()):
            return super().at(batch, places)
        states = encoder(batch._replace(targets=None)).flatten(0, 1).index_select(0, places)
        queries, vectors = self.model.objective.scoring.queries(states), self.items()
        return lambda part: queries[part] @ vectors.T

    def to(self, device: torch.device) -> Teacher:
        self.model.to(device)
        self.vectors = None
        return self


def teacher_of(model: Model) -> Teacher:
    """A model as a teacher."""
    return OfNetwork(model) if isinstance(model, Recommender) else OfCounts(model)


def is_counted(name: str) -> bool:
    """True if a name is that of a model that is counted."""
    found = registry.TABLES["model"].get(name)
    return found is not None and issubclass(found, Baseline)


def none_of(name: str) -> str:
    """Say that a name is no teacher's."""
    counted = [known for known, kind in registry.TABLES["model"].items() if issubclass(kind, Baseline)]
    return f"{name} is no folder of a run, nor a model that is counted ({', '.join(counted)})"


def counted_teacher(name: str, train: Windows) -> Teacher:
    """A model that is counted on the training windows, with its own options.

    Raises:
        UserError: no such model.
    """
    if not is_counted(name):
        raise UserError(
            f"teachers: {name!r} is no model that is counted; the folder of a run teaches where seqcl trains: "
            "seqcl train, or seqcl distill"
        )
    return teacher_of(registry.TABLES["model"][name](train))
