"""Raw columns become codes and seconds here, whatever file they came from, so that every reader gives the same log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.errors import UserError, unknown

MAX_ID_LENGTH = 256
"""Characters an id may have: ids are kept as fixed-width text, so one long id would widen them all."""

USER_NAMES = ("user_id", "user", "userid", "uid", "user_idx", "reviewerid", "visitorid", "customer_id", "session_id")
ITEM_NAMES = ("item_id", "item", "itemid", "iid", "item_idx", "parent_asin", "asin", "movie_id", "movieid")
TIME_NAMES = ("timestamp", "time", "ts", "unixreviewtime", "datetime", "date")

NO_TIME = "-"
"""Given as a time column: the order of the file counts, its times do not."""

Where = Callable[[int, str], str]
"""Says where the value of a 0-based row in a column stands: 'log.csv:7: column 2 'item_id''."""


def choose_columns(
    names: Sequence[str], *, user: str | None, item: str | None, time: str | None, source: str
) -> tuple[str, str, str | None]:
    """The user, item and time columns among `names`: the asked for, else the first usual name that is there.

    Raises:
        UserError: a column is missing or there twice; the message names the nearest.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{source}: two columns are called {', '.join(map(repr, twice))}")
    found = (
        pick_column(names, user, USER_NAMES, "user", source),
        pick_column(names, item, ITEM_NAMES, "item", source),
        None if time == NO_TIME else pick_column(names, time, TIME_NAMES, "time", source, needed=time is not None),
    )
    if found[0] == found[1]:
        raise UserError(f"{source}: column {found[0]!r} cannot be user and item at once")
    assert found[0] is not None and found[1] is not None
    return found[0], found[1], found[2]


def pick_column(
    names: Sequence[str], asked: str | None, usual: Sequence[str], role: str, source: str, *, needed: bool = True
) -> str | None:
    """One column name, or None where the role is not needed and no usual name is there."""
    if asked is not None:
        if asked not in names:
            raise UserError(f"{source}: {unknown(f'{role} column', asked, names)}")
        return asked
    lower = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name in lower:
            return lower[name]
    if needed:
        raise UserError(
            f"{source}: {unknown(f'{role} column', usual[0], names)} (name it with --data.{role} or, for `seqcl data`, --{role})"
        )
    return None


def encode_ids(chunks: Iterable[pa.Array], column: str, where: Where) -> tuple[np.ndarray, np.ndarray]:
    """Codes (T,) int32 into the sorted distinct ids: int64 where every id is a plain integer, else text.

    Raises:
        UserError: an empty, missing or too long id, an integer past 64 bits, a fraction, a type that is no id.
    """
    encoded = []
    row = 0
    for chunk in chunks:
        encoded.append(to_dictionary(chunk, column, where, row))
        row += len(chunk)
    if len({array.type for array in encoded}) > 1:  # parts of one log that disagree: text holds both
        text = pa.dictionary(pa.int32(), pa.string())
        encoded = [pa.DictionaryArray.from_arrays(a.indices, a.dictionary.cast(pa.string())) for a in encoded]
        assert all(array.type == text for array in encoded)
    unified = pa.chunked_array(encoded).unify_dictionaries().chunks
    codes = np.empty(row, np.int32)
    row = 0
    for array in unified:
        codes[row : row + len(array)] = view(array.indices, np.int32)
        row += len(array)
    raw = unified[-1].dictionary

    def refuse(index: int, why: str) -> NoReturn:
        raise UserError(f"{where(int(np.flatnonzero(codes == index)[0]), column)}: {why}")

    used = np.bincount(codes, minlength=len(raw)) > 0  # a categorical column may list values that no row has
    ids, place = np.unique(plain_ids(raw, used, refuse), return_inverse=True)
    sparse = np.zeros(len(raw), np.int32)
    sparse[used] = place.reshape(-1)
    return np.take(sparse, codes, out=codes, mode="clip"), ids


def view(array: pa.Array, kind: type[np.generic]) -> np.ndarray:
    """The values of a fixed-width array, shared; at nulls they are anything.

    Arrow's own to_numpy would import pandas, which costs 0.3 s and 40 MB.
    """
    buffer = array.buffers()[1]
    return np.frombuffer(buffer, kind)[array.offset : array.offset + len(array)] if len(array) else np.empty(0, kind)


def nulls(array: pa.Array) -> np.ndarray:
    """Where an array has no value, (T,) bool."""
    return view(array.is_null().cast(pa.uint8()), np.uint8).astype(bool)


def to_dictionary(chunk: pa.Array, column: str, where: Where, row: int) -> pa.DictionaryArray:
    """A dictionary array with int32 indices over int64 or text, first value first; `row` is where the chunk begins."""
    if isinstance(chunk, pa.DictionaryArray) and (
        chunk.dictionary.null_count or pa.types.is_floating(chunk.dictionary.type)
    ):
        chunk = chunk.dictionary_decode()
    if chunk.null_count:
        missing = int(np.flatnonzero(nulls(chunk))[0])
        raise UserError(f"{where(row + missing, column)}: the id is missing")
    if isinstance(chunk, pa.DictionaryArray):
        indices, values = chunk.indices.cast(pa.int32()), chunk.dictionary
    else:
        indices, values = None, chunk
    kind = values.type
    if pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        number = view(values, np.float64)
        bad = ~((number == np.floor(number)) & (np.abs(number) < 2.0**53))
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise UserError(f"{where(row + index, column)}: {number[index]} is not a whole number, so it is no id")
        values = values.cast(pa.int64())
    elif pa.types.is_uint64(kind) or pa.types.is_decimal(kind):
        values = values.cast(pa.string())  # plain_ids makes integers of them, or says which does not fit
    elif pa.types.is_integer(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        values = values.cast(pa.string())
    else:
        raise UserError(f"{where(row, column)}: a column of type {kind} cannot hold ids")
    if indices is not None:
        return pa.DictionaryArray.from_arrays(indices, values)
    return values.dictionary_encode()


def plain_ids(raw: pa.Array, used: np.ndarray, refuse: Callable[[int, str], NoReturn]) -> np.ndarray:
    """The used values of a vocabulary: int64 where all are plain integers (no leading zero), else text."""
    rows = np.flatnonzero(used)
    if len(rows) < len(raw):
        raw = raw.take(pa.array(rows))
    if pa.types.is_integer(raw.type):
        return view(raw, np.int64)
    raw = pc.utf8_trim_whitespace(raw)
    lengths = view(pc.utf8_length(raw), np.int32)
    if lengths.min() == 0:
        refuse(int(rows[lengths.argmin()]), "the id is empty")
    if not pc.all(pc.match_substring_regex(raw, r"^(0|-?[1-9][0-9]*)$")).as_py():
        if lengths.max() > MAX_ID_LENGTH:
            refuse(int(rows[lengths.argmax()]), f"the id is {lengths.max():,} characters long; at most {MAX_ID_LENGTH}")
        return np.array(raw.to_pylist(), np.str_)
    try:
        return view(raw.cast(pa.int64()), np.int64)
    except pa.ArrowInvalid:
        texts = [str(text) for text in raw.to_pylist()]
        huge = next(i for i, text in enumerate(texts) if len(text) > 20 or not -(2**63) <= int(text) < 2**63)
        refuse(int(rows[huge]), f"the id {texts[huge][:40]} does not fit 64 bits; put a letter before such ids")


def to_seconds(chunks: Iterable[pa.Array], column: str, where: Where) -> np.ndarray:
    """Seconds (T,) float64: numbers as they stand, dates and ISO 8601 text as seconds since 1970 (UTC where no zone).

    Raises:
        UserError: a time that is missing, no time, negative or not finite.
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
    """Seconds of one chunk and where they are not usable."""
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
    number = view(chunk.cast(pa.float64(), safe=False), np.float64)
    number = number if scale == 1.0 else number / scale
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(number) & (number >= 0))
    return number, bad | nulls(chunk) if chunk.null_count else bad


def text_times(chunk: pa.Array) -> pa.Array:
    """Text as float64 or as a timestamp, whichever all of it parses as; a value that is neither becomes null."""
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return chunk.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return pa.array([parse_time(text) for text in chunk.to_pylist()], pa.float64())


def parse_time(text: str | None) -> float | None:
    """One time as seconds, or None where it is none."""
    try:
        return float(text or "")
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(str(text).strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
