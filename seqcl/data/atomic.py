"""RecBole's atomic files: a log with tables of users and items beside it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqcl.data.files import feature_files
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd


def with_features(log: Interactions, path: Path) -> Interactions:
    """A log of an .inter file with the .user and .item files beside it as features."""
    columns = log.reading["columns"]
    owners = {"user": (columns["user"], log.user_ids.dtype), "item": (columns["item"], log.item_ids.dtype)}
    tables = {kind: read_features(near, *owners[kind]) for kind, near in feature_files(path).items()}
    return replace(log, user_features=tables.get("user"), item_features=tables.get("item"))


def read_features(path: Path, column: str, kind: np.dtype) -> pd.DataFrame:
    """Read an atomic feature table, indexed by raw id; a column of type float becomes numbers, any other stays text.

    Args:
        path: a .user or .item file.
        column: column of the ids.
        kind: dtype of the ids in the log.

    Raises:
        UserError: no such column, or a table that cannot be read.
    """
    import pandas as pd

    with path.open("rb") as file:
        title = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    types = {cell.split(":")[0]: cell.partition(":")[2] or "token" for cell in title.split("\t")}
    if column not in types:
        raise UserError(f"{path}:1: {unknown('column', column, types)}")
    wanted = {name: "float64" if type_ == "float" else "str" for name, type_ in types.items()}
    try:
        table = pd.read_csv(
            path, sep="\t", header=0, names=list(types), dtype=wanted, quoting=csv.QUOTE_NONE, encoding="utf-8-sig",
            na_values={name: [""] for name, type_ in types.items() if type_ == "float"}, keep_default_na=False,
        )  # fmt: skip
        table[column] = table[column].astype(np.int64 if kind.kind == "i" else "str")
    except ValueError as error:  # among them ParserError and UnicodeDecodeError
        raise UserError(f"{path}: {str(error).strip()}") from None
    return table.drop_duplicates(column).set_index(column)
