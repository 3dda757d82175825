"""How a run shows itself: one live line on a terminal, one plain line an epoch elsewhere; and how it is stopped."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from seqcl.training.history import Row

if TYPE_CHECKING:
    from rich.live import Live

log = logging.getLogger("seqcl")


def duration(seconds: float) -> str:
    """Seconds as "0:07", "12:31" or "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def describe(
    row: Row,
    *,
    epochs: int,
    part: float | None,
    monitor: str,
    best: float | None,
    best_epoch: int,
    left: float,
) -> str:
    """One line: epoch, loss terms by name, items a second, the watched metric, its best so far, time left at most."""
    words = [f"epoch {int(row['epoch'])}/{epochs}" + ("" if part is None else f" {part:4.0%}")]
    words += [f"{name.removeprefix('loss_')} {row[name]:.4f}" for name in row if name.startswith("loss_")]
    if "items_per_second" in row:
        words.append(f"{row['items_per_second']:,.0f} items/s")
    if (value := row.get(f"valid_{monitor}")) is not None:
        words.append(f"{monitor} {value:.4f}")
    if best is not None:
        words.append(f"best {best:.4f} (epoch {best_epoch})")
    return "  ".join([*words, f"at most {duration(left)} left"])


class Line:
    """The live line on stderr; a context that leaves the terminal as it was.

    Rich is imported with the first line shown, which is after the first step.

    Args:
        shown: False shows nothing; the log gets its line an epoch all the same.
        pause: seconds between two refreshes at least.
    """

    def __init__(self, *, shown: bool, pause: float = 0.25) -> None:
        self.shown = shown
        self.live = shown and sys.stderr.isatty()
        self.pause = pause
        self._next = 0.0
        self._live: Live | None = None

    @property
    def due(self) -> bool:
        """Whether `refresh` would be seen now."""
        return self.live and time.monotonic() >= self._next

    def refresh(self, text: str) -> None:
        """Show `text` in place of the line before."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        self._next = time.monotonic() + self.pause

    def epoch(self, text: str) -> None:
        """Note the end of an epoch: in the log, and as the live line or a line of its own."""
        log.info(text)
        if self.live:
            self.refresh(text)
        elif self.shown:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


class Signals:
    """Notes the first SIGINT or SIGTERM, so that a step can end and be saved; a second one acts as it always does."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        # Python delivers signals to the main thread and lets no other one set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell starts a background job with Ctrl-C ignored; it must stay so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
