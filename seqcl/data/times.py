"""Columns of times become seconds, by the same rules in every reader, so that all readers give the same log."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.arrow import null_mask, values_of
from seqcl.data.columns import Where
from seqcl.data.dates import UNCLEAR, parse_date
from seqcl.data.evidence import EPOCH_SECONDS, UNITS, number, unit_of
from seqcl.errors import UserError

NUMBERS, DATES, ZONED = "numbers", "dates in UTC", "dates with a zone"

OLD = 3
"""A number so many times smaller than the first plausible time, and not 0, is taken for one that lost digits: before 1976."""

ALIKE = "all times are the same, so rows stay in the order of the source"

ZONE = r"(?i)(Z|UTC|GMT|[+-]\d\d:?\d\d)$"


def to_seconds(chunks: Iterable[pa.Array], column: str, where: Where) -> tuple[np.ndarray, str]:
    """Turn a column of times into seconds (T,) float64, and say what the times are.

    Dates become seconds since 1970 (in UTC if no zone is given). Numbers that are plausible times since 1970 in
    milliseconds, microseconds or nanoseconds become seconds; days such as 20240131 too; other numbers stay as they are.

    Raises:
        UserError: a time is missing, negative, not finite, or no time at all, or seconds and other units are mixed.
    """
    seen, parts, row = Times(column), [], 0
    for chunk in chunks:
        if len(chunk):
            parts.append(seen.add(chunk, where, row))
        row += len(chunk)
    convert, told = seen.judge()
    return convert(np.concatenate(parts) if len(parts) > 1 else parts[0]), told


class Times:
    """Facts known of a column of times after some of its chunks; `judge` says what they are once all were added.

    Args:
        column: name of the column, for messages.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.kinds: dict[str, str] = {}  # each with the place of its first time
        self.most = 0.0
        self.least = (np.inf, "")  # the smallest number but 0, and its place
        self.lowest = np.inf
        self.days = True  # all numbers are days such as 20240131
        self.no_day: str | None = None  # the first of them that no month has
        self.units: dict[str, tuple[int, str]] = {}  # how many numbers are in a unit, and the first of them

    def add(self, chunk: pa.Array, where: Where, row: int = 0) -> np.ndarray:
        """The numbers of a chunk (T,) float64, T > 0, which `judge` tells how to turn into seconds; dates are seconds.

        Args:
            chunk: the values.
            where: gives the place of a value, for messages.
            row: number of the first of them, for `where`.

        Raises:
            UserError: a time is missing, negative, not finite, or no time at all.
        """
        number, bad, kind = seconds(chunk)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise UserError(f"{where(row + index, self.column)}: {why_not(chunk[index].as_py())}")
        self.kinds.setdefault(kind, where(row, self.column))
        if kind != NUMBERS:
            return number
        self.most = max(self.most, float(number.max()))
        self.lowest = min(self.lowest, float(number.min()))
        small = np.where(number > 0, number, np.inf)
        if (low := float(small.min())) < self.least[0]:
            self.least = low, where(row + int(small.argmin()), self.column)
        for unit, scale in UNITS.items():
            low, high = (bound * scale for bound in EPOCH_SECONDS)
            inside = (number >= low) & (number < high)
            if inside.any():
                at = int(np.flatnonzero(inside)[0]) if unit not in self.units else -1
                count, first = self.units.get(unit, (0, f"{where(row + at, self.column)}: {number[at]:.0f}"))
                self.units[unit] = count + int(inside.sum()), first
        self.days = self.days and is_days(number)
        if self.days and self.no_day is None and len(strange := np.flatnonzero(of_days(number)[1])):
            self.no_day = f"{where(row + int(strange[0]), self.column)}: {number[strange[0]]:.0f}"
        return number

    def judge(self) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
        """A function that turns numbers into seconds, and what the times are, in words.

        Raises:
            UserError: numbers and dates are mixed, or two units; a number looks like a day and is none; or a time is decades older than the
            others.
        """
        if NUMBERS not in self.kinds:
            return unchanged, sorted(self.kinds)[-1]
        if len(self.kinds) > 1:
            dates = next(place for kind, place in self.kinds.items() if kind != NUMBERS)
            raise UserError(f"{self.kinds[NUMBERS]}: a number, but {dates}: a date; write all times in one way")
        unit = unit_of(self.most)
        if unit is None:
            if not self.days:
                return unchanged, "numbers of no known unit"
            if self.no_day is not None:
                raise UserError(f"{self.no_day} is no day")
            return lambda times: of_days(times)[0], "days such as 20240131"
        usual, *others = sorted((one for one in UNITS if one in self.units), key=lambda one: -self.units[one][0])
        if others:
            raise UserError(
                f"{self.units[others[0]][1]} is in {others[0]}, but other times are in {usual}; write all in one unit"
            )
        scale = UNITS[unit]
        oldest = EPOCH_SECONDS[0] * scale / OLD
        if self.least[0] < oldest:
            year, newest = (str(np.datetime64(int(time / scale), "s"))[:4] for time in (self.least[0], self.most))
            raise UserError(
                f"{self.least[1]}: {self.least[0]:.0f} is a time of {year}, but the newest is of {newest}: are digits cut off? "
                f"--data.where '{self.column} > {oldest:.0f}' leaves such rows out"
            )
        told = f"{unit} since 1970" + (f", {ALIKE}" if self.lowest == self.most else "")
        return (unchanged if unit == "seconds" else lambda times: times / scale), told


def unchanged(times: np.ndarray) -> np.ndarray:
    """Times that are seconds already."""
    return times


def why_not(value: object) -> str:
    """Say why a value is no time."""
    if isinstance(value, str) and UNCLEAR.match(value):
        return f"{value[:40]!r}: is the day or the month first? Write dates as 2000-12-31"
    what = "the time is missing" if value is None else f"{value!r}"[:60] + " is not a time"
    return f"{what}; it must be seconds, 0 or more, or a date (--data.order file takes the rows as they stand)"


def of_days(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The seconds of days such as 20240131, and (T,) bool, true for one that its month does not have."""
    year, rest = np.divmod(times.astype(np.int64), 10_000)
    month, day = np.divmod(rest, 100)
    months = (year - 1970).astype("M8[Y]") + (month - 1).astype("m8[M]")
    days = months + (day - 1).astype("m8[D]")
    return days.astype("M8[s]").astype(np.float64), days.astype("M8[M]") != months


def is_days(times: np.ndarray) -> bool:
    """True if all numbers are days such as 20240131."""
    if not (times.min() >= 19_000_101 and times.max() <= 21_001_231 and (times == np.floor(times)).all()):
        return False
    month, day = np.divmod(times.astype(np.int64) % 10_000, 100)
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def seconds(chunk: pa.Array) -> tuple[np.ndarray, np.ndarray, str]:
    """The seconds of one chunk, (T,) bool, true where a value is no usable time, and whether they were numbers or dates."""
    if isinstance(chunk, pa.DictionaryArray):
        chunk = chunk.dictionary_decode()
    kind = chunk.type
    told = NUMBERS
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        chunk, told = text_times(chunk)
        kind = chunk.type
    scale = 1.0
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = getattr(kind, "tz", None)
        told = told if told != NUMBERS else ZONED if zone else DATES
        chunk = chunk.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
        scale = 1e6
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        chunk = pa.nulls(len(chunk), pa.float64())
    number = values_of(chunk.cast(pa.float64(), safe=False), np.float64)
    number = number if scale == 1.0 else number / scale
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(number) & (number >= 0))
    return number, bad | null_mask(chunk) if chunk.null_count else bad, told


def text_times(chunk: pa.Array) -> tuple[pa.Array, str]:
    """Parse text as float64 if all of it is numbers, else as dates; a value that is neither becomes null."""
    chunk = pc.utf8_trim_whitespace(chunk)
    zoned = ZONED if pc.any(pc.match_substring_regex(chunk, ZONE)).as_py() else DATES
    for kind, told in ((pa.float64(), NUMBERS), (pa.timestamp("us"), DATES), (pa.timestamp("us", "UTC"), ZONED)):
        try:
            return chunk.cast(kind), told
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    coded = chunk.dictionary_encode()  # days repeat, so each is parsed once
    texts = coded.dictionary.to_pylist()
    ways = {zoned: [parse_date(text) for text in texts], NUMBERS: [number(text) for text in texts]}
    told = max(ways, key=lambda way: sum(value is not None for value in ways[way]))  # the rest is refused by name
    return pa.array(ways[told], pa.float64()).take(coded.indices), told
