"""The learning rate as a pure function of the step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "cosine"]


def learning_rate(step: int, *, peak: float, warmup: int, total: int, schedule: Schedule) -> float:
    """Give the rate of update `step` (0-based): a straight rise to `peak` over `warmup` updates, then `schedule`.

    "constant" stays at the peak; "cosine" falls along half a cosine to 0 at update `total` (arXiv 1608.03983, eq. 5,
    one period, no restarts).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * 0.5 * (1 + math.cos(math.pi * done))
