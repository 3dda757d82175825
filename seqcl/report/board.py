"""A table on the terminal that changes while runs go on; elsewhere, a plain line for each event."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live


class Board:
    """Shows a table on stderr while it is open.

    Args:
        columns: heads of the table.
        pause: smallest number of seconds between two refreshes.
    """

    def __init__(self, columns: Sequence[str], *, pause: float = 0.5) -> None:
        self.columns, self.pause = columns, pause
        self.live = sys.stderr.isatty()
        self._next = 0.0
        self._live: Live | None = None

    @property
    def due(self) -> bool:
        """True where enough time has passed to `show`."""
        return self.live and time.monotonic() >= self._next

    def show(self, rows: Sequence[Sequence[str]], title: str) -> None:
        """Show the rows in the place of those before, under a title."""
        from rich.console import Console
        from rich.live import Live
        from rich.markup import escape
        from rich.table import Table

        table = Table(*self.columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*map(escape, row))
        if self._live is None:
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(table, refresh=True)
        self._next = time.monotonic() + self.pause

    def say(self, line: str) -> None:
        """Print a line; a table stays below it."""
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was before the table."""
        if self._live is not None:
            self._live.stop()
