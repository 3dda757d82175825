"""What an objective is, the sum of several, and where their randomness comes from."""

from __future__ import annotations

from typing import cast

import torch
from torch import Generator, Tensor, nn

from seqcl.encoders import Encoder
from seqcl.errors import UserError
from seqcl.types import Batches, SeqBatch, Windows


def rng(device: torch.device) -> Generator:
    """PyTorch's own generator of the device, so that its saved random state is all that a resumed run needs."""
    if device.type == "cuda":
        torch.cuda.init()  # before it there are no generators
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


class Objective(nn.Module):
    """What training minimises: a module that knows encoder and batch and keeps whatever state it needs as buffers."""

    observed: dict[str, Tensor]
    """Detached scalars of the last forward pass, to be logged and not minimised."""

    times_needed: bool = False
    """Whether batches must have times."""

    identity: dict[str, str]
    """What else than the log it is about: a checkpoint made with something else is not resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.observed, self.identity = {}, {}

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        """Named scalars, already weighted; their sum is minimised."""
        raise NotImplementedError

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        """Called once, when the model is built: take from the training windows what is needed, copy the encoder."""

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        """Called before every epoch, from 0 on, of at most `epochs`; `batches` has every training row once, in order."""

    def after_step(self, encoder: Encoder) -> None:
        """Called after every step of the optimizer."""

    def queries(self, states: Tensor) -> Tensor:
        """The left side of a score's inner product: (B, D) -> (B, D)."""
        return states

    def candidates(self, table: Tensor) -> Tensor:
        """The right side, items 1..N alone: (N + 2, D) -> (N, D)."""
        return table[1:-1]


class Joint(Objective):
    """The sum of objectives: all their terms, under their own names, or as objective_term where two would share one.

    Items are ranked as the first objective ranks them.

    Args:
        objectives: The objectives by name, e.g. next_item=NextItem(), views=TwoViews(...).

    Raises:
        UserError: there is none.
    """

    def __init__(self, **objectives: Objective) -> None:
        super().__init__()
        if not objectives:
            raise UserError("Joint: needs at least one objective")
        self.objectives = nn.ModuleDict(objectives)
        self.times_needed = any(objective.times_needed for objective in objectives.values())

    @property
    def parts(self) -> dict[str, Objective]:
        """The objectives by name, in the order in which they were given."""
        return cast("dict[str, Objective]", dict(self.objectives.items()))

    @property
    def first(self) -> Objective:
        return next(iter(self.parts.values()))

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        self.observed = {}
        for name, objective in self.parts.items():
            _merge(terms, name, objective(encoder, batch))
            _merge(self.observed, name, objective.observed)
        return terms

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        for objective in self.parts.values():
            objective.prepare(encoder, train)

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        for objective in self.parts.values():
            objective.before_epoch(encoder, batches, epoch=epoch, epochs=epochs)

    def after_step(self, encoder: Encoder) -> None:
        for objective in self.parts.values():
            objective.after_step(encoder)

    def queries(self, states: Tensor) -> Tensor:
        return self.first.queries(states)

    def candidates(self, table: Tensor) -> Tensor:
        return self.first.candidates(table)


def _merge(into: dict[str, Tensor], name: str, part: dict[str, Tensor]) -> None:
    for key, value in part.items():
        into[f"{name}_{key}" if key in into else key] = value
