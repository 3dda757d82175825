"""A log written out in any format that `read` knows."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from seqcl.data.cells import missing
from seqcl.data.files import PART
from seqcl.data.interactions import Interactions
from seqcl.data.packing import time_order
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".csv": "csv", ".inter": "atomic", ".parquet": "parquet", ".tsv": "tsv", ".txt": "text"}


def write(log: Interactions, path: str | Path) -> Path:
    """Write a log with its raw ids, in its order; the suffix says how: .csv .tsv .inter .parquet .txt.

    Text is a line a user in time order, without the times. An atomic log has its tables of users and items beside it, and a
    column `order`: RecBole needs something to sort by, and holds times in float32, which cannot tell one second of our years
    from the next (for RecBole: TIME_FIELD: order). What stands there is replaced once the new file is whole.

    Raises:
        UserError: an unknown suffix, ids that the format cannot hold, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise unknown("suffix", path.suffix, SUFFIXES)
    kind = SUFFIXES[path.suffix.lower()]
    if kind == "atomic":  # tables first: a log is never beside those of another one
        for suffix, table in ((".user", log.user_features), (".item", log.item_features)):
            if table is not None:
                whole(path.with_suffix(suffix), partial(write_features, table, suffix.removeprefix(".")))
            else:
                path.with_suffix(suffix).unlink(missing_ok=True)
    whole(path, lambda file: write_text(log, file) if kind == "text" else write_table(log, kind, file))
    return path


def whole(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    """A file that is there only once `fill` has written all of it."""
    part = path.with_name(PART + uuid.uuid4().hex)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            fill(file)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: {error.object!r} cannot be written as UTF-8") from None
    except pa.ArrowInvalid as error:  # a quote, a tab or a line break in an id, where none may stand
        raise UserError(f"{path}: an id does not fit this format: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def write_table(log: Interactions, kind: str, file: IO[bytes]) -> None:
    """One row an interaction."""
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
    if typed:  # RecBole's files know no quotes
        file.write(("\t".join(columns) + "\n").encode())
    options = arrow_csv.WriteOptions(
        include_header=not typed,
        delimiter="," if kind == "csv" else "\t",
        quoting_style="none" if typed else "needed",
    )
    arrow_csv.write_csv(rows, file, options)


def places(log: Interactions) -> np.ndarray:
    """The place of each interaction in its user's sequence, from 0 on: (T,); ties in time keep the order of the log."""
    order = time_order(log.users, log.times)
    order = np.arange(len(log)) if order is None else order
    begins = np.flatnonzero(np.diff(log.users[order], prepend=-1))
    sizes = np.diff(np.append(begins, len(log)))
    found = np.empty(len(log), np.int64)
    found[order] = np.arange(len(log)) - np.repeat(begins, sizes)
    return found


def write_features(table: pd.DataFrame, kind: str, file: IO[bytes]) -> None:
    """A row an id: fractions as float, lists as token_seq or float_seq, all else as token; an empty cell knows nothing.

    Raises:
        UserError: a name or a cell that an atomic file cannot hold.
    """
    columns = {str(name): list(table[name]) for name in table.columns}
    for name in columns:
        if name == f"{kind}_id" or any(mark in name for mark in ":\t\n\r"):
            raise UserError(
                f"the {kind}s have a column {name!r}, which an atomic file cannot hold: give it another name"
            )
    heads = [f"{kind}_id:token", *(f"{name}:{feature_type(cells)}" for name, cells in columns.items())]
    file.write(("\t".join(heads) + "\n").encode())
    for row in zip(table.index, *columns.values(), strict=True):
        cells = [written(cell) for cell in row]
        if any(mark in cell for cell in cells for mark in "\t\n\r"):
            raise UserError(f"the {kind} {row[0]!r} has a tab or a line break in a cell, where an atomic file has none")
        file.write(("\t".join(cells) + "\n").encode())


def feature_type(cells: list[Any]) -> str:
    """RecBole's type of a column."""
    there = [cell for cell in cells if not missing(cell)]
    if there and all(isinstance(cell, list | tuple | np.ndarray) for cell in there):
        values = [x for cell in there for x in cell]
        return "float_seq" if values and all(isinstance(x, float | np.floating) for x in values) else "token_seq"
    if there and all(isinstance(cell, float | np.floating) for cell in there):
        return "float"
    return "token_seq" if any(" " in str(cell) for cell in there) else "token"


def written(cell: Any) -> str:
    """A cell of an atomic file; the words of a list are parted by blanks."""
    if isinstance(cell, list | tuple | np.ndarray):
        return " ".join("_".join(str(word).split()) for word in cell)
    return "" if missing(cell) else str(cell)


def write_text(log: Interactions, file: IO[bytes]) -> None:
    """The S3-Rec / CoSeRec format, a line a user."""
    for ids, what in ((log.user_ids, "user"), (log.item_ids, "item")):
        for raw in ids.tolist() if ids.dtype.kind == "U" else []:
            if len(raw.split()) != 1:
                raise UserError(f"the text format parts ids by spaces, and {what} {raw!r} has one")
    order = time_order(log.users, log.times)
    users, items = (log.users, log.items) if order is None else (log.users[order], log.items[order])
    names = log.item_ids[items].astype(str)
    begins = np.flatnonzero(np.diff(users, prepend=-1))
    for begin, end in zip(begins, [*begins[1:], len(users)], strict=True):
        file.write(" ".join([str(log.user_ids[users[begin]]), *names[begin:end].tolist()]).encode() + b"\n")
