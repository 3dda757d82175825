"""Logs of a JSON object a line, as Amazon's and Steam's reviews are."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from seqcl.data.columns import Chosen, Wanted, choose_columns
from seqcl.data.evidence import present
from seqcl.data.files import open_bytes
from seqcl.data.sieve import Chunks
from seqcl.errors import UserError

SAMPLE_ROWS = 200
ROWS_A_CHUNK = 1 << 18


def json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the line and the object of every line that is not blank; Python's own notation (Steam's) is read too.

    Raises:
        UserError: a line holds no object; it is named.
    """
    with open_bytes(path) as file:
        for line, text in enumerate(file, 1):
            if line == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            if text.strip():
                yield line, parsed(text, path, line)


def parsed(text: bytes, path: Path, line: int) -> dict[str, Any]:
    """The object on one line."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text.decode().strip())  # reads values, runs nothing
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise UserError(f"{path}:{line}: not a JSON object") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}:{line}: a {type(found).__name__}, not a JSON object")
    return found


def choose_keys(path: Path, wanted: Wanted) -> Chosen:
    """Choose the keys by those that the first lines have in common.

    Raises:
        UserError: as `choose_columns`.
    """
    rows = [row for (_, row), _ in zip(json_records(path), range(SAMPLE_ROWS), strict=False)]
    if not rows:
        raise UserError(f"{path}:1: there is nothing but blank space")
    count = Counter(str(key) for row in rows for key in row)
    names = [key for key, times in count.items() if 2 * times > len(rows)]
    sample = {name: present(row.get(name) for row in rows) for name in names}
    return choose_columns(names, sample, wanted, f"{path}:1")


def read_json(path: Path, chosen: Chosen) -> tuple[Chunks, list[int]]:
    """The values of the chosen keys, and the line of each row.

    Raises:
        UserError: a line lacks a key or holds what is no value; it is named.
    """
    lines: list[int] = []
    chunks: Chunks = {name: [] for name in chosen.needed}
    rows: dict[str, list[Any]] = {name: [] for name in chosen.needed}

    def flush() -> None:
        for name, values in rows.items():
            chunks[name].append(to_array(values, name, path, lines[-len(values) :]))
            values.clear()

    for line, row in json_records(path):
        lines.append(line)
        for name, values in rows.items():
            if name not in row and name in (chosen.user, chosen.item, chosen.time):
                raise UserError(f"{path}:{line}: no {name!r}")
            values.append(row.get(name))
        if len(lines) % ROWS_A_CHUNK == 0:
            flush()
    if rows[chosen.user]:
        flush()
    return chunks, lines


def to_array(values: list[Any], name: str, path: Path, lines: list[int]) -> pa.Array:
    """The values of one key; text and whole numbers together become text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        bad = next((n for n, v in enumerate(values) if isinstance(v, dict | list) or v != v), None)
        if bad is not None:
            raise UserError(
                f"{path}:{lines[bad]}: {name!r} is {str(values[bad])[:40]}, no id, number or date"
            ) from None
        try:
            return pa.array([None if value is None else str(value) for value in values])
        except (pa.ArrowException, UnicodeError):
            raise UserError(
                f"{path}:{lines[0]}: {name!r}, here or later, holds letters that are no Unicode text"
            ) from None
