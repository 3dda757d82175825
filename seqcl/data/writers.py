"""Write a log in any format that `read` knows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from seqcl.data.cells import missing
from seqcl.data.interactions import Interactions
from seqcl.data.packing import time_order
from seqcl.disk import whole_file
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".csv": "csv", ".inter": "atomic", ".parquet": "parquet", ".tsv": "tsv", ".txt": "text"}


def write(log: Interactions, path: str | Path) -> Path:
    """Write a log with its raw ids, in its own order; the suffix decides the format: .csv .tsv .inter .parquet .txt.

    A .txt file has one line for each user, items in time order, without times. An .inter file gets the tables of users and items
    beside it, and a column `order`, the place in the user's sequence: RecBole must sort by something, and it holds times in
    float32, too coarse for single seconds of our years (for RecBole: TIME_FIELD: order). An old file is replaced once the
    new one is whole.

    Raises:
        UserError: the suffix is unknown, the format cannot hold an id, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise unknown("suffix", path.suffix, SUFFIXES)
    kind = SUFFIXES[path.suffix.lower()]
    if kind == "atomic":  # tables first, so that a log never stands beside the tables of another one
        for suffix, table in ((".user", log.user_features), (".item", log.item_features)):
            if table is not None:
                with new_file(path.with_suffix(suffix)) as file:
                    write_features(table, suffix.removeprefix("."), file)
            else:
                path.with_suffix(suffix).unlink(missing_ok=True)
    with new_file(path) as file:
        if kind == "text":
            write_sequences(log, file)
        else:
            write_rows(log, kind, file)
    return path


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its path once it is whole.

    Raises:
        UserError: the file cannot be written, or its format cannot hold an id or a cell.
    """
    try:
        with whole_file(path) as beside, beside.open("wb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: {error.object!r} cannot be written as UTF-8") from None
    except pa.ArrowInvalid as error:  # a quote, a tab or a line break in an id, where the format allows none
        raise UserError(f"{path}: an id does not fit this format: {error}") from None


def write_rows(log: Interactions, kind: str, file: IO[bytes]) -> None:
    """Write one row for each interaction; kind: csv, tsv, atomic or parquet."""
    columns = {
        "user_id:token": pa.array(log.user_ids[log.users]),
        "item_id:token": pa.array(log.item_ids[log.items]),
    }
    if log.times is not None:
        columns["timestamp:float"] = pa.array(log.times)
    typed = kind == "atomic"
    if typed:
        columns["order:float"] = pa.array(places(log))
    rows = pa.table({head if typed else head.split(":")[0]: column for head, column in columns.items()})
    if kind == "parquet":
        parquet.write_table(rows, file)
        return
    if typed:  # RecBole's types stand in the header, which must have no quotes; an id with a quote is refused
        file.write(("\t".join(columns) + "\n").encode())
    options = arrow_csv.WriteOptions(
        include_header=not typed,
        delimiter="," if kind == "csv" else "\t",
        quoting_style="none" if typed else "needed",
    )
    arrow_csv.write_csv(rows, file, options)


def places(log: Interactions) -> np.ndarray:
    """The place of each interaction in its user's sequence, from 0 on: (T,) int64; ties in time keep the order of the log."""
    order = time_order(log.users, log.times)
    order = np.arange(len(log)) if order is None else order
    begins = np.flatnonzero(np.diff(log.users[order], prepend=-1))
    sizes = np.diff(np.append(begins, len(log)))
    found = np.empty(len(log), np.int64)
    found[order] = np.arange(len(log)) - np.repeat(begins, sizes)
    return found


def write_features(table: pd.DataFrame, kind: str, file: IO[bytes]) -> None:
    """Write a table of RecBole: fractions as float, lists as token_seq or float_seq, all else as token or token_seq.

    A missing value becomes an empty cell.

    Raises:
        UserError: an atomic file cannot hold the name of a column, or a cell.
    """
    columns = {str(name): list(table[name]) for name in table.columns}
    for name in columns:
        if name == f"{kind}_id" or name.startswith('"') or any(mark in name for mark in ":\t\n\r"):
            raise UserError(
                f"the table of {kind}s has a column {name!r}, a name that an atomic file cannot hold; rename it"
            )
    heads = [f"{kind}_id:token", *(f"{name}:{feature_type(cells)}" for name, cells in columns.items())]
    file.write(("\t".join(heads) + "\n").encode())
    for row in zip(table.index, *columns.values(), strict=True):
        cells = [cell_text(cell) for cell in row]
        if any(mark in cell for cell in cells for mark in "\t\n\r"):
            raise UserError(
                f"the {kind} {row[0]!r} has a tab or a line break in a cell, which an atomic file cannot hold"
            )
        quoted = next((place for place, cell in enumerate(cells) if cell.startswith('"')), None)
        if quoted is not None:
            name, other = heads[quoted].partition(":")[0], ", or leave that column out of the table" if quoted else ""
            raise UserError(
                f"the {kind} {row[0]!r} has a quote before its {name}, and RecBole would read to the next quote: take it off{other}"
            )
        file.write(("\t".join(cells) + "\n").encode())


def feature_type(cells: list[Any]) -> str:
    """The type that RecBole gives such a column: float, float_seq, token or token_seq."""
    there = [cell for cell in cells if not missing(cell)]
    if there and all(isinstance(cell, list | tuple | np.ndarray) for cell in there):
        values = [x for cell in there for x in cell]
        return "float_seq" if values and all(isinstance(x, float | np.floating) for x in values) else "token_seq"
    if there and all(isinstance(cell, float | np.floating) for cell in there):
        return "float"
    return "token_seq" if any(" " in str(cell) for cell in there) else "token"


def cell_text(cell: Any) -> str:
    """The text of a cell in an atomic file; a list becomes words with blanks between them."""
    if isinstance(cell, list | tuple | np.ndarray):
        return " ".join("_".join(str(word).split()) for word in cell)
    return "" if missing(cell) else str(cell)


def write_sequences(log: Interactions, file: IO[bytes]) -> None:
    """Write the S3-Rec / CoSeRec format: one line for each user.

    Raises:
        UserError: an id has a blank in it.
    """
    for ids, what in ((log.user_ids, "user"), (log.item_ids, "item")):
        for raw in ids.tolist() if ids.dtype.kind == "U" else []:
            if len(raw.split()) != 1:
                raise UserError(f"the text format separates ids by blanks, and {what} {raw!r} has one")
    order = time_order(log.users, log.times)
    users, items = (log.users, log.items) if order is None else (log.users[order], log.items[order])
    names = log.item_ids[items].astype(str)
    begins = np.flatnonzero(np.diff(users, prepend=-1))
    for begin, end in zip(begins, [*begins[1:], len(users)], strict=True):
        file.write(" ".join([str(log.user_ids[users[begin]]), *names[begin:end].tolist()]).encode() + b"\n")
