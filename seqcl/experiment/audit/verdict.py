"""The lines of an audit: what was checked, and whether it held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from seqcl.data import LeakageError

Verdict = Literal["held", "broken", "not used"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of an audit."""

    model: str
    name: str
    verdict: Verdict
    told: str  # what was compared, what differs, or why there is nothing to compare


class Broken(Exception):
    """Something does not hold; the text says what differs, and where."""


class Unused(Exception):
    """The run does not use what would be checked; the text says why."""


def line(model: str, name: str, check: Callable[[], str]) -> Check:
    """Make a line of a check that tells what it compared, or raises `Broken` or `Unused`."""
    try:
        told, verdict = check(), "held"
    except (Broken, LeakageError) as error:
        told, verdict = str(error), "broken"
    except Unused as error:
        told, verdict = str(error), "not used"
    return Check(model=model, name=name, verdict=verdict, told=told)  # type: ignore[arg-type]
