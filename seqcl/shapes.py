"""Shapes that do not depend on values, as a GPU likes them: no step then waits for the device, and shapes come again.

Inside `fixed_shapes` a few places take another way to the same result: every row is a block of its own, every view is made of
all rows, and places that are to fill a shape are marked instead of left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_fixed = ContextVar("fixed", default=False)


def fixed() -> bool:
    """True inside `fixed_shapes`."""
    return _fixed.get()


@contextmanager
def fixed_shapes(wanted: bool = True) -> Iterator[None]:
    """Inside, no shape depends on values if that is wanted."""
    token = _fixed.set(wanted)
    try:
        yield
    finally:
        _fixed.reset(token)


def step_above(size: int) -> int:
    """The size itself up to 16; above, the next of eight steps to the double, so that at most an eighth is added."""
    step = 1 << max((size - 1).bit_length() - 4, 0)
    return -(-size // step) * step


def half_above(size: int, most: int) -> int:
    """The smallest of most, its half, its quarter and so on that is not below the size, each half rounded up."""
    while size <= (half := -(-most // 2)) < most and most > 8:
        most = half
    return most
