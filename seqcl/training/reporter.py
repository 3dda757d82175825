"""A run as others see it: the live line, history.csv and TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from seqcl.training.clock import Clock
from seqcl.training.events import Events
from seqcl.training.history import write_csv
from seqcl.training.line import Line, describe
from seqcl.training.state import Row, State


class Reporter:
    """Shows a run and writes its history down; a context that closes the line and the events.

    Args:
        folder: run folder, for history.csv and tensorboard/; None writes neither.
        clock: time of the run.
        epochs: largest number of epochs.
        monitor: the watched metric.
        step: the step at which this process begins.
        shown: False shows no line.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        clock: Clock,
        epochs: int,
        monitor: str,
        step: int,
        shown: bool,
    ) -> None:
        self.folder, self.clock = folder, clock
        self.epochs, self.monitor, self.first_step = epochs, monitor, step
        self.line = Line(shown=shown)
        self.events: Events | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.events = Events(folder / "tensorboard", step=step)

    @property
    def due(self) -> bool:
        """True where the live line wants to be shown anew."""
        return self.line.due

    def refresh(self, state: State, row: Row) -> None:
        """Show the row of the epoch under way, with the newest value of the watched metric."""
        name = f"valid_{self.monitor}"
        newest: Row = next(({name: past[name]} for past in reversed(state.history) if name in past), {})
        self.line.refresh(self._describe(state, newest | row, done=state.batch / state.batches))

    def epoch(self, state: State, row: Row) -> None:
        """Write history.csv anew, add the row of an epoch to the events, and show it."""
        if self.folder is not None and self.events is not None:
            write_csv(state.history, self.folder / "history.csv")
            self.events.add(row)
        self.line.epoch(self._describe(state, row, done=None))

    def _describe(self, state: State, row: Row, *, done: float | None) -> str:
        pace = self.clock.here() / max(1, state.step - self.first_step)
        left = min(pace * (self.epochs * state.batches - state.step), self.clock.left())
        return describe(
            row,
            epochs=self.epochs,
            done=done,
            monitor=self.monitor,
            best=state.best,
            best_epoch=state.best_epoch,
            left=max(0.0, left),
        )

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.line.close()
        if self.events is not None:
            self.events.close()
