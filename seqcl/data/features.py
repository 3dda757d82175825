"""Features of the items and users of a log, from its own tables and from a file with more columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqcl.data.cells import Coded, Numeric, cells_of, listed_columns
from seqcl.data.compact import stored_cells
from seqcl.data.schema import Schema
from seqcl.data.tables import load_table, read_columns
from seqcl.errors import UserError
from seqcl.types import Features, Tables

logger = logging.getLogger("seqcl")

KINDS = ("words", "numbers")
"""Words that may follow the name of a column, after a colon, to say how to read it."""


def table_features(
    tables: Tables,
    which: str,
    known: np.ndarray,
    columns: str | None = None,
    *,
    table: str | None = None,
    min_count: int = 2,
) -> Features:
    """Encode the features of a log's items (rows PAD, 1..N, MASK) or users (rows 0..U - 1, and an unknown user).

    Args:
        tables: the tables of the log.
        which: items or users.
        known: (N,) or (U,) bool, the items or users that training knows; words, means and deviations come from these alone.
        columns: names separated by commas; `NAME:words` or `NAME:numbers` reads a column as these; None: all columns.
        table: a file with more columns; where the log has a column of the same name, the file's replaces it.
        min_count: drop words that fewer of the known rows have.

    Raises:
        UserError: no such column or file, or a column that was asked for holds no usable value.
    """
    cells, kinds, source = raw_cells(tables, which, columns, table=table)
    if not cells:
        return Features(bags={}, numbers={}, vectors={})
    rows = np.flatnonzero(known)
    trained = {name: part_of(column, rows) for name, column in cells.items()}
    around = {"before": 1, "after": 1} if which == "items" else {"after": 1}
    schema = Schema.learn(trained, min_count=min_count, kinds=kinds)
    for name in (name for name in cells if name not in {*schema.words, *schema.numbers, *schema.vectors}):
        nothing = (
            f"column {name!r} holds nothing to learn from: no number, and no word that {min_count} training rows have"
        )
        if columns is not None:
            raise UserError(f"{source}: {nothing}")
        logger.info("%s: %s", source, nothing)
    return schema.encode(cells, **around)


def raw_cells(
    tables: Tables, which: str, columns: str | None, *, table: str | None
) -> tuple[dict[str, Sequence[Any]], dict[str, str], str]:
    """The cells of the columns that `table_features` encodes, as they are, in the order of the ids.

    Returns:
        cells by column, the kinds that `columns` names, and where the cells come from, in words.

    Raises:
        UserError: no such column or file.
    """
    raw, own = (tables.item_ids, tables.items) if which == "items" else (tables.user_ids, tables.users)
    source = f"the table of {which} of {tables.name}"
    asked = [] if columns is None else [name.strip() for name in columns.split(",")]
    kinds = {name: kind for name, _, kind in (name.rpartition(":") for name in asked) if kind in KINDS and name}
    as_words = [name for name, kind in kinds.items() if kind == "words"]
    cells = stored_cells(own, raw, source, as_words) if isinstance(own, Path) else None
    if cells is None:
        frame = load_table(own, categories=True)
        cells = {} if frame is None else cells_of(frame, raw, source)
    if table is not None:
        cells |= read_columns(Path(table).expanduser(), raw, which, as_words)
        source = f"{source} and {table}"
    if columns is not None:
        if not cells:
            raise UserError(f"{source}: there is no such table, so it has no column {columns!r}")
        plain = [name.rpartition(":")[0] if name.rpartition(":")[0] in kinds else name for name in asked]
        cells = {name: cells[name] for name in listed_columns(",".join(plain), cells, source)}
    return cells, kinds, source


def part_of(column: Sequence[Any], rows: np.ndarray) -> Sequence[Any]:
    """The given rows of a column; the first one alone for vectors, of which only the width is learned."""
    if isinstance(column, Coded | Numeric):
        return column.take(rows)
    return column[rows[:1]] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]
