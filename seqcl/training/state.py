"""Where a run stands, how it ends, and what it wants of a loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from seqcl.errors import UserError
from seqcl.training.history import Row
from seqcl.types import SeqBatch

Validate = Callable[[], Mapping[str, float]]


class Loader(Protocol):
    """Batches of an epoch, the same for the same number, from any position; iterated, every row once in order."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[SeqBatch]: ...
    def epoch(self, number: int, start: int = 0) -> Iterator[SeqBatch]: ...


class Diverged(UserError):
    """A loss became NaN or infinite."""


class Interrupted(Exception):
    """SIGINT or SIGTERM ended the run after a whole step; `checkpoint` is where it was saved, None without a folder."""

    def __init__(self, message: str, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


@dataclass(kw_only=True)
class State:
    """Where a run stands, apart from tensors; JSON-able."""

    epoch: int = 0  # whole epochs done
    batch: int = 0  # batches done of the epoch after those
    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0  # of the epoch under way
    batches: int = 0  # in an epoch
    best: float | None = None
    best_epoch: int = 0
    best_step: int = -1
    stale: int = 0  # validations since the best one
    metrics: dict[str, float] = field(default_factory=dict)  # of the best epoch
    history: list[Row] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run came to; the model holds the weights of `best_epoch`."""

    best: float | None  # the watched metric on validation; None without validation
    best_epoch: int  # 1-based; 0 without validation
    metrics: dict[str, float]  # all validation metrics of the best epoch
    epochs: int  # whole epochs trained
    steps: int
    seconds: float  # in fit, over all resumptions
    stopped: str  # "epochs", "patience" or "minutes"
    history: list[Row]
