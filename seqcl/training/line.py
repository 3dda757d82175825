"""A run on the terminal: one live line there, one plain line an epoch elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from seqcl.training.state import Row

if TYPE_CHECKING:
    from rich.live import Live

log = logging.getLogger("seqcl")


def duration(seconds: float) -> str:
    """Word seconds as "0:07", "12:31" or "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def describe(
    row: Row,
    *,
    epochs: int,
    done: float | None,
    monitor: str,
    best: float | None,
    best_epoch: int,
    left: float,
) -> str:
    """Word a row as one line: epoch, losses, items a second, the watched metric and its best so far, longest time left.

    `done` is the portion of the epoch that is done, None after its end.
    """
    words = [f"epoch {int(row['epoch'])}/{epochs}" + ("" if done is None else f" {done:4.0%}")]
    words += [f"{name.removeprefix('loss_')} {row[name]:.4f}" for name in row if name.startswith("loss_")]
    if "items_per_second" in row:
        words.append(f"{row['items_per_second']:,.0f} items/s")
    if (value := row.get(f"valid_{monitor}")) is not None:
        words.append(f"{monitor} {value:.4f}")
    if best is not None:
        words.append(f"best {best:.4f} (epoch {best_epoch})")
    return "  ".join([*words, f"at most {duration(left)} left"])


class Line:
    """Shows a live line on stderr.

    Rich is imported with the first line shown, which is after the first step.

    Args:
        shown: False shows nothing; the log still gets a line an epoch.
        pause: smallest number of seconds between two refreshes.
    """

    def __init__(self, *, shown: bool, pause: float = 0.25) -> None:
        self.shown = shown
        self.live = shown and sys.stderr.isatty()
        self.pause = pause
        self._next = 0.0
        self._live: Live | None = None

    @property
    def due(self) -> bool:
        """True where enough time has passed to `refresh`."""
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

    def close(self) -> None:
        """Leave the terminal as it was before the line."""
        if self._live is not None:
            self._live.stop()
