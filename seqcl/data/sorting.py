"""Sort a log of codes that lies in files, take its k-core, and write the packed arrays: the passes after the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.packing import check_users, distinct_rows, split_order, stable_order, time_order
from seqcl.data.sequences import Sequences, fingerprint
from seqcl.data.spill import Spill
from seqcl.mapped import blocks, first_users, stretches

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A log in files, in the order of its source: users and items by codes, times not yet in seconds.

    Args:
        read: columns users, items and, if there are any, times and parts.
        rows: their length.
        source: where the log came from, for messages.
        user_place: place of each code of a user among the sorted ids, int32.
        user_ids: the different users, sorted.
        user_counts: rows of each of them.
        item_place: place of each code of an item among the sorted ids, int32.
        item_ids: the different items, sorted.
        convert: turns times into seconds; None if there are none.
    """

    read: Spill
    rows: int
    source: str
    user_place: np.ndarray
    user_ids: np.ndarray
    user_counts: np.ndarray
    item_place: np.ndarray
    item_ids: np.ndarray
    convert: Callable[[np.ndarray], np.ndarray] | None


def write_packed(
    coded: Coded,
    work: Path,
    folder: Path,
    *,
    options: dict[str, Any],
    name: str,
    reading: dict[str, Any],
    item_table: pd.DataFrame | None,
) -> Sequences:
    """Write the packed arrays of a log into a folder, and give them mapped.

    Args:
        coded: the log; its files are removed on the way.
        work: folder for files on the way.
        folder: where the arrays go.
        options: k_core, duplicates and min_length.
        name: name of the data set in results.
        reading: how the source was read.
        item_table: features of the items.

    Raises:
        UserError: nothing or a single user is left.
        OSError: the disk is full.
    """
    grouped = Spill(work / "grouped", coded.read.kinds, rows=coded.rows)
    offsets = np.concatenate(([0], np.cumsum(coded.user_counts)))  # (U + 1,)
    group_users(coded, offsets, grouped)
    coded.read.remove()
    ordered = Spill(work / "ordered", {column: kind for column, kind in grouped.kinds.items() if column != "users"})
    sizes = sort_users(grouped, offsets, ordered, coded, options["duplicates"])
    grouped.remove()
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    sizes, seen = core(ordered, offsets, len(coded.item_ids), options)
    some = np.flatnonzero(sizes)
    check_users(min(len(some), 2), int(sizes.sum()), coded.rows, coded.source, options)
    write_arrays(ordered, offsets, sizes, seen, folder)
    np.save(folder / "offsets.npy", np.concatenate(([0], np.cumsum(sizes[some]))).astype(np.int64))
    np.save(folder / "user_ids.npy", coded.user_ids[some])
    np.save(folder / "item_ids.npy", coded.item_ids[seen])
    arrays: dict[str, Any] = {
        field: np.load(file, mmap_mode="r") if (file := folder / f"{field}.npy").exists() else None
        for field in ("items", "offsets", "times", "parts", "user_ids", "item_ids")
    }
    return Sequences(
        **arrays,
        **options,
        name=name,
        fingerprint=fingerprint(arrays | options),
        item_table=item_table,
        reading=reading,
    )


def group_users(coded: Coded, offsets: np.ndarray, grouped: Spill) -> None:
    """Bring the rows of each stretch of users together, in the order of the source."""
    first = first_users(offsets)
    stretch = np.repeat(np.arange(len(first) - 1), np.diff(first))  # (U,) of each user
    free = offsets[first]  # the next free row of each stretch
    for begin, end in blocks(coded.rows):
        rows = coded.read.take(begin, end)
        rows["users"] = coded.user_place[rows["users"]]
        rows["items"] = coded.item_place[rows["items"]]
        own = stretch[rows["users"]]
        order = stable_order(own)
        edges = np.searchsorted(own[order], np.arange(len(first)))
        some = np.flatnonzero(np.diff(edges))
        places = zip(edges[some].tolist(), edges[some + 1].tolist(), free[some].tolist(), strict=True)
        grouped.put({column: values[order] for column, values in rows.items()}, places)
        free[some] += np.diff(edges)[some]


def sort_users(grouped: Spill, offsets: np.ndarray, ordered: Spill, coded: Coded, duplicates: str) -> np.ndarray:
    """Sort each stretch by user, then time, drop repeats, and give the rows of each user that are left, (U,)."""
    sizes = np.zeros(len(coded.user_ids), np.int64)
    for own, begin, end in stretches(offsets):
        rows = grouped.take(begin, end)
        rows["users"] -= own.start
        times, parts = rows.get("times"), rows.get("parts")
        if coded.convert is not None and times is not None:
            rows["times"] = times = coded.convert(times)
        order = time_order(rows["users"], times) if parts is None else split_order(rows["users"], times, parts)
        if order is not None:
            rows = {column: values[order] for column, values in rows.items()}
        if duplicates != "keep":
            kept = distinct_rows(rows["users"], rows["items"], len(coded.item_ids), last=duplicates == "last")
            rows = {column: values[kept] for column, values in rows.items()}
        sizes[own] = np.bincount(rows["users"], minlength=own.stop - own.start)
        ordered.append(rows)
    return sizes


def core(
    ordered: Spill, offsets: np.ndarray, num_items: int, options: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each user (U,), and (N,) bool, true for the items, of the largest part in which each has its least count."""
    sizes, seen = np.diff(offsets), np.ones(num_items, bool)
    user_least, item_least = max(options["k_core"], options["min_length"]), max(options["k_core"], 1)
    if user_least <= 1 and item_least <= 1:
        return sizes, seen
    users, left = np.ones(len(sizes), bool), -1
    while True:
        counts = np.zeros(num_items, np.int64)
        for own, begin, end in stretches(offsets):
            items = ordered.take(begin, end, ["items"])["items"]
            kept = seen[items] & np.repeat(users[own], np.diff(offsets[own.start : own.stop + 1]))
            counts += np.bincount(items[kept], minlength=num_items)
            sizes[own] = np.add.reduceat(kept, offsets[own] - begin, dtype=np.int64)
        if sizes.sum() == left:
            return sizes, counts > 0
        left, users, seen = int(sizes.sum()), sizes >= user_least, counts >= item_least


def write_arrays(ordered: Spill, offsets: np.ndarray, sizes: np.ndarray, seen: np.ndarray, folder: Path) -> None:
    """Write the rows of the users and items that are left as .npy files, the items by their ids 1..N."""
    number = np.cumsum(seen, dtype=np.int32)  # ids 1..N of the items that are left
    with ExitStack() as stack:
        files = {column: stack.enter_context((folder / f"{column}.npy").open("wb")) for column in ordered.kinds}
        for column, kind in ordered.kinds.items():
            head = {"descr": kind.str, "fortran_order": False, "shape": (int(sizes.sum()),)}
            np.lib.format.write_array_header_1_0(files[column], head)
        for own, begin, end in stretches(offsets):
            rows = ordered.take(begin, end)
            kept = seen[rows["items"]]
            kept &= np.repeat(sizes[own] > 0, np.diff(offsets[own.start : own.stop + 1]))
            rows["items"] = number[rows["items"]]
            for column, file in files.items():
                file.write(rows[column][kept].data)
