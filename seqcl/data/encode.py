"""Encode raw columns as a log: the last step of every reader of tables."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.arrow import null_mask
from seqcl.data.columns import Chosen, Wanted, Where
from seqcl.data.ids import encode_ids
from seqcl.data.interactions import Interactions
from seqcl.data.names import PARTS
from seqcl.data.sieve import MISSING, Chunks, Sieve
from seqcl.data.times import to_seconds
from seqcl.errors import UserError

logger = logging.getLogger("seqcl")

LISTS = ", a list of items a row"
"""What the layout of a log says whose items are in lists."""


def encode_log(
    chunks: Chunks, chosen: Chosen, where: Where, wanted: Wanted, *, name: str, source: str, layout: str
) -> Interactions:
    """Encode the columns of users, items and times as a log, without the rows that `wanted` leaves out.

    Args:
        chunks: the values of each column; each is taken out, so that its memory is freed once it is encoded.
        chosen: what each column is.
        where: gives the place of a value, for messages.
        wanted: the condition and the least rating.
        name: name of the data set in results.
        source: where the log came from, for messages.
        layout: how the log is laid out, in words.

    Raises:
        UserError: a value is no id or no time; its place is named.
    """
    sieve = Sieve(chosen, wanted, source)
    kept = sieve.keep(chunks, where)
    dropped = sieve.dropped()
    for column in list(chunks):
        if column not in (chosen.user, chosen.item, chosen.time, chosen.part):
            del chunks[column]
    if kept is not None:
        chunks, where = take_rows(chunks, kept, where)
    if any(is_list(chunk) for chunk in chunks[chosen.item]):
        layout += LISTS
        first = where(0, chosen.item)
        chunks, where = spread_lists(chunks, chosen, where)
        if not any(len(chunk) for chunk in chunks[chosen.item]):
            raise UserError(f"{first}: all lists of items are empty")
    told = None
    times = None
    if chosen.time:
        times, told = to_seconds(chunks.pop(chosen.time), chosen.time, where)
    parts = to_parts(chunks.pop(chosen.part), chosen.part, where) if chosen.part else None
    users, user_ids = encode_ids(chunks.pop(chosen.user), chosen.user, where)
    items, item_ids = encode_ids(chunks.pop(chosen.item), chosen.item, where)
    warn_of_missing(item_ids, lambda: np.bincount(items, minlength=len(item_ids)), source)
    reading = reading_of(chosen, layout, told, dropped)
    return Interactions(
        users=users, items=items, user_ids=user_ids, item_ids=item_ids, times=times, parts=parts, name=name, source=source, reading=reading
    )  # fmt: skip


def warn_of_missing(item_ids: np.ndarray, counts: Callable[[], np.ndarray], source: str) -> None:
    """Log a warning where a word for a missing value is an item; `counts` gives the rows of each item, (N,)."""
    if item_ids.dtype.kind == "U" and len(absent := np.flatnonzero(np.isin(item_ids, MISSING))):
        rows = int(counts()[absent].sum())
        logger.warning("%s: %s is an item, in %d rows; if it stands for a missing one, leave it out with --data.where", source, item_ids[absent[0]], rows)  # fmt: skip


def reading_of(chosen: Chosen, layout: str, told: str | None, dropped: dict[str, int]) -> dict[str, Any]:
    """Tell how a log was read, as in `Interactions`; `told` says what its times are."""
    return {
        "layout": layout,
        "columns": {
            role: column for role in ("user", "item", "time", "rating", "part") if (column := getattr(chosen, role))
        },
        "order": "time" if chosen.time else "file",
        "times": told,
        "dropped": dropped,
        "others": {role: list(names) for role, names in chosen.others.items() if names},
    }


def take_rows(chunks: Chunks, kept: np.ndarray, where: Where) -> tuple[Chunks, Where]:
    """The rows that stay, and a function that still gives the places of the whole log."""
    taken: Chunks = {}
    for name, arrays in chunks.items():
        taken[name], row = [], 0
        for array in arrays:
            taken[name].append(array.filter(pa.array(kept[row : row + len(array)])))
            row += len(array)
    rows = np.flatnonzero(kept)
    return taken, lambda row, column: where(int(rows[row]), column)


def to_parts(chunks: list[pa.Array], column: str, where: Where) -> np.ndarray:
    """A column of parts as (T,) int8: 0 for training, 1 for validation, 2 for the test.

    Raises:
        UserError: a value is no part.
    """
    found, row = [], 0
    for given in chunks:
        chunk = given
        if pa.types.is_floating(chunk.type):  # 0.0 of a column with missing values, but no 0.5
            whole = pc.fill_null(pc.equal(chunk, pc.floor(chunk)), True)
            chunk = pc.if_else(whole, chunk, pa.scalar(-1.0, chunk.type)).cast(pa.int64(), safe=False)
        coded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
        words = [str(word).strip().lower().removesuffix(".0") for word in coded.dictionary.to_pylist()]
        codes = np.array([PARTS.get(word, -1) for word in words] or [-1], np.int8)[
            coded.indices.fill_null(0).to_numpy()
        ]
        if len(bad := np.flatnonzero(codes < 0)) or chunk.null_count:
            at = int(bad[0]) if len(bad) else int(np.flatnonzero(null_mask(chunk))[0])
            raise UserError(
                f"{where(row + at, column)}: {str(given[at].as_py())[:40]!r} is no part of a split; write train, valid or test"
            )
        found.append(codes)
        row += len(chunk)
    return np.concatenate(found)


def is_list(array: pa.Array) -> bool:
    """True for an array of lists."""
    return bool(
        pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
    )


def spread_lists(chunks: Chunks, chosen: Chosen, where: Where) -> tuple[Chunks, Where]:
    """Give each item of a list its own row: the user is repeated, times are a list of the same lengths, or repeated.

    Raises:
        UserError: a row has no list of items, or a list of times of another length.
    """
    spread: Chunks = {name: [] for name in chunks}
    origins, row = [], 0
    for number, lists in enumerate(chunks[chosen.item]):
        if not is_list(lists) or lists.null_count:
            at = 0 if not is_list(lists) else int(np.flatnonzero(null_mask(lists))[0])
            raise UserError(f"{where(row + at, chosen.item)}: the list of items is missing")
        lengths = np.asarray(pc.list_value_length(lists).cast(pa.int64()).to_pylist(), np.int64)
        origin = np.repeat(np.arange(len(lists)), lengths)  # (T,) row of each item
        for name in chunks:
            array = chunks[name][number]
            if is_list(array):
                own = pc.list_value_length(array).cast(pa.int64()).fill_null(-1).to_pylist()
                if list(lengths) != own:
                    bad = next(
                        at for at, pair in enumerate(zip(lengths.tolist(), own, strict=True)) if pair[0] != pair[1]
                    )
                    raise UserError(
                        f"{where(row + bad, name)}: the list has {max(own[bad], 0)} values, but there are {lengths[bad]} items"
                    )
                spread[name].append(pc.list_flatten(array))
            else:
                spread[name].append(array.take(pa.array(origin)))
        origins.append(origin + row)
        row += len(lists)
    place = np.concatenate(origins)
    return spread, lambda row, column: where(int(place[row]), column)
