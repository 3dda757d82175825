"""What items are, in words: from the columns of the item table, or from a JSON file of item -> [attributes]."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.files import ATTRIBUTES
from seqcl.errors import UserError, unknown
from seqcl.types import Bag

if TYPE_CHECKING:
    import pandas as pd

    from seqcl.data.sequences import Sequences

log = logging.getLogger("seqcl")


def item_attributes(sequences: Sequences, chosen: str | None = None) -> Bag:
    """The attributes of the items of a packed log: rows PAD, 1..N, MASK, words such as "class=Drama".

    Args:
        sequences: the packed log.
        chosen: a .json file of item -> [attributes]; or columns of the item table, separated by commas; None: the columns of
            the table that hold words, without those that have as many different words as there are items, if others are left.
            Text is split at blanks.

    Raises:
        UserError: no item table, no such file or column, a column of fractions, or no item of the log has an attribute.
    """
    names = chosen
    if chosen is not None and chosen.lower().endswith(".json"):
        source, table, names = chosen, read_attributes(Path(chosen).expanduser()), "attributes"
    elif sequences.item_features is not None:
        source, table = f"the item table of {sequences.name}", sequences.item_features
    else:
        raise UserError(
            f"{sequences.name} has no table of items, so that it is not known what they are: name a JSON file of "
            f"item -> [attributes] (--mutual.attributes FILE.json), put one beside the log as NAME{ATTRIBUTES} "
            "(`seqcl data download NAME` does for a published set that has one), have an .item file beside an .inter file, or "
            "do without: --mutual.item_attribute 0 --mutual.masked_attribute 0"
        )
    cells = cells_of(table, sequences.item_ids, source)
    if names is not None:
        cells = {name: cells[name] for name in listed(names, cells, source)}
        for name, column in cells.items():
            if any(isinstance(cell, float) and not cell.is_integer() for cell in column if not missing(cell)):
                raise UserError(f"{source}: column {name!r} holds fractions, and an attribute is a word")
    else:
        cells = {name: column for name, column in cells.items() if not numeric(column)}
    words = {name: [set(split(cell)) for cell in column] for name, column in cells.items()}  # of every item
    if names is None:
        telling = {name: rows for name, rows in words.items() if len(set().union(*rows)) < sequences.num_items}
        words = telling or words
    owned = [
        sorted((name, word) for name in words for word in words[name][item]) for item in range(sequences.num_items)
    ]
    found = sorted(set().union(*owned))
    if not found:
        raise UserError(
            f"{source}: no item of {sequences.name} has an attribute in {', '.join(words) or 'any column of words'}; items are "
            f"such as {some(sequences.item_ids)} in the log and {some(table.index)} there"
        )
    log.info("%d attributes of items, from %s: %s", len(found), source, ", ".join(words))
    number = {pair: place for place, pair in enumerate(found)}
    rows = [[], *([number[pair] for pair in pairs] for pairs in owned), []]  # PAD, items, MASK
    return bag(rows, [f"{name}={word}" for name, word in found])


def bag(rows: Sequence[Sequence[int]], names: list[str]) -> Bag:
    """The words of rows, given as their numbers."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return Bag(offsets.astype(np.int64), np.array([word for row in rows for word in row], np.int64), names)


def cells_of(table: pd.DataFrame, raw_ids: np.ndarray, source: str) -> dict[str, list[Any]]:
    """The columns of a table in the order of raw ids, None where an id has no row; 7 and "7" are one id.

    Raises:
        UserError: two columns of one name, or a table whose rows have several keys.
    """
    names = [str(name) for name in table.columns]
    if table.index.nlevels > 1 or table.columns.nlevels > 1 or len(set(names)) < len(names):
        raise UserError(f"{source}: it must have one row an id, indexed by it, and a name of its own for each column")
    place: dict[str, int] = {}
    for row, key in enumerate(table.index):
        place.setdefault(word_of(key), row)
    if len(place) < len(table):
        log.warning("%s: %d rows repeat an id, only its first row counts; a cell may hold a list of words", source, len(table) - len(place))  # fmt: skip
    rows = [place.get(str(raw)) for raw in raw_ids]
    if (strange := rows.count(None)) > len(rows) / 2:
        log.warning("%s: it has no row for %d of %d ids, which are such as %s in the log and %s there", source, strange, len(rows), some(raw_ids), some(table.index))  # fmt: skip
    columns = {name: table.iloc[:, number].tolist() for number, name in enumerate(names)}
    return {name: [None if row is None else column[row] for row in rows] for name, column in columns.items()}


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


def read_attributes(path: Path) -> pd.DataFrame:
    """A JSON file of item -> [attributes] as a table indexed by raw item id, with the one column `attributes`.

    Raises:
        UserError: it cannot be read, is no JSON, or an item has something else than a list of words and numbers.
    """
    import pandas as pd

    try:
        known = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    if not isinstance(known, dict) or not known:
        raise UserError(f"{path}: it must hold an object of item -> [attributes], not {json.dumps(known)[:60]}")
    for item, words in known.items():
        if not isinstance(words, list) or not all(is_word(word) for word in words):
            raise UserError(f"{path}: item {item!r} must have a list of words or numbers, not {json.dumps(words)[:60]}")
    lists = [[str(word) for word in words] for words in known.values()]
    return pd.DataFrame({"attributes": lists}, index=list(known))


def is_word(value: Any) -> bool:
    """Whether a value of a JSON file is text or a number."""
    return isinstance(value, str) or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
