"""A run as others see it: the live line, history.csv, and what callbacks are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from seqcl.training.callbacks import Callback
from seqcl.training.clock import Clock
from seqcl.training.history import write_csv
from seqcl.training.line import Line, describe
from seqcl.training.state import Row, State


class Reporter:
    """Shows a run and writes its history down; a context that closes the line.

    Args:
        folder: run folder, for history.csv; None writes none.
        clock: time of the run.
        epochs: largest number of epochs.
        monitor: the watched metric.
        step: the step at which this process begins.
        shown: False shows no line.
        callbacks: are told of each epoch.
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
        callbacks: Sequence[Callback],
    ) -> None:
        self.folder, self.clock, self.callbacks = folder, clock, callbacks
        self.epochs, self.monitor, self.first_step = epochs, monitor, step
        self.line = Line(shown=shown)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

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
        """Write history.csv anew, show the row of an epoch, and tell it the callbacks."""
        if self.folder is not None:
            write_csv(state.history, self.folder / "history.csv")
        self.line.epoch(self._describe(state, row, done=None))
        for callback in self.callbacks:
            callback.epoch(row)

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
