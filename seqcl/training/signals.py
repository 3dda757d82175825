"""Signals that stop a run after a whole step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from seqcl import processes


class Signals:
    """Notes the first SIGINT or SIGTERM, so that the step can end and be saved; a second one acts as it always does."""

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

    def agreed(self) -> str | None:
        """The signal that any process of the run has had: all of them stop after the same step."""
        mine = 0 if self.received is None else int(signal.Signals[self.received])
        found = processes.most(mine)
        return signal.Signals(found).name if found else None

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
