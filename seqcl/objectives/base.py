"""The base class of objectives, the sum of several, and the source of their randomness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from seqcl.encoders import Encoder, Scoring
from seqcl.errors import UserError
from seqcl.parts import Component, options_of
from seqcl.types import Batches, SeqBatch, Windows


def rng(device: torch.device) -> Generator:
    """PyTorch's own generator of a device; a resumed run then needs its saved random state alone."""
    if device.type == "cuda":
        torch.cuda.init()  # before it there are no generators
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


class Objective(nn.Module):
    """A module that gives the losses to minimise; all its state is in parameters and buffers."""

    observed: dict[str, Tensor]
    """Detached scalars of the last forward pass, to log and not to minimise."""

    missing: dict[str, Tensor]
    """For each term that a batch may be unable to give: a bool, true where the last batch was; NaN says neither.

    The term is then 0, and so is its gradient.
    """

    times_needed: bool = False
    """Batches must have times."""

    identity: dict[str, str]
    """Extra facts a checkpoint must match, besides the log."""

    scoring: Scoring
    """The scoring by which items are ranked; an objective that cannot rank has none."""

    def __init__(self) -> None:
        super().__init__()
        self.observed, self.missing, self.identity = {}, {}, {}

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        """Named scalars, already weighted; their sum is minimised."""
        raise NotImplementedError(f"{type(self).__name__} needs forward(encoder, batch)")

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        """Take from the training windows what is needed; called once, when the model is built."""

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        """Prepare epoch number `epoch`, from 0 on, of at most `epochs`; `batches` has every training row once, in order."""

    def after_step(self, encoder: Encoder) -> None:
        """Follow an update of the weights; called after every step of the optimizer."""


def check_prepared(objective: Objective, ready: bool) -> None:
    """Refuse a batch of an objective that has not seen the training windows.

    Raises:
        UserError: names the objective and what to call.
    """
    if not ready:
        raise UserError(f"{type(objective).__name__}: call prepare(encoder, train) before the first batch")


def refuse_unread(name: str, needs: str, component: Component, **options: Any) -> None:
    """Refuse options that have another value than their default, though nothing reads them.

    Args:
        name: of the objective.
        needs: what would read them.
        component: the class whose options they are.
        options: the values by option.

    Raises:
        UserError: names the option and what it needs.
    """
    known = options_of(component)
    for option, value in options.items():
        if option in known and value != known[option].default:
            raise UserError(f"{name}: {option}={value} needs {needs}")


class Joint(Objective):
    """The sum of objectives: all their terms, under their own names, or as objective_term where two would share one.

    The first objective ranks the items.

    Args:
        objectives: The objectives by name, e.g. next_item=NextItem(), views=TwoViews(...).

    Raises:
        UserError: there is none; when called, one gives something else than terms.
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
    def scoring(self) -> Scoring:  # type: ignore[override]
        """The scoring of the first objective, by which items are ranked.

        Raises:
            TypeError: the first objective has none.
        """
        name, first = next(iter(self.parts.items()))
        found = first.scoring if hasattr(first, "scoring") else None
        if found is None:
            raise TypeError(f"the objective {name!r} ({type(first).__name__}) cannot rank items: it has no scoring")
        return found

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        self.observed, self.missing = {}, {}
        for name, objective in self.parts.items():
            given = objective(encoder, batch)
            _check_terms(name, objective, given)
            names = _names(terms, name, given)
            terms |= {names[key]: value for key, value in given.items()}
            self.missing |= {names[key]: value for key, value in objective.missing.items() if key in names}
            names = _names(self.observed, name, objective.observed)
            self.observed |= {names[key]: value for key, value in objective.observed.items()}
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


def _names(taken: Iterable[str], name: str, keys: Iterable[str]) -> dict[str, str]:
    """The name of each key among those taken already: its own, or one that says whose it is."""
    return {key: f"{name}_{key}" if key in taken else key for key in keys}


def _check_terms(name: str, objective: Objective, given: Any) -> None:
    """Refuse what is no loss of one number under each name."""
    who = f"the objective {name!r} ({type(objective).__name__})"
    if not isinstance(given, dict):
        raise UserError(f"{who} must give a dictionary of its losses by name, not a {type(given).__name__}")
    for key, loss in given.items():
        if not isinstance(loss, Tensor) or loss.dim():
            what = f"one of {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise UserError(f"{who} must give its loss {key!r} as a tensor of one number, not {what}")
