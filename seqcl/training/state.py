"""The state of a run, apart from its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Row = dict[str, float]
"""An epoch: epoch, step, seconds, train_seconds, lr, items_per_second, loss, loss_TERM, observed_NAME, valid_METRIC.

without_TERM is the number of batches that could not give a term, if there were any."""


@dataclass(kw_only=True)
class State:
    """Counters, the best epoch and the history of a run; JSON-able, and stored under these names in a checkpoint."""

    epoch: int = 0  # whole epochs done
    batch: int = 0  # batches done of the epoch after those
    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0  # of the epoch under way
    batches: int = 0  # in an epoch
    first_epochs: int = 0  # the trainer's `epochs` in the first epoch; 0: they changed in it, or an older run
    best: float | None = None
    best_epoch: int = 0
    best_step: int = -1
    stale: int = 0  # validations since the best one
    metrics: dict[str, float] = field(default_factory=dict)  # of the best epoch
    history: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> State:
        """The state that a checkpoint holds among other things.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another type.
        """
        saved = {"first_epochs": 0, **saved}
        values = {one.name: saved[one.name] for one in fields(cls)}
        for name, like in asdict(cls()).items():
            kind: Any = (int, float) if isinstance(like, float) else type(like)
            fits = isinstance(values[name], kind) if like is not None else isinstance(values[name], int | float | None)
            if not fits or isinstance(values[name], bool):
                raise TypeError(f"{name} is no {type(like).__name__}")
        numbers = [values["metrics"], *values["history"]]
        if not all(
            isinstance(row, dict) and all(isinstance(one, int | float) for one in row.values()) for row in numbers
        ):
            raise TypeError("metrics and history hold no numbers")
        if not all("epoch" in row and "step" in row for row in values["history"]):
            raise TypeError("an epoch of the history has no number or step")
        return cls(**values)

    def begin(self, epochs: int) -> None:
        """Note the largest number of epochs with which the first one is trained: schedules and objectives depend on it."""
        if not self.step:
            self.first_epochs = epochs
        elif not self.epoch and self.first_epochs != epochs:
            self.first_epochs = 0

    def end_epoch(self) -> None:
        """Count a whole epoch and begin the next one."""
        self.epoch, self.batch, self.train_seconds = self.epoch + 1, 0, 0.0

    def judge(self, metrics: dict[str, float], *, monitor: str, epoch: int) -> bool:
        """Note the metrics of a validation after `epoch`; True where `monitor` is higher than ever before."""
        value = metrics[monitor]
        if self.best is not None and not value > self.best:
            self.stale += 1
            return False
        self.best, self.best_epoch, self.best_step, self.stale = value, epoch, self.step, 0
        self.metrics = metrics
        return True

    def judged(self, monitor: str) -> bool:
        """True where the weights of this step were validated."""
        return bool(self.history) and self.history[-1]["step"] == self.step and f"valid_{monitor}" in self.history[-1]

    def put(self, row: Row) -> None:
        """Append a row to the history, or replace the row of the same epoch.

        The row of an epoch that was validated, cut short, and then finished stays: its validation counted.
        """
        if self.history and self.history[-1]["epoch"] == row["epoch"]:
            validated = any(name.startswith("valid_") for name in self.history[-1])
            if not validated or self.history[-1]["step"] == row["step"]:
                self.history.pop()
        self.history.append(row)
