"""Cells of tables as users give them: missing ones, numbers, and the words in the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.errors import UserError, unknown
from seqcl.types import Bag

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("seqcl")


class Coded(Sequence[Any]):
    """A column of text without an object for each row: the number of each cell among the different ones, -1 for a missing one.

    Args:
        codes: (R,) integers.
        cells: the different cells.
    """

    def __init__(self, codes: np.ndarray, cells: list[str]) -> None:
        self.codes, self.cells = codes, cells

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: Any) -> Any:
        code = self.codes[row]
        return None if code < 0 else self.cells[code]

    def take(self, rows: np.ndarray) -> Coded:
        """The given rows (n,), -1 for a missing one, and the cells that they have."""
        codes = np.where(rows < 0, -1, self.codes[rows])
        there = codes >= 0
        used, codes[there] = np.unique(codes[there], return_inverse=True)
        return Coded(codes.astype(np.int32), [self.cells[code] for code in used.tolist()])


class Numeric(Sequence[Any]):
    """A column of whole numbers or fractions without an object for each row.

    Args:
        values: (R,) integers or floating-point numbers.
        there: (R,) bool, False for a missing one; NaN is missing too.
    """

    def __init__(self, values: np.ndarray, there: np.ndarray) -> None:
        self.values = values
        self.there = there & ~np.isnan(values) if values.dtype.kind == "f" else there

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: Any) -> Any:
        return self.values[row].item() if self.there[row] else None

    def take(self, rows: np.ndarray) -> Numeric:
        """The given rows (n,), -1 for a missing one."""
        return Numeric(self.values[rows], (rows >= 0) & self.there[rows])


def cells_of(table: pd.DataFrame, raw_ids: np.ndarray, source: str) -> dict[str, Sequence[Any]]:
    """The columns of a table in the order of the raw ids, None where an id has no row; 7 and "7" are the same id.

    Categories of text come as `Coded`, numbers as `Numeric`, all others as lists.

    Raises:
        UserError: two columns have one name, or the index or the columns of the table have several levels.
    """
    names = [str(name) for name in table.columns]
    if table.index.nlevels > 1 or table.columns.nlevels > 1 or len(set(names)) < len(names):
        raise UserError(f"{source}: it must have one row for each id, indexed by id, and columns with different names")
    rows = rows_of(table.index, raw_ids, source)
    return {name: column_of(table.iloc[:, number], rows) for number, name in enumerate(names)}


def column_of(column: pd.Series, rows: np.ndarray) -> Sequence[Any]:
    """The cells of a column in the given rows (n,), None for row -1."""
    if column.dtype == "category" and all(isinstance(cell, str) for cell in column.cat.categories) and len(column):
        return Coded(column.cat.codes.to_numpy(), column.cat.categories.tolist()).take(rows)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf" and len(column):
        return Numeric(column.to_numpy(), np.ones(len(column), bool)).take(rows)
    cells = [*column.tolist(), None]
    return [cells[row] for row in rows.tolist()]


def rows_of(keys: Iterable[Any], raw_ids: np.ndarray, source: str) -> np.ndarray:
    """Find the first key that equals each raw id: (N,) int64, -1 for none; 7, "7" and " 7" are the same id.

    Keys may be a column of text of Arrow, without a null.
    """
    dtype = getattr(keys, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == raw_ids.dtype.kind == "i":
        place: Sequence[Any] | np.ndarray
        rows, place = rows_of_numbers(np.asarray(keys), raw_ids)
        count = len(np.asarray(keys))
    elif hasattr(keys, "chunks") and (found := rows_of_text(keys, raw_ids)) is not None:
        rows, place = found
        count = sum(map(len, keys.chunks))
    else:
        number: dict[str, int] = {}
        count = 0
        for count, key in enumerate(keys, 1):
            number.setdefault(id_of(key), count - 1)
        rows = np.fromiter((number.get(str(raw), -1) for raw in raw_ids.tolist()), np.int64, len(raw_ids))
        place = list(number)
    if len(place) < count:
        logger.warning("%s: %d rows repeat an id; only the first row of an id counts (a cell may hold a list of words)", source, count - len(place))  # fmt: skip
    if (strange := int((rows < 0).sum())) > len(rows) / 2:
        logger.warning("%s: it has no row for %d of %d ids; ids are such as %s in the log, and %s in the table", source, strange, len(rows), examples(raw_ids), examples(place))  # fmt: skip
    return rows


def rows_of_numbers(keys: np.ndarray, raw_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the first key that equals each raw id, and the distinct keys in their order; as text, 10 million take gigabytes."""
    known, first = np.unique(keys, return_index=True)
    at = np.searchsorted(known, raw_ids)
    there = at < len(known)
    there[there] = known[at[there]] == raw_ids[there]
    rows = np.full(len(raw_ids), -1, np.int64)
    rows[there] = first[at[there]]
    return rows, keys[np.sort(first)]


def rows_of_text(keys: Any, raw_ids: np.ndarray) -> tuple[np.ndarray, Sequence[Any]] | None:
    """Find the first key of a column of Arrow that equals each raw id, and the distinct keys; as objects they take 200 bytes each.

    Returns:
        None for raw ids that Arrow does not hold as text: numbers, or half a letter.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        ours = pa.array(np.asarray(raw_ids), keys.type)
    except (UnicodeError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return None
    keys = pc.utf8_trim_whitespace(keys)
    found = pc.index_in(ours, value_set=keys.combine_chunks())
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), pc.unique(keys)


def listed_columns(names: str, columns: Iterable[str], source: str) -> list[str]:
    """Split names that commas separate; each must be a column.

    Raises:
        UserError: a name is no column (the nearest are named), or no name is given.
    """
    columns, found = list(columns), [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in columns:
            raise unknown(f"column in {source}", name, columns)
    if not found:
        raise UserError(f"{source}: no column is named; it has {', '.join(columns)}")
    return found


def all_numbers(column: Iterable[Any]) -> bool:
    """True if the column has values and all of them are numbers; True and False are no numbers."""
    if isinstance(column, Numeric):
        return bool(column.there.any())
    kinds = {
        isinstance(cell, int | float | np.number) and not isinstance(cell, bool | np.bool_)
        for cell in column
        if not missing(cell)
    }
    return kinds == {True}


def distinct(column: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
    """Number the cells: (R,) the number of each cell, and the list that the numbers point into.

    Text and whole numbers are listed once each, to be worked on once; a column with other cells lists all of them.
    """
    if isinstance(column, Coded):
        return np.where(column.codes < 0, len(column.cells), column.codes), [*column.cells, None]
    if isinstance(column, Numeric):
        cells, own = np.unique(column.values[column.there], return_inverse=True)
        codes = np.full(len(column), len(cells))
        codes[column.there] = own
        return codes, [*cells.tolist(), None]
    if not all(type(cell) in (str, int) or (not isinstance(cell, list) and missing(cell)) for cell in column):
        return np.arange(len(column)), list(column)
    number: dict[Any, int] = {}
    codes = np.fromiter((number.setdefault(cell, len(number)) for cell in column), np.int64, len(column))
    return codes, list(number)


def words_in(cell: Any) -> Iterable[str]:
    """The words of a cell: text is split at blanks, a list holds one word each, a missing value has none; 7.0 is "7"."""
    if isinstance(cell, str):
        return cell.split()
    if isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return [str(word) for word in cell if not missing(word)]
    return [] if missing(cell) else [word_of(cell)]


def word_of(value: Any) -> str:
    """Turn a value into a word; 7.0 becomes "7"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def id_of(raw: Any) -> str:
    """The id in a cell of a table as logs have it, without blanks around it; empty where the cell is missing."""
    return "" if missing(raw) else word_of(raw).strip()


def missing(cell: Any) -> bool:
    """True for None, NaN and the NA of pandas; the last two do not equal themselves."""
    if cell is None or isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return cell is None
    same = cell == cell
    return not (isinstance(same, bool | np.bool_) and same)


def examples(ids: Iterable[Any]) -> str:
    """The first three ids, for messages."""
    return ", ".join(str(raw) for raw, _ in zip(ids, range(3), strict=False))


def to_bag(rows: Sequence[Sequence[int]], names: list[str]) -> Bag:
    """Make a bag of rows that hold the numbers of their words in `names`."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return Bag(offsets.astype(np.int64), np.array([word for row in rows for word in row], np.int64), names)
