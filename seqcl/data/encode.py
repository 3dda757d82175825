"""Encode raw columns as a log: the last step of every reader of tables."""

from __future__ import annotations

import pyarrow as pa

from seqcl.data.columns import Where
from seqcl.data.ids import encode_ids
from seqcl.data.interactions import Interactions
from seqcl.data.times import to_seconds


def encode_log(
    chunks: dict[str, list[pa.Array]],
    columns: tuple[str, str, str | None],
    where: Where,
    *,
    name: str,
    source: str,
) -> Interactions:
    """Encode the columns of users, items and times as a log.

    Args:
        chunks: the values of each column; each is taken out, so that its memory is freed once it is encoded.
        columns: names of the columns of users, items and times; None for the times if there are none.
        where: gives the place of a value, for messages.
        name: name of the data set in results.
        source: where the log came from, for messages.

    Raises:
        UserError: a value is no id or no time; its place is named.
    """
    user, item, time = columns
    times = to_seconds(chunks.pop(time), time, where) if time else None
    users, user_ids = encode_ids(chunks.pop(user), user, where)
    items, item_ids = encode_ids(chunks.pop(item), item, where)
    return Interactions(
        users=users, items=items, user_ids=user_ids, item_ids=item_ids, times=times, name=name, source=source
    )
