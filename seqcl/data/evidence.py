"""Judge columns by a sample of their values: numbers, times, ratings, and so the roles of columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from seqcl.data.dates import CLOCK, looks_like_date

EPOCH_SECONDS = (631_152_000.0, 2_208_988_800.0)
"""The years 1990 to 2040 in seconds since 1970: a number in this range, in some unit, is plausibly a time."""

UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
"""Units of times since 1970, by how many make a second."""

ASIN = re.compile(r"(B[0-9A-Z]{9}|\d{9}[\dX])")
"""An item of Amazon, or the ISBN of a book."""

ABSENT = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "none", "<NA>", "\\N", "-")
"""Text that stands for a missing value."""

SPAN = 20 * 31_557_600.0
"""Most seconds between the first and the last of numbers that are taken for times by their size alone."""

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
    return [value for value in values if value is not None and value == value and value not in ABSENT]


def unit_of(value: float) -> str | None:
    """The unit in which a number is a plausible time since 1970; None if there is none."""
    low, high = EPOCH_SECONDS
    return next((unit for unit, scale in UNITS.items() if low <= value / scale < high), None)


def looks_like_times(values: Sequence[Any]) -> bool:
    """True if nearly all values are dates, or numbers of one unit since 1970 within some years; zeros may be among them."""
    found = present(first_of(value) for value in values)
    if not found:
        return False
    dates = sum(is_date(value) for value in found)
    if dates:
        return dates >= 0.9 * len(found)
    plain = [value for value in (number(value) for value in found) if value]
    units = {unit_of(value) for value in plain}
    if len(plain) < 0.9 * len(found) or len(units) != 1 or None in units:
        return False
    return (max(plain) - min(plain)) / UNITS[str(units.pop())] <= SPAN


def is_date(value: Any) -> bool:
    """True for a date, as a value of some library or as text."""
    return (
        isinstance(value, date)
        or hasattr(value, "to_pydatetime")
        or (isinstance(value, str) and looks_like_date(value))
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
    """The places that could be items, and the role of each column; no item among the roles where it is not clear."""
    places = range(1, len(columns))
    times = [place for place in places if looks_like_times(columns[place])]
    numeric = [place for place in times if numbers(present(columns[place]))]
    if 1 in numeric and (len(columns) == 2 or len(times) > 1 or places[-1] not in times):
        times.remove(1)  # ids of items may lie in the range of times
    times = times or [place for place in places[1:] if grows(columns[0], columns[place])]
    ratings = [place for place in places if place not in times and looks_like_ratings(columns[place])]
    free = [place for place in places if place not in times and not has_fractions(columns[place])]
    rest = [place for place in free if place not in ratings and not few(columns[place])]
    if len(columns) <= 4 and 1 in free:  # by position, as in triples: user, item, rating, time
        rest = [1]
    rest = rest or free
    roles = ["user", *["_"] * len(places)]
    if len(times) == 1:
        roles[times[0]] = "time"
    for place in ratings:
        if "rating" not in roles and place not in rest:
            roles[place] = "rating"
    odd = looks_like_times(columns[0]) or all(ASIN.fullmatch(value) for value in columns[0])  # no user
    if len(rest) == 1 and not odd and not any(is_clock(column) for column in columns):
        roles[rest[0]] = "item"
    return rest, roles


def is_clock(values: Sequence[str]) -> bool:
    """True if all values are times of a day, which a blank has cut off their date."""
    return all(CLOCK.fullmatch(value) for value in values)


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
