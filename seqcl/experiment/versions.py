"""Hashes of what a run reads beside its options: the log, the tables of users and items, and the files that options name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data import Sequences
from seqcl.data.sealed import META
from seqcl.data.tables import load_table
from seqcl.disk import read_json
from seqcl.experiment.keeping import PACKED, TABLES

if TYPE_CHECKING:
    import pandas as pd

ALL_TABLES = "tables"
"""The name of the hash of a log with its tables, among those of `read_beside`."""


def data_version(sequences: Sequences) -> str:
    """The hash of a log and of its tables of users and items."""
    return version_of(sequences.fingerprint, sequences.user_table, sequences.item_table)


def version_of(fingerprint: str, *tables: pd.DataFrame | Path | None) -> str:
    """The hash of the fingerprint of a log and of its tables of users and items."""
    found = hashlib.sha256(fingerprint.encode())
    for table in tables:
        frame = load_table(table)
        found.update(b"none\n" if frame is None else f"{len(frame)} rows\n".encode())
        for name, cells in () if frame is None else frame.reset_index().items():
            found.update(f"{json.dumps(str(name))}\n".encode() + exact(cells))
    return found.hexdigest()


def exact(cells: pd.Series) -> bytes:
    """The cells of a column without rounding: numbers as they are, others as JSON, in which a frame and its file are alike."""
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "biuf":
        return cells.dtype.str.encode() + cells.to_numpy().tobytes()
    there = cells.astype(object).where(cells.notna(), None).tolist()
    return json.dumps(there, default=lambda one: one.tolist() if isinstance(one, np.ndarray) else str(one)).encode()


def read_beside(home: Path) -> dict[str, str]:
    """The hashes of what a run keeps: of its log with its tables, and of each file that options name, by its name there.

    What the run does not keep is left out, as in version 0.1.0.

    Raises:
        UserError: the packed log says nothing of itself.
        OSError: a table or a file cannot be read.
    """
    found = {file.name: hash_of(file) for file in sorted((home / TABLES).glob("*"))}
    if (home / PACKED).exists():
        meta = read_json(home / PACKED / META, dict)
        tables = [home / PACKED / f"{name}.parquet" for name in ("user_table", "item_table")]
        there = [table if table.stem in meta["tables"] else None for table in tables]
        found[ALL_TABLES] = version_of(meta["fingerprint"], *there)
    return found


def begun_from(figures: dict[str, Any], options: dict[str, Any]) -> dict[str, str]:
    """The hash of the first weights of a run and those of its teachers; nothing where its options name none.

    Args:
        figures: its metrics.json.
        options: by dotted name.
    """
    start = figures["protocol"].get("warm_start", "") if options.get("warm_start") else ""
    taught = any(value for key, value in options.items() if key.endswith(".teachers"))
    return {"warm_start": start, "teachers": (figures["training"] or {}).get("teachers", "") if taught else ""}


def hash_of(file: Path) -> str:
    """The hash of a file; nothing where there is none, which the run itself will say."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
