"""What the values of columns look like, on a sample of them: numbers, times, ratings, and so the roles of columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

EPOCH_SECONDS = (631_152_000.0, 2_208_988_800.0)
"""The years 1990 to 2040 in seconds since 1970: a number in this range, in some unit, is plausibly a time."""

UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
"""Units of times since 1970, by how many make a second."""

DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d|$)")
SLASHED = re.compile(r"\d{1,4}[/.]\d{1,2}[/.]\d{1,4}\b")
MAX_RATINGS = 11
"""Most different values of a column of ratings: 0 to 10, or half stars."""


def number(value: Any) -> float | None:
    """The value as a number; None if it is none. True and False are no numbers."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if "_" not in str(value) else None


def numbers(values: Iterable[Any]) -> list[float] | None:
    """The values as numbers; None if one is none, or there are no values."""
    found = [number(value) for value in values]
    return None if not found or None in found else [value for value in found if value is not None]


def present(values: Iterable[Any]) -> list[Any]:
    """The values that are not missing."""
    return [value for value in values if value is not None and value == value and value != ""]


def unit_of(value: float) -> str | None:
    """The unit in which a number is a plausible time since 1970; None if there is none."""
    low, high = EPOCH_SECONDS
    return next((unit for unit, scale in UNITS.items() if low <= value / scale < high), None)


def looks_like_times(values: Sequence[Any]) -> bool:
    """True if all values are dates, or all are numbers of one unit since 1970."""
    found = present(first_of(value) for value in values)
    if not found:
        return False
    if all(isinstance(value, date | datetime) or hasattr(value, "to_pydatetime") for value in found):
        return True
    if all(isinstance(value, str) and (DATE.match(value) or SLASHED.match(value)) for value in found):
        return True
    plain = numbers(found)
    return (
        plain is not None and len({unit_of(value) for value in plain} | {None}) == 2 and None not in map(unit_of, plain)
    )


def looks_like_ratings(values: Sequence[Any]) -> bool:
    """True if all values are numbers from 0 to 10, of which few but not all are different."""
    found = numbers(present(values))
    if found is None or not all(0 <= value <= 10 and value * 2 == int(value * 2) for value in found):
        return False
    return 1 < len(set(found)) <= MAX_RATINGS and len(set(found)) < len(found)


def has_fractions(values: Sequence[Any]) -> bool:
    """True if all values are numbers and most are written with decimals."""
    found = present(values)
    return numbers(found) is not None and 2 * sum("." in str(value) for value in found) > len(found)


def first_of(value: Any) -> Any:
    """The first of a list of values, or the value."""
    return (value[0] if len(value) else None) if isinstance(value, list) else value


def roles_by_content(columns: Sequence[Sequence[str]]) -> tuple[list[int], list[str]]:
    """The places that could be items, and the role of each column; no item among the roles if several places could."""
    later = range(1, len(columns))
    times = [place for place in later if looks_like_times(columns[place])]
    if len(times) == len(later):  # items in the range of times
        times = times[1:] if len(times) == 1 else []
    times = times or [place for place in later[1:] if grows(columns[0], columns[place])]
    ratings = [place for place in later if place not in times and looks_like_ratings(columns[place])]
    other = [place for place in later if place not in (*times, *ratings)]
    rest = [place for place in other if not has_fractions(columns[place]) and not few(columns[place])]
    if len(rest) > 1 and 1 in rest and len(columns) <= 4:
        rest = [1]
    if not rest:
        rest = [place for place in later if place not in times][:1]
    roles = ["user", *["_"] * len(later)]
    if len(times) == 1:
        roles[times[0]] = "time"
    for place in ratings:
        if "rating" not in roles and place not in rest:
            roles[place] = "rating"
    if len(rest) == 1:
        roles[rest[0]] = "item"
    return rest, roles


def grows(users: Sequence[str], values: Sequence[str]) -> bool:
    """True if a column of numbers grows at every step within a user, over several steps."""
    found = [number(value) for value in values]
    steps = [
        (found[n] or 0.0) - (found[n - 1] or 0.0) for n in range(1, len(users)) if users[n] == users[n - 1]
    ]  # fmt: skip
    return (
        None not in found and len(steps) >= 4 and min(steps) >= 0 and sum(step > 0 for step in steps) > len(steps) / 2
    )


def few(values: Sequence[str]) -> bool:
    """True for a column with a single value, or a handful of values on many rows, such as kinds of events."""
    return len(set(values)) == 1 < len(values) or (len(values) >= 50 and len(set(values)) <= 11)


def overlap(columns: Sequence[Sequence[str]]) -> bool:
    """True if later columns share values with the first, as the items of sequences do."""
    first = set(columns[0])
    return any(value in first for column in columns[1:] for value in column)
