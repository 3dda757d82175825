"""Columns of times become seconds, by the same rules in every reader, so that all readers give the same log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa

from seqcl.data.arrow import null_mask, values_of
from seqcl.data.columns import Where
from seqcl.errors import UserError


def to_seconds(chunks: Iterable[pa.Array], column: str, where: Where) -> np.ndarray:
    """Turn a column of times into seconds (T,) float64.

    Numbers stay as they are; dates and ISO 8601 text become seconds since 1970 (in UTC if no zone is given).

    Raises:
        UserError: a time is missing, negative, not finite, or no time at all.
    """
    parts = []
    row = 0
    for chunk in chunks:
        part, bad = seconds(chunk)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            value = chunk[index].as_py()
            what = "the time is missing" if value is None else f"{value!r} is not a time"
            raise UserError(f"{where(row + index, column)}: {what}; it must be seconds, 0 or more, or a date")
        parts.append(part)
        row += len(chunk)
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def seconds(chunk: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The seconds of one chunk, and (T,) bool, true where a value is no usable time."""
    if isinstance(chunk, pa.DictionaryArray):
        chunk = chunk.dictionary_decode()
    kind = chunk.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        chunk = text_times(chunk)
        kind = chunk.type
    scale = 1.0
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        chunk = chunk.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        scale = 1e6
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        chunk = pa.nulls(len(chunk), pa.float64())
    number = values_of(chunk.cast(pa.float64(), safe=False), np.float64)
    number = number if scale == 1.0 else number / scale
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(number) & (number >= 0))
    return number, bad | null_mask(chunk) if chunk.null_count else bad


def text_times(chunk: pa.Array) -> pa.Array:
    """Parse text as float64 if all of it is numbers, else as timestamps; a value that is neither becomes null."""
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return chunk.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return pa.array([parse_time(text) for text in chunk.to_pylist()], pa.float64())


def parse_time(text: str | None) -> float | None:
    """Parse one time as seconds; None if the text is no time."""
    try:
        return float(text or "")
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(str(text).strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
