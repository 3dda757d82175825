"""Cells of tables as they come: what they hold, whether anything, and the words in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.errors import UserError, unknown
from seqcl.types import Bag

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("seqcl")


def cells_of(table: pd.DataFrame, raw_ids: np.ndarray, source: str) -> dict[str, list[Any]]:
    """The columns of a table in the order of raw ids, None where an id has no row; 7 and "7" are one id.

    Raises:
        UserError: two columns of one name, or a table whose rows have several keys.
    """
    names = [str(name) for name in table.columns]
    if table.index.nlevels > 1 or table.columns.nlevels > 1 or len(set(names)) < len(names):
        raise UserError(f"{source}: it must have one row an id, indexed by it, and a name of its own for each column")
    rows = rows_of(table.index, raw_ids, source).tolist()
    columns = {name: [*table.iloc[:, number].tolist(), None] for number, name in enumerate(names)}
    return {name: [column[row] for row in rows] for name, column in columns.items()}


def rows_of(keys: Iterable[Any], raw_ids: np.ndarray, source: str) -> np.ndarray:
    """The first of the keys that each raw id is, -1 for none: (N,) int64; 7 and "7" are one id."""
    place: dict[str, int] = {}
    count = 0
    for count, key in enumerate(keys, 1):
        place.setdefault(word_of(key), count - 1)
    if len(place) < count:
        log.warning("%s: %d rows repeat an id, only its first row counts; a cell may hold a list of words", source, count - len(place))  # fmt: skip
    rows = np.fromiter((place.get(str(raw), -1) for raw in raw_ids.tolist()), np.int64, len(raw_ids))
    if (strange := int((rows < 0).sum())) > len(rows) / 2:
        log.warning("%s: it has no row for %d of %d ids, which are such as %s in the log and %s there", source, strange, len(rows), some(raw_ids), some(place))  # fmt: skip
    return rows


def listed(names: str, columns: Iterable[str], source: str) -> list[str]:
    """Names separated by commas, each of them a column.

    Raises:
        UserError: one is not, or there is none.
    """
    columns, found = list(columns), [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in columns:
            raise unknown(f"column in {source}", name, columns)
    if not found:
        raise UserError(f"{source}: no column is named; it has {', '.join(columns)}")
    return found


def numeric(column: Iterable[Any]) -> bool:
    """Whether all cells that are there are numbers, and not True or False."""
    kinds = {
        isinstance(cell, int | float | np.number) and not isinstance(cell, bool | np.bool_)
        for cell in column
        if not missing(cell)
    }
    return kinds == {True}


def distinct(column: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
    """The number of each cell (R,), and the cells that they number: text and whole numbers once, others as often as they come."""
    if not all(type(cell) in (str, int) or (not isinstance(cell, list) and missing(cell)) for cell in column):
        return np.arange(len(column)), list(column)
    number: dict[Any, int] = {}
    codes = np.fromiter((number.setdefault(cell, len(number)) for cell in column), np.int64, len(column))
    return codes, list(number)


def split(cell: Any) -> Iterable[str]:
    """The words of a cell: text is split at blanks, a list has them already, a missing value has none; 7.0 is 7."""
    if isinstance(cell, str):
        return cell.split()
    if isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return [str(word) for word in cell if not missing(word)]
    return [] if missing(cell) else [word_of(cell)]


def word_of(value: Any) -> str:
    """A value as a word; 7.0 is 7."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def missing(cell: Any) -> bool:
    """Whether a cell is None, NaN or pandas' NA, which is equal to nothing and to itself neither."""
    if cell is None or isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return cell is None
    same = cell == cell
    return not (isinstance(same, bool | np.bool_) and same)


def some(ids: Iterable[Any]) -> str:
    """Three of the ids."""
    return ", ".join(str(raw) for raw, _ in zip(ids, range(3), strict=False))


def bag(rows: Sequence[Sequence[int]], names: list[str]) -> Bag:
    """The words of rows, given as their numbers."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return Bag(offsets.astype(np.int64), np.array([word for row in rows for word in row], np.int64), names)
