"""Logs whose split was made elsewhere and lies in files: train, valid and test, of any layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seqcl.data.delimited import TextTable
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError


def join(logs: Mapping[int, Interactions], name: str, source: str) -> Interactions:
    """One log out of the logs of the parts, training first.

    Raises:
        UserError: some parts have times and others have none.
    """
    users, user_ids = together([(log.users, log.user_ids) for log in logs.values()])
    items, item_ids = together([(log.items, log.item_ids) for log in logs.values()])
    times = [log.times for log in logs.values()]
    timed = [one for one in times if one is not None]
    if timed and len(timed) < len(times):
        raise UserError(f"{source}: some of the files have times and others have none; add --data.order file")
    first = next(iter(logs.values()))
    dropped: dict[str, int] = {}
    for log in logs.values():
        for why, rows in log.reading["dropped"].items():
            dropped[why] = dropped.get(why, 0) + rows
    return Interactions(
        users=users,
        items=items,
        user_ids=user_ids,
        item_ids=item_ids,
        times=np.concatenate(timed) if timed else None,
        parts=np.repeat(np.array(list(logs), np.int8), [len(log) for log in logs.values()]),
        name=name,
        source=source,
        reading=first.reading
        | {"layout": f"{first.reading['layout']}, a file a part of the split", "dropped": dropped},
        user_features=first.user_features,
        item_features=first.item_features,
    )


def together(columns: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Codes of several columns as codes into one sorted array of ids; text if one of them is text."""
    text = any(ids.dtype.kind != "i" for _, ids in columns)
    raws = [ids.astype(np.str_) if text else ids for _, ids in columns]
    ids = np.unique(np.concatenate(raws))
    codes = [np.searchsorted(ids, raw)[column] for (column, _), raw in zip(columns, raws, strict=True)]
    return np.concatenate(codes).astype(np.int32), ids


def unroll(tables: Mapping[int, TextTable], user: str, item: str) -> dict[int, list[tuple[str, str]]]:
    """The interactions of rows 'user, list of items, target': each row must go on where the user's rows before it end.

    Args:
        tables: the file of each part.
        user: column of the users.
        item: column of the targets; that of the lists ends in _list.

    Returns:
        (user, item) of each interaction, by part.

    Raises:
        UserError: a row does not go on where the rows before it end; its file and line are named.
    """
    rows: dict[int, list[tuple[str, str]]] = {}
    seen: dict[str, list[str]] = {}
    for part, table in tables.items():
        places = [table.layout.names.index(name) for name in (user, f"{item}_list", item)]
        read = list(table.records())
        for line, cells in read:
            if len(cells) != len(table.layout.names):
                raise UserError(
                    f"{table.path}:{line}: the row has {len(cells)} columns, the header {len(table.layout.names)}"
                )
        records = [(line, [cells[place] for place in places]) for line, cells in read]
        rows[part] = []
        for line, (owner, text, target) in sorted(records, key=length):
            before, known = text.split(), seen.setdefault(owner, [])
            if not known and part and before:
                raise UserError(
                    f"{table.path}:{line}: training has no row of user {owner[:40]}, so whether the items before the target were learned cannot be told"
                )
            if not known:
                rows[part] += [(owner, one) for one in before]
                known += before
            if before and known[-len(before) :] != before:
                raise UserError(
                    f"{table.path}:{line}: {item}_list does not go on where the rows of user {owner[:40]} before it end, so what training knows cannot be told"
                )
            rows[part].append((owner, target))
            known.append(target)
    return rows


def length(record: tuple[int, list[str]]) -> int:
    """The number of items in the list of a record."""
    return len(record[1][1].split())
