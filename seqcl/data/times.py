"""Columns of times become seconds, by the same rules in every reader, so that all readers give the same log."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.arrow import null_mask, values_of
from seqcl.data.columns import Where
from seqcl.data.dates import UNCLEAR, parse_date
from seqcl.data.evidence import EPOCH_SECONDS, UNITS, number, unit_of
from seqcl.errors import UserError

NUMBERS, DATES, ZONED = "numbers", "dates in UTC", "dates with a zone"

ZONE = r"(?i)(Z|UTC|GMT|[+-]\d\d:?\d\d)$"


def to_seconds(chunks: Iterable[pa.Array], column: str, where: Where) -> tuple[np.ndarray, str]:
    """Turn a column of times into seconds (T,) float64, and say what the times are.

    Dates become seconds since 1970 (in UTC if no zone is given). Numbers that are plausible times since 1970 in
    milliseconds, microseconds or nanoseconds become seconds; days such as 20240131 too; other numbers stay as they are.

    Raises:
        UserError: a time is missing, negative, not finite, or no time at all, or seconds and other units are mixed.
    """
    parts, kinds = [], set()
    row = 0
    for chunk in chunks:
        part, bad, kind = seconds(chunk)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise UserError(f"{where(row + index, column)}: {why_not(chunk[index].as_py())}")
        parts.append(part)
        kinds.add(kind)
        row += len(chunk)
    times = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if len(kinds) > 1 and NUMBERS in kinds:
        raise UserError(f"{where(0, column)}: some times are numbers and some are dates; write all in one way")
    return in_seconds(times, column, where) if NUMBERS in kinds else (times, sorted(kinds)[-1])


def why_not(value: object) -> str:
    """Say why a value is no time."""
    if isinstance(value, str) and UNCLEAR.match(value):
        return f"{value[:40]!r}: is the day or the month first? Write dates as 2000-12-31"
    what = "the time is missing" if value is None else f"{value!r}"[:60] + " is not a time"
    return f"{what}; it must be seconds, 0 or more, or a date (--data.order file takes the rows as they stand)"


def in_seconds(times: np.ndarray, column: str, where: Where) -> tuple[np.ndarray, str]:
    """Numbers in a unit that is found by their size, as seconds."""
    unit = unit_of(float(times.max()))
    if unit is None:
        if is_days(times):
            year, rest = np.divmod(times.astype(np.int64), 10_000)
            month, day = np.divmod(rest, 100)
            months = (year - 1970).astype("M8[Y]") + (month - 1).astype("m8[M]")
            days = months + (day - 1).astype("m8[D]")
            if len(bad := np.flatnonzero(days.astype("M8[M]") != months)):
                raise UserError(f"{where(int(bad[0]), column)}: {times[bad[0]]:.0f} is no day")
            return days.astype("M8[s]").astype(np.float64), "days such as 20240131"
        return times, "numbers of no known unit"
    ranges = {name: [bound * scale for bound in EPOCH_SECONDS] for name, scale in UNITS.items()}
    counts = {name: int(((times >= low) & (times < high)).sum()) for name, (low, high) in ranges.items()}
    usual, *others = sorted(counts, key=lambda name: -counts[name])
    if rare := next((name for name in others if counts[name]), None):
        low, high = ranges[rare]
        row = int(np.flatnonzero((times >= low) & (times < high))[0])
        raise UserError(
            f"{where(row, column)}: {times[row]:.0f} is in {rare}, but other times are in {usual}; write all in one unit"
        )
    return (times, "seconds since 1970") if unit == "seconds" else (times / UNITS[unit], f"{unit} since 1970")


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
