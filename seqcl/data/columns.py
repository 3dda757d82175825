"""Choose the columns of users, items, times and ratings: the ones asked for, else by name, else times by content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from seqcl.data.evidence import looks_like_times
from seqcl.data.names import (
    ITEM_NAMES,
    LISTED,
    PART_NAMES,
    RATING_NAMES,
    TIME_NAMES,
    TIME_WORDS,
    USER_NAMES,
    Names,
    plain,
    words,
)
from seqcl.errors import UserError, brief, unknown

LONGEST_NAME = 100
"""Most characters of the name of a column."""

ROLES = ("user", "item", "time", "rating")
"""Roles of columns; `_` in --data.columns is a column that is not read."""

Where = Callable[[int, str], str]
"""A function of a 0-based row and a column that gives their place, for messages: log.csv:7: column 2 'item_id'."""


class ReadOptions(TypedDict, total=False):
    """The options of `read`, for functions that hand them on; the attributes of `Wanted` say what they do."""

    format: str | None
    columns: str | None
    user: str | None
    item: str | None
    time: str | None
    order: str
    where: str | None
    min_rating: float | None
    given: bool
    split_column: str | None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The user's choices of how a log is read; all else is found by evidence.

    Args:
        format: one of FORMATS.
        columns: the columns of a file without a header, from the left: user, item, time, rating, or _ for any other.
        user: column of the user ids.
        item: column of the item ids.
        time: column of the times.
        order: time, or file: the rows are in time order as they stand, and times are not read.
        where: keep the rows for which this holds, such as "event == 'transaction'".
        min_rating: keep the rows with at least this rating.
        given: the split was made elsewhere: read the part of each row.
        split_column: column of the parts, train, valid or test.
    """

    format: str | None = None
    columns: str | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    order: str = "time"
    where: str | None = None
    min_rating: float | None = None
    given: bool = False
    split_column: str | None = None

    def __post_init__(self) -> None:
        for name in ("format", "columns", "user", "item", "time", "where", "split_column"):
            if not isinstance(value := getattr(self, name), str | None):
                raise UserError(f"data.{name} must be text, not {brief(repr(value), 60)}")
        if not isinstance(self.min_rating, int | float | None) or self.min_rating != self.min_rating:
            raise UserError(f"data.min_rating must be a number, not {brief(repr(self.min_rating), 60)}")
        if self.order not in ("time", "file"):
            raise unknown("order", str(self.order), ("time", "file"))
        if self.time == "-":
            raise UserError("--data.time -: for the order of the file write --data.order file")
        if self.split_column is not None and not self.given:
            raise UserError(f"--data.split_column {self.split_column} has no use without --data.split given")
        if self.time is not None and self.order == "file":
            raise UserError(f"--data.order file does not read times, so --data.time {self.time} has no use; give one")

    def positions(self) -> tuple[str, ...] | None:
        """The roles in `columns`, None if there are none.

        Raises:
            UserError: a role is not known, is there twice, or users or items are missing.
        """
        if self.columns is None:
            return None
        roles = tuple(role.strip().lower() or "_" for role in self.columns.split(","))
        for role in roles:
            if role not in (*ROLES, "_"):
                raise UserError(f"--data.columns {self.columns}: {unknown('role', role, (*ROLES, '_'))}")
        for role in ROLES:
            if roles.count(role) > 1 or (role in ("user", "item") and role not in roles):
                how = "twice" if role in roles else "not"
                raise UserError(
                    f"--data.columns {self.columns}: {role} is {how} there; an example is user,item,rating,time"
                )
        return roles


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The columns that are read.

    Args:
        user: column of the user ids.
        item: column of the item ids.
        time: column of the times; None if the order of the rows counts.
        rating: column of the ratings; None if they are not needed.
        part: column of the parts of a split; None if they are not needed.
        tested: columns that `where` looks at.
        others: other columns that might have been meant, by role.
    """

    user: str
    item: str
    time: str | None = None
    rating: str | None = None
    part: str | None = None
    tested: tuple[str, ...] = ()
    others: Mapping[str, Sequence[str]]

    @property
    def needed(self) -> list[str]:
        """All columns to read, each once."""
        return list(
            dict.fromkeys(
                name for name in (self.user, self.item, self.time, self.rating, self.part, *self.tested) if name
            )
        )


def choose_columns(
    names: Sequence[str],
    sample: Mapping[str, Sequence[Any]],
    wanted: Wanted,
    source: str,
    *,
    named: bool = True,
) -> Chosen:
    """Choose columns among `names`: the one asked for, else the one with a usual name, else, for times, by content.

    Args:
        names: the columns of the log.
        sample: the first values of each column.
        wanted: what the user says.
        source: where the columns are, for messages.
        named: the log names its columns; else their names are roles that were found by position.

    Raises:
        UserError: a column is missing (the nearest are named), is there twice, is chosen twice, or several could be meant.
    """
    if long := next((name for name in names if len(name) > LONGEST_NAME), None):
        raise UserError(
            f"{source}: a column is called {brief(long, 60)!r}, {len(long):,} characters long; is this a header?"
        )
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise UserError(f"{source}: two columns are called {', '.join(map(repr, twice))}")
    others: dict[str, list[str]] = {}
    user = pick(names, wanted.user, USER_NAMES, "user", source, others)
    item = pick(names, wanted.item, ITEM_NAMES, "item", source, others)
    if user is None or item is None:
        role, usual = ("user", "user_id") if user is None else ("item", "item_id")
        raise UserError(
            f"{source}: {unknown(f'{role} column', usual, names)} (name it with --data.{role}, or with --{role} in `seqcl data`)"
        )
    time = None
    if wanted.order == "time":
        time = pick(names, wanted.time, TIME_NAMES, "time", source, others)
        rest = [name for name in names if name not in (user, item, time)]
        if named and wanted.time is None and (time is None or plain(time) in TIME_NAMES[-1]):
            time = time_by_content(time, rest, sample, source)
    rating = None
    if wanted.min_rating is not None:
        rating = pick(names, None, RATING_NAMES, "rating", source, others)
        if rating is None:
            raise UserError(
                f"{source}: {unknown('rating column', 'rating', names)}; write --data.where 'COLUMN >= {wanted.min_rating:g}' instead"
            )
    for one, other, held in ((user, item, "users and items"), (user, time, "users and times"), (item, time, "items and times")):  # fmt: skip
        if one == other:
            raise UserError(f"{source}: column {one!r} cannot hold both {held}")
    tested: tuple[str, ...] = ()
    if wanted.where is not None:
        from seqcl.data.conditions import Condition  # brings pyarrow, which a start from the cache need not wait for

        tested = tuple(Condition.parse(wanted.where).names.values())
    for name in tested:
        if name not in names:
            raise UserError(f"--data.where: {source}: {unknown('column', name, names)}")
    part = None
    if wanted.given:
        part = pick(names, wanted.split_column, PART_NAMES, "split", source, others)
        if part is None:
            raise UserError(
                f"{source}: {unknown('split column', 'split', names)}; name it with --data.split_column, or give a folder with train, valid and test files"
            )
    return Chosen(user=user, item=item, time=time, rating=rating, part=part, tested=tested, others=others)


def pick(
    names: Sequence[str], asked: str | None, usual: Names, role: str, source: str, others: dict[str, list[str]]
) -> str | None:
    """Choose the column of one role; None if no name is usual for it. Names of later ranks are put down in `others`."""
    if asked is not None:
        if asked not in names:
            raise UserError(f"{source}: {unknown(f'{role} column', asked, names)}")
        return asked
    ranked = [[name for name in names if plain(name) in rank] for rank in usual]
    found = [rank for rank in ranked if rank]
    if not found:
        return None
    single = [name for name in found[0] if not LISTED.search(name.lower())]  # item_id goes before item_id_list
    if len(found[0]) > 1 and len(single) != 1:
        raise several(found[0], role, source)
    others[role] = [name for rank in found[1:] for name in rank]
    return (single or found[0])[0]


def time_by_content(
    day: str | None, names: Sequence[str], sample: Mapping[str, Sequence[Any]], source: str
) -> str | None:
    """The only column that holds times: one with such content, or a day where nothing finer is there; None if there is none.

    Args:
        day: a column whose name is usual for days, if there is one.
        names: the other columns.
        sample: the first values of each column.
        source: where the columns are, for messages.

    Raises:
        UserError: several columns could be meant, or a name speaks of time and the content does not say so.
    """
    found = [name for name in names if looks_like_times(sample.get(name, ()))]
    found = [name for name in found if words(name) & TIME_WORDS] or found
    called = [name for name in names if "time" in name.lower() or words(name) & TIME_WORDS]
    if day is not None:
        finer = [name for name in names if name in found or name in called]
        if finer:
            raise several([day, *finer], "time", source)
        return day
    if len(found) > 1 or (called and not found):
        raise several(found or called, "time", source)
    return found[0] if found else None


def several(names: Sequence[str], role: str, source: str) -> UserError:
    """The error for several columns that could have one role."""
    way_out = ", or take the rows as they stand with --data.order file" if role == "time" else ""
    option = {"rating": "--data.where", "split": "--data.split_column"}.get(role, f"--data.{role}")
    return UserError(
        f"{source}: the {role} could be {' or '.join(names[:4])}; choose with {option} {names[0]}{way_out}"
    )
