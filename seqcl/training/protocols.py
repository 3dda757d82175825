"""Contracts of the loop with a model, its objective and its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from seqcl.types import SeqBatch

Validate = Callable[[], Mapping[str, float]]
"""Gives the validation metrics of the model as it is now."""


class Loader(Protocol):
    """Batches of training rows."""

    def __len__(self) -> int:
        """Count the batches of an epoch; the number never changes."""
        ...

    def __iter__(self) -> Iterator[SeqBatch]:
        """Give every row once, in order."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[SeqBatch]:
        """Give the batches of epoch `number` from batch `start` on; the same number gives the same batches."""
        ...


class Hooks(Protocol):
    """The side of an objective that the loop talks to: it is told when an epoch begins and when a step is done."""

    @property
    def observed(self) -> Mapping[str, Tensor]:
        """Scalars of the last forward pass to log, not to minimise."""
        ...

    def before_epoch(self, encoder: Any, batches: Loader, *, epoch: int, epochs: int) -> None:
        """Prepare epoch number `epoch`, from 0 on, of at most `epochs`."""
        ...

    def after_step(self, encoder: Any) -> None:
        """Follow an update of the weights, as momentum copies and queues do."""
        ...


class Trainable(Protocol):
    """An nn.Module that `Trainer.fit` can train: it has an encoder and an objective, and gives losses by name.

    Everything that it changes while it trains must be a parameter or a persistent buffer: a checkpoint holds no more.
    """

    @property
    def encoder(self) -> Any:
        """The module that is handed to the objective's hooks."""
        ...

    @property
    def objective(self) -> Hooks:
        """The objective, told of epochs and steps."""
        ...

    def __call__(self, batch: SeqBatch) -> dict[str, Tensor]:
        """Give the weighted losses of a batch by name; their sum is minimised."""
        ...
