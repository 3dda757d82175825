"""Raw ids of items as they are written on the command line, and in files that it names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqcl.disk import read_json, read_text
from seqcl.errors import UserError, brief


def ids_of(text: str) -> list[str]:
    """The ids of a value of --items: a row of CSV, in which an id with a comma is quoted."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UserError(
            f"--items {text}: {error}; an id that begins with a quote is quoted, and its quotes doubled"
        ) from None
    return rows[0] if rows and rows[0] else [text]


def check_commas(values: Sequence[str], known: Any) -> None:
    """Refuse a value of --items that is one known id as it stands, and several as a row.

    Raises:
        UserError: shows how to write the one id.
    """
    for text in values:
        if "," in text and ids_of(text) == text.split(",") and known.dtype.kind != "i" and text in known:
            raise UserError(f"""--items {text}: one item has this whole id, with its comma; write '"{text}"' for it""")


def listed(path: Path, option: str) -> list[Any]:
    """The ids of a file with a JSON list of texts and whole numbers.

    Raises:
        UserError: it cannot be read, or holds anything else.
    """
    try:
        found = read_json(path, list)
    except UserError as error:
        raise UserError(f'{option} {error}; it must be a list of ids, such as ["Paris, Texas", 7]') from None
    for place, raw in enumerate(found, 1):
        if type(raw) not in (str, int):
            raise UserError(f"{option} {path}: id {place} is {brief(repr(raw), 60)}; it must be text or a whole number")
    return found


def lines_or_list(path: Path, option: str) -> list[Any]:
    """The ids of a file with one a line, or with a JSON list of them.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    from seqcl.data.raw_ids import lines_of  # imports torch

    text = read_text(path)
    found = listed(path, option) if text.lstrip("\ufeff \n").startswith("[") else lines_of(text)
    if not found:
        raise UserError(f"{option} {path}: it holds no id")
    return found
