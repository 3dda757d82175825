"""One door to every kind of log: `read` finds out what a file is and gives `Interactions`."""

from __future__ import annotations

import csv
import logging
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from seqcl.data.attributes import read_attributes
from seqcl.data.columns import ITEM_NAMES, USER_NAMES, choose_columns, encode_ids, to_seconds
from seqcl.data.delimited import check_encoding, layout, open_bytes, read_delimited
from seqcl.data.files import attribute_file, feature_files, log_files, log_name
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("seqcl")

TOKENS_A_CHUNK = 1 << 20
ROWS_A_CHUNK = 1 << 20
FORMATS = ("atomic", "csv", "parquet", "text", "tsv")
SUFFIXES = {".inter": "atomic", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"}


def read(
    path: str | Path,
    *,
    format: str | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    name: str | None = None,
) -> Interactions:
    """The log in a file or folder, in file order: RecBole atomic, S3-Rec / CoSeRec text, CSV, TSV or Parquet.

    Args:
        path: a file (also gzipped text), a folder with one .inter file, or a folder of Parquet parts.
        format: atomic, csv, tsv, parquet or text; None: by the suffix, else by the first line.
        user: column of the user ids; None: the usual names (user_id, user, ...).
        item: column of the item ids; None: the usual names (item_id, item, ...).
        time: column of the times (seconds, or dates); None: the usual names (timestamp, ...) if there; "-": file order.
        name: what the data set is called in results; None: the file's name.

    Raises:
        UserError: with file, line and column of what does not fit.
    """
    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    path = Path(path)
    try:
        files = log_files(path)
        kind = format or detect(files[0], user, item)
        label = name or log_name(path)
        if kind == "parquet":
            log = read_parquet(files, label, user=user, item=item, time=time)
        elif kind == "atomic":
            log = read_atomic(files[0], label, user=user, item=item, time=time)
        elif kind == "text":
            log = read_text(files[0], label)
        else:
            delimiter = "\t" if kind == "tsv" else None
            log = read_delimited(layout(files[0], user=user, item=item, time=time, delimiter=delimiter), label)
    except (OSError, EOFError) as error:  # gzip gives EOFError where it is cut off
        raise UserError(f"{path}: cannot be read: {error}") from None
    near = attribute_file(path)
    if near is not None:
        try:
            log = replace(log, item_features=read_attributes(near))
        except UserError as error:  # most models do without
            logger.warning("%s; going on without what the items are", error)
    pa.default_memory_pool().release_unused()
    return check(log)


def detect(path: Path, user: str | None, item: str | None) -> str:
    """The format of a file by its suffix, else by its first bytes."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    with open_bytes(path) as file:
        head = file.read(1 << 16)
    if head.startswith(b"PAR1"):
        return "parquet"
    check_encoding(head, path)
    title = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    for delimiter in ",\t;|":
        cells = [cell.strip() for cell in next(csv.reader([title], delimiter=delimiter))]
        names = {cell.split(":")[0].lower() for cell in cells}
        if names & {*USER_NAMES, str(user).lower()} and names & {*ITEM_NAMES, str(item).lower()}:
            return "atomic" if all(":" in cell for cell in cells) else "csv"
    return "text"


def check(log: Interactions) -> Interactions:
    """Refuse a log that no sequence can be learned from.

    Raises:
        UserError: one user alone, or no user with two interactions.
    """
    if len(log.user_ids) == 1:
        raise UserError(
            f"{log.source}: the user column has one user alone, {log.user_ids[0]}, in all {len(log):,} rows"
        )
    if len(log.user_ids) == len(log):
        raise UserError(
            f"{log.source}: the user column has {len(log):,} users with one item each, which is no sequence"
        )
    return log


def read_atomic(path: Path, name: str, *, user: str | None, item: str | None, time: str | None) -> Interactions:
    """RecBole's .inter file (typed headers, tab separated) with the .user and .item files beside it as features."""
    plan = layout(path, user=user, item=item, time=time, delimiter="\t", quoted=False)
    log = read_delimited(plan, name)
    owners = {"user": (plan.columns[0], log.user_ids.dtype), "item": (plan.columns[1], log.item_ids.dtype)}
    tables = {kind: read_features(file, *owners[kind]) for kind, file in feature_files(path).items()}
    return replace(log, user_features=tables.get("user"), item_features=tables.get("item"))


def read_features(path: Path, column: str, kind: np.dtype) -> pd.DataFrame:
    """An atomic feature table indexed by raw id; numbers where the header says float, else text as it stands."""
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
    except ValueError as error:  # ParserError and UnicodeDecodeError are ones too
        raise UserError(f"{path}: {str(error).strip()}") from None
    return table.drop_duplicates(column).set_index(column)


def read_parquet(files: list[Path], name: str, *, user: str | None, item: str | None, time: str | None) -> Interactions:
    """Parquet files read in batches, one after the other, as one log."""
    starts: list[int] = []
    chunks: dict[str, list[pa.Array]] = {}
    chosen: tuple[str, str, str | None] | None = None
    rows = 0
    for path in files:
        starts.append(rows)
        try:
            file = parquet.ParquetFile(path)
            chosen = choose_columns(file.schema_arrow.names, user=user, item=item, time=time, source=str(path))
            wanted = [column for column in chosen if column]
            for batch in file.iter_batches(ROWS_A_CHUNK, columns=wanted):
                rows += batch.num_rows
                for column in wanted:
                    array = batch.column(batch.schema.get_field_index(column))
                    compact = column != chosen[2] and array.type in (pa.int64(), pa.string()) and not array.null_count
                    chunks.setdefault(column, []).append(array.dictionary_encode() if compact else array)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: no whole Parquet file; cut off, or still being written? ({error})") from None

    def where(row: int, column: str) -> str:
        part = bisect_right(starts, row) - 1
        return f"{files[part]}: row {row - starts[part] + 1:,}: column {column!r}"

    if not rows or chosen is None:
        raise UserError(f"{files[0]}: row 1: there are no rows")
    user, item, time = chosen
    times = to_seconds(chunks.pop(time), time, where) if time else None
    users, user_ids = encode_ids(chunks.pop(user), user, where)
    items, item_ids = encode_ids(chunks.pop(item), item, where)
    source = str(files[0] if len(files) == 1 else files[0].parent)
    return Interactions(
        users=users, items=items, user_ids=user_ids, item_ids=item_ids, times=times, name=name, source=source
    )


def read_text(path: Path, name: str) -> Interactions:
    """The S3-Rec / CoSeRec format: a line a user, 'user item item ...' in time order; a user may have several lines."""
    sizes: list[int] = []
    lines: list[int] = []
    owners: list[bytes] = []
    chunks: list[pa.Array] = []
    tokens: list[bytes] = []
    for line, cells in text_records(path):
        owners.append(cells[0])
        tokens += cells[1:]
        sizes.append(len(cells) - 1)
        lines.append(line)
        if len(tokens) > TOKENS_A_CHUNK:
            chunks.append(decode(tokens, path))
            tokens = []
    chunks.append(decode(tokens, path))
    stops = np.cumsum(sizes)

    def where_user(row: int, column: str) -> str:
        return f"{path}:{lines[row]}: column 1 (the user)"

    def where_item(row: int, column: str) -> str:
        record = int(np.searchsorted(stops, row, side="right"))
        return f"{path}:{lines[record]}: column {row - stops[record] + sizes[record] + 2} (an item)"

    users, user_ids = encode_ids([decode(owners, path)], "user", where_user)
    items, item_ids = encode_ids(chunks, "item", where_item)
    return Interactions(
        users=np.repeat(users, sizes), items=items, user_ids=user_ids, item_ids=item_ids, name=name, source=str(path)
    )


def text_records(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Line number and tokens of every line; blank lines may end the file and stand nowhere else.

    Raises:
        UserError: an empty file, another encoding, an empty line, a user without items.
    """
    with open_bytes(path) as file:
        check_encoding(file.read(1 << 16), path)
        file.seek(0)
        blank = 0
        for line, text in enumerate(file, 1):
            cells = (text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text).split()
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


def decode(tokens: list[bytes], path: Path) -> pa.Array:
    """Tokens as codes into text.

    Raises:
        UserError: with line and column of the first token that is not UTF-8.
    """
    stops = np.cumsum([0, *map(len, tokens)], dtype=np.int32)
    buffers = [None, pa.py_buffer(stops), pa.py_buffer(b"".join(tokens))]
    try:  # from buffers, because pa.array would import pandas
        return pa.Array.from_buffers(pa.binary(), len(tokens), buffers).cast(pa.string()).dictionary_encode()
    except pa.ArrowInvalid:
        for line, cells in text_records(path):
            for column, cell in enumerate(cells, 1):
                if not is_utf8(cell):
                    raise UserError(f"{path}:{line}: column {column}: not UTF-8 text; save the file as UTF-8") from None
        raise


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
