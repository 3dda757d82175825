"""Wall time of a run."""

from __future__ import annotations

import math
import time

from seqcl import processes


class Clock:
    """Tells how long a run has taken, over all resumptions, and when it must end.

    Make it where the program begins, so that preparation counts towards the limit too. A run of several stages, such
    as pre-training and training, hands the same clock to each.

    Args:
        spent: seconds that count towards the limit and passed before the clock was made.
    """

    def __init__(self, *, spent: float = 0.0) -> None:
        self.spent = spent
        self.made = time.monotonic()
        self.limit = math.inf  # seconds that `total` may come to
        self.earlier = 0.0  # seconds of all stages in processes before this one
        self.reserve = 0.0  # seconds that the last validation took, kept free for another one
        self._began = self._lap = self.made
        self._stage_earlier = 0.0

    def begin(self, *, limit: float, earlier: float) -> None:
        """Begin a stage that took `earlier` seconds in processes before this one; `limit` 0 means no limit."""
        self.limit = limit or math.inf
        self.reserve = 0.0
        self._began = self._lap = time.monotonic()
        self._stage_earlier = earlier
        self.add(earlier)

    def add(self, seconds: float) -> None:
        """Count seconds of a process before this one, as of a stage that was finished in it."""
        self.earlier += seconds

    def here(self) -> float:
        """Seconds of the stage in this process."""
        return time.monotonic() - self._began

    def seconds(self) -> float:
        """Seconds of the stage, over all resumptions."""
        return self._stage_earlier + self.here()

    def total(self) -> float:
        """Seconds that count towards the limit: all stages over all resumptions, and what came before them."""
        return self.spent + self.earlier + time.monotonic() - self.made

    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - self.total()

    def out_of_time(self) -> bool:
        """True where only the time for one more validation is left, on any process of the run."""
        return self.limit < math.inf and bool(processes.most(self.total() + self.reserve >= self.limit))

    def lap(self) -> float:
        """Seconds since the last lap, or since the stage began."""
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before
