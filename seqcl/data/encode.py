"""Encode raw columns as a log: the last step of every reader of tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.arrow import null_mask, values_of
from seqcl.data.columns import Chosen, Wanted, Where
from seqcl.data.conditions import Condition
from seqcl.data.ids import encode_ids
from seqcl.data.interactions import Interactions
from seqcl.data.names import PARTS
from seqcl.data.times import to_seconds
from seqcl.errors import UserError

logger = logging.getLogger("seqcl")

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "none", "<NA>", "\\N")
"""Text that stands for a missing user."""

MOST_MISSING = 0.1
"""Largest share of rows without a user that are left out; above it the column is probably the wrong one."""

Chunks = dict[str, list[pa.Array]]


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
    dropped: dict[str, int] = {}
    kept = kept_rows(chunks, chosen, where, wanted, dropped, source)
    for column in list(chunks):
        if column not in (chosen.user, chosen.item, chosen.time, chosen.part):
            del chunks[column]
    if kept is not None:
        chunks, where = take_rows(chunks, kept, where)
    if any(is_list(chunk) for chunk in chunks[chosen.item]):
        layout += ", a list of items a row"
        chunks, where = spread_lists(chunks, chosen, where)
    told = None
    times = None
    if chosen.time:
        times, told = to_seconds(chunks.pop(chosen.time), chosen.time, where)
    parts = to_parts(chunks.pop(chosen.part), chosen.part, where) if chosen.part else None
    users, user_ids = encode_ids(chunks.pop(chosen.user), chosen.user, where)
    items, item_ids = encode_ids(chunks.pop(chosen.item), chosen.item, where)
    if item_ids.dtype.kind == "U" and len(absent := np.flatnonzero(np.isin(item_ids, MISSING))):
        rows = int(np.isin(items, absent).sum())
        logger.warning("%s: %s is an item, in %d rows; if it stands for a missing one, leave it out with --data.where", source, item_ids[absent[0]], rows)  # fmt: skip
    reading: dict[str, Any] = {
        "layout": layout,
        "columns": {
            role: column for role in ("user", "item", "time", "rating", "part") if (column := getattr(chosen, role))
        },
        "order": "time" if chosen.time else "file",
        "times": told,
        "dropped": dropped,
        "others": {role: list(names) for role, names in chosen.others.items() if names},
    }
    return Interactions(
        users=users, items=items, user_ids=user_ids, item_ids=item_ids, times=times, parts=parts, name=name, source=source, reading=reading
    )  # fmt: skip


def kept_rows(
    chunks: Chunks, chosen: Chosen, where: Where, wanted: Wanted, dropped: dict[str, int], source: str
) -> np.ndarray | None:
    """(T,) bool, true for the rows that stay; None if all do. What is left out is counted in `dropped`.

    Raises:
        UserError: no row is left, or too many have no user.
    """
    kept: np.ndarray | None = None
    for why, find in reasons(chunks, chosen, wanted):
        bad = find()
        if bad is None or not bad.any():
            continue
        new = bad if kept is None else bad & kept
        before = len(bad) if kept is None else int(kept.sum())
        if why == "no user" and new.sum() > MOST_MISSING * before:
            others = " or ".join([*chosen.others.get("user", []), "another column"])
            raise UserError(
                f"{where(int(np.flatnonzero(new)[0]), chosen.user)}: the id is missing, as in {new.sum() / before:.0%} of the rows; choose {others} with --data.user, or leave these rows out with --data.where"
            )
        dropped[why] = int(new.sum())
        kept = ~bad if kept is None else kept & ~bad
        if not kept.any():
            raise UserError(f"{source}: no row of {len(kept):,} is left ({', '.join(dropped)})")
    return kept


def reasons(chunks: Chunks, chosen: Chosen, wanted: Wanted) -> list[tuple[str, Callable[[], np.ndarray | None]]]:
    """The reasons for which rows are left out, each with a function that marks them."""
    found: list[tuple[str, Callable[[], np.ndarray | None]]] = []
    if wanted.where is not None:
        condition = Condition.parse(wanted.where)
        found.append(
            (f"not fulfilled: {wanted.where}", lambda: ~by_chunk(chunks, condition.names.values(), condition.holds))
        )
    if wanted.min_rating is not None:
        least = Condition.parse(f"`{chosen.rating}` >= {float(wanted.min_rating)!r}")
        found.append(
            (f"rating below {wanted.min_rating:g}", lambda: ~by_chunk(chunks, [str(chosen.rating)], least.holds))
        )
    found.append(("no user", lambda: missing_users(chunks[chosen.user])))
    return found


def by_chunk(chunks: Chunks, names: Any, holds: Callable[[Mapping[str, pa.Array]], pa.Array]) -> np.ndarray:
    """A condition over all chunks: (T,) bool."""
    names = list(names)
    whole = {name: pa.chunked_array(chunks[name]) if len(chunks[name]) > 1 else chunks[name][0] for name in names}
    found = holds(whole)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return values_of(found.cast(pa.uint8()), np.uint8).astype(bool)


def missing_users(chunks: list[pa.Array]) -> np.ndarray | None:
    """(T,) bool, true where a user is null, or text that stands for a missing value; None if no row has such."""
    parts = []
    for chunk in chunks:
        bad = null_mask(chunk) if chunk.null_count else None
        values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
            bad = null_mask(values) if values.null_count and values is not chunk else bad
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            words = pc.is_in(pc.utf8_trim_whitespace(values), pa.array(MISSING, values.type))
            if pc.any(words).as_py():
                words = words.take(chunk.indices).fill_null(False) if values is not chunk else words
                marked = values_of(words.cast(pa.uint8()), np.uint8).astype(bool)
                bad = marked if bad is None else bad | marked
        parts.append(bad)
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(len(chunk), bool) if part is None else part for part, chunk in zip(parts, chunks, strict=True)]
    )


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
    for chunk in chunks:
        if pa.types.is_floating(chunk.type):
            chunk = chunk.cast(pa.int64(), safe=False)
        coded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
        words = [str(word).strip().lower().removesuffix(".0") for word in coded.dictionary.to_pylist()]
        codes = np.array([PARTS.get(word, -1) for word in words] or [-1], np.int8)[
            coded.indices.fill_null(0).to_numpy()
        ]
        if len(bad := np.flatnonzero(codes < 0)) or chunk.null_count:
            at = int(bad[0]) if len(bad) else int(np.flatnonzero(null_mask(chunk))[0])
            raise UserError(
                f"{where(row + at, column)}: {str(chunk[at].as_py())[:40]!r} is no part of a split; write train, valid or test"
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
    if not len(place):
        raise UserError(f"{where(0, chosen.item)}: all lists of items are empty")
    return spread, lambda row, column: where(int(place[row]), column)
