"""Choose the columns of users, items and times: the ones asked for, else those with usual names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seqcl.errors import UserError, unknown

USER_NAMES = ("user_id", "user", "userid", "uid", "user_idx", "reviewerid", "visitorid", "customer_id", "session_id")
ITEM_NAMES = ("item_id", "item", "itemid", "iid", "item_idx", "parent_asin", "asin", "movie_id", "movieid")
TIME_NAMES = ("timestamp", "time", "ts", "unixreviewtime", "datetime", "date")

NO_TIME = "-"
"""Given as the time column, it means: take the order of the file and ignore its times."""

Where = Callable[[int, str], str]
"""A function of a 0-based row and a column that gives their place, for messages: log.csv:7: column 2 'item_id'."""


def choose_columns(
    names: Sequence[str], *, user: str | None, item: str | None, time: str | None, source: str
) -> tuple[str, str, str | None]:
    """Choose the user, item and time columns among `names`: the one asked for, else the first usual name that is there.

    Raises:
        UserError: a column is missing (the nearest are named), is there twice, or is chosen twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{source}: two columns are called {', '.join(map(repr, twice))}")
    found = (
        pick_column(names, user, USER_NAMES, "user", source),
        pick_column(names, item, ITEM_NAMES, "item", source),
        None if time == NO_TIME else pick_column(names, time, TIME_NAMES, "time", source, needed=time is not None),
    )
    for one, other, held in ((0, 1, "users and items"), (0, 2, "users and times"), (1, 2, "items and times")):
        if found[one] == found[other]:
            raise UserError(f"{source}: column {found[one]!r} cannot hold both {held}")
    assert found[0] is not None and found[1] is not None
    return found[0], found[1], found[2]


def pick_column(
    names: Sequence[str], asked: str | None, usual: Sequence[str], role: str, source: str, *, needed: bool = True
) -> str | None:
    """Choose the column of one role; None if the role is not needed and no usual name is there."""
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
            f"{source}: {unknown(f'{role} column', usual[0], names)} (name it with --data.{role}, or with --{role} in `seqcl data`)"
        )
    return None
