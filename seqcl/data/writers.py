"""A log written out in any format that `read` knows."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from seqcl.data.files import PART
from seqcl.data.interactions import Interactions
from seqcl.data.packing import time_order
from seqcl.errors import UserError, unknown

SUFFIXES = {".csv": "csv", ".inter": "atomic", ".parquet": "parquet", ".tsv": "tsv", ".txt": "text"}


def write(log: Interactions, path: str | Path) -> Path:
    """Write a log with its raw ids, in its order; the suffix says how: .csv .tsv .inter .parquet .txt.

    Text is a line a user in time order, without the times. What stands there is replaced once the new file is whole.

    Raises:
        UserError: an unknown suffix, ids that the format cannot hold, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise unknown("suffix", path.suffix, SUFFIXES)
    kind = SUFFIXES[path.suffix.lower()]
    part = path.with_name(PART + uuid.uuid4().hex)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            if kind == "text":
                write_text(log, file)
            else:
                write_table(log, kind, file)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    except pa.ArrowInvalid as error:  # a quote, a tab or a line break in an id, where none may stand
        raise UserError(f"{path}: an id does not fit this format: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def write_table(log: Interactions, kind: str, file: IO[bytes]) -> None:
    """One row an interaction."""
    columns = {
        "user_id:token": pa.array(log.user_ids[log.users]),
        "item_id:token": pa.array(log.item_ids[log.items]),
    }
    if log.times is not None:
        columns["timestamp:float"] = pa.array(log.times)
    typed = kind == "atomic"
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
