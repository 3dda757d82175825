"""Logs with one line for each user: 'user item item ...' as S3-Rec and CoSeRec have it, or 'user:item item ...'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from seqcl.data.delimited import check_encoding
from seqcl.data.files import open_bytes
from seqcl.data.ids import encode_ids
from seqcl.data.interactions import Interactions
from seqcl.data.layout import Layout
from seqcl.errors import UserError

TOKENS_A_CHUNK = 1 << 20


def read_text_log(path: Path, name: str, layout: Layout) -> Interactions:
    """Read a log with one line for each user, 'user item item ...' in time order; a user may have several lines.

    Args:
        path: the file.
        name: name of the data set in results.
        layout: text, or colon: a colon ends the user.

    Raises:
        UserError: a value does not fit; its file, line and column are named.
    """
    colon = layout.kind == "colon"
    sizes: list[int] = []
    lines: list[int] = []
    owners: list[bytes] = []
    chunks: list[pa.Array] = []
    tokens: list[bytes] = []
    for line, cells in text_records(path, colon):
        owners.append(cells[0])
        tokens += cells[1:]
        sizes.append(len(cells) - 1)
        lines.append(line)
        if len(tokens) > TOKENS_A_CHUNK:
            chunks.append(decode(tokens, path, colon))
            tokens = []
    chunks.append(decode(tokens, path, colon))
    stops = np.cumsum(sizes)

    def where_user(row: int, column: str) -> str:
        return f"{path}:{lines[row]}: column 1 (the user)"

    def where_item(row: int, column: str) -> str:
        record = int(np.searchsorted(stops, row, side="right"))
        return f"{path}:{lines[record]}: column {row - stops[record] + sizes[record] + 2} (an item)"

    users, user_ids = encode_ids([decode(owners, path, colon)], "user", where_user)
    items, item_ids = encode_ids(chunks, "item", where_item)
    return Interactions(
        users=np.repeat(users, sizes),
        items=items,
        user_ids=user_ids,
        item_ids=item_ids,
        name=name,
        source=str(path),
        reading={"layout": str(layout), "columns": {}, "order": "file", "times": None, "dropped": {}, "others": {}},
    )


def text_records(path: Path, colon: bool) -> Iterator[tuple[int, list[bytes]]]:
    """Give the number and the tokens of every line; blank lines may only stand at the end.

    Raises:
        UserError: the file is empty or in another encoding, a line is empty, or a user has no items.
    """
    with open_bytes(path) as file:
        check_encoding(file.read(1 << 16), path)
        file.seek(0)
        blank = 0
        for line, text in enumerate(file, 1):
            text = text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text
            cells = (text.replace(b":", b" ", 1) if colon else text).split()
            if not cells:
                blank = blank or line
                continue
            if blank:
                raise UserError(f"{path}:{blank}: column 1: the row is empty")
            if len(cells) == 1:
                hint = " (a CSV file needs a first line with the names of its columns)" if b"," in cells[0] else ""
                shown = cells[0][:40].decode("utf-8", "replace")
                raise UserError(f"{path}:{line}: column 2: user {shown!r} has no items{hint}")
            yield line, cells


def decode(tokens: list[bytes], path: Path, colon: bool) -> pa.Array:
    """Encode tokens as a dictionary array of text.

    Raises:
        UserError: a token is not UTF-8; the line and column of the first one are named.
    """
    stops = np.cumsum([0, *map(len, tokens)], dtype=np.int32)
    buffers = [None, pa.py_buffer(stops), pa.py_buffer(b"".join(tokens))]
    try:  # from buffers, because pa.array would import pandas
        return pa.Array.from_buffers(pa.binary(), len(tokens), buffers).cast(pa.string()).dictionary_encode()
    except pa.ArrowInvalid:
        for line, cells in text_records(path, colon):
            for column, cell in enumerate(cells, 1):
                if not is_utf8(cell):
                    raise UserError(f"{path}:{line}: column {column}: not UTF-8 text; save the file as UTF-8") from None
        raise


def is_utf8(text: bytes) -> bool:
    """True if the bytes are UTF-8 text."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
