"""Pack a log: order by time, handle repeats, take the k-core, number users and items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqcl.data.interactions import Interactions
from seqcl.data.sequences import Sequences, fingerprint
from seqcl.errors import UserError, unknown

DUPLICATES = ("keep", "first", "last")


def pack(interactions: Interactions, *, k_core: int = 0, duplicates: str = "keep", min_length: int = 1) -> Sequences:
    """Sort each user's interactions by time (ties keep file order), drop repeats, take the k-core, number users and items.

    Args:
        interactions: the log.
        k_core: drop users and items with fewer interactions, again and again until none is left; 0 drops none.
        duplicates: a user's repeats of an item: keep all, or only the first or the last in time; done before the k-core.
        min_length: drop users with fewer interactions, together with the k-core.

    Raises:
        UserError: an option is not valid, or nothing or a single user is left.
    """
    check_options(k_core, duplicates, min_length)
    options: dict[str, Any] = {"k_core": k_core, "duplicates": duplicates, "min_length": min_length}
    users, items, times, parts = interactions.users, interactions.items, interactions.times, interactions.parts

    def take(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        return users[rows], items[rows], None if times is None else times[rows], None if parts is None else parts[rows]

    order = time_order(users, times) if parts is None else split_order(users, times, parts)
    if order is not None:
        users, items, times, parts = take(order)
    if duplicates != "keep":
        kept = distinct_rows(users, items, len(interactions.item_ids), last=duplicates == "last")
        users, items, times, parts = take(kept)
    alive = core_rows(users, items, max(k_core, min_length), k_core)
    if alive is not None:
        users, items, times, parts = take(alive)
    left = 0 if len(users) == 0 else 1 if users[0] == users[-1] else 2
    check_users(left, len(users), len(interactions), interactions.source or interactions.name, options)
    user_counts = np.bincount(users, minlength=len(interactions.user_ids))
    item_seen = np.bincount(items, minlength=len(interactions.item_ids)) > 0
    number = np.cumsum(item_seen, dtype=np.int32)  # ids 1..N of the items that are left
    arrays: dict[str, Any] = {
        "items": np.take(number, items),
        "offsets": np.concatenate(([0], np.cumsum(user_counts[user_counts > 0]))).astype(np.int64),
        "times": times,
        "parts": parts,
        "user_ids": interactions.user_ids[user_counts > 0],
        "item_ids": interactions.item_ids[item_seen],
    }
    return Sequences(
        **arrays,
        **options,
        name=interactions.name,
        fingerprint=fingerprint(arrays | options),
        user_table=interactions.user_features,
        item_table=interactions.item_features,
        reading=interactions.reading,
    )


def check_options(k_core: int, duplicates: str, min_length: int) -> None:
    """Refuse options of packing that are out of range.

    Raises:
        UserError: names the value, and the nearest valid name.
    """
    if duplicates not in DUPLICATES:
        raise unknown("duplicates policy", duplicates, DUPLICATES)
    if k_core < 0 or min_length < 1:
        raise UserError(f"k_core must be 0 or more and min_length 1 or more, not {k_core} and {min_length}")


def check_users(users: int, rows: int, all_rows: int, source: str, options: Mapping[str, Any]) -> None:
    """Refuse a packed log with fewer than two users.

    Args:
        users: users that are left; 2 stands for any more.
        rows: interactions that are left.
        all_rows: interactions of the whole log.
        source: where the log came from.
        options: the options of packing.

    Raises:
        UserError: says what left so few.
    """
    if users > 1:
        return
    if rows == all_rows > 0:
        raise UserError(f"{source}: all {rows:,} interactions are of a single user; a model needs two or more")
    left = "a single user is" if users else "nothing is"
    raise UserError(
        f"{source}: {left} left of {all_rows:,} interactions after k_core={options['k_core']}, "
        f"min_length={options['min_length']}, duplicates={options['duplicates']}; lower k_core or min_length"
    )


def time_order(users: np.ndarray, times: np.ndarray | None) -> np.ndarray | None:
    """The order that sorts rows by user, then time, ties in file order; None if the rows are in this order already."""
    order = None
    if (users[1:] < users[:-1]).any():
        order = stable_order(users)
        users, times = users[order], None if times is None else times[order]
    if times is None or not ((times[1:] < times[:-1]) & (users[1:] == users[:-1])).any():
        return order
    by_time = np.argsort(times, kind="stable")
    by_time = by_time[stable_order(users[by_time])]
    return by_time if order is None else order[by_time]


def split_order(users: np.ndarray, times: np.ndarray | None, parts: np.ndarray) -> np.ndarray:
    """The order that sorts rows by user, then time, then part of a given split; ties, and rows without times, in file order."""
    return np.lexsort((users,) if times is None else (parts, times, users))


def stable_order(codes: np.ndarray) -> np.ndarray:
    """Stable argsort of codes >= 0, 16 bits at a time: numpy sorts these by counting, much faster than 32 bits."""
    order = np.argsort((codes & 0xFFFF).astype(np.uint16), kind="stable")
    if codes.max() > 0xFFFF:
        order = order[np.argsort((codes >> 16)[order].astype(np.uint16), kind="stable")]
    return order


def distinct_rows(users: np.ndarray, items: np.ndarray, num_items: int, *, last: bool) -> np.ndarray:
    """Rows of each user's first (or last) interaction with each item, in order."""
    pairs = users * np.int64(num_items) + items
    if not last:
        return np.sort(np.unique(pairs, return_index=True)[1])
    return np.sort(len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1])


def core_rows(users: np.ndarray, items: np.ndarray, user_least: int, item_least: int) -> np.ndarray | None:
    """Rows of the largest part in which every user and item has its least count; None if all rows stay."""
    if user_least <= 1 and item_least <= 1:
        return None
    alive = None
    while True:
        enough = np.bincount(users)[users] >= user_least if len(users) else np.zeros(0, bool)
        enough &= np.bincount(items)[items] >= item_least if len(users) else enough
        if enough.all():
            return alive
        alive = np.flatnonzero(enough) if alive is None else alive[enough]
        users, items = users[enough], items[enough]
