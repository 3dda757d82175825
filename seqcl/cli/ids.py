"""Raw ids of items as they are written on the command line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

from seqcl.errors import UserError


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
