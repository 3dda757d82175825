"""Read a log from a file or folder of any format: `read` finds out the format."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from seqcl.data.atomic import read_atomic_log
from seqcl.data.attributes import read_attributes
from seqcl.data.columns import ITEM_NAMES, USER_NAMES
from seqcl.data.delimited import check_encoding, open_bytes, open_delimited, read_delimited_log
from seqcl.data.files import attribute_file, log_files, log_name
from seqcl.data.interactions import Interactions
from seqcl.data.parquet_log import read_parquet_log
from seqcl.data.text_log import read_text_log
from seqcl.errors import UserError, unknown

logger = logging.getLogger("seqcl")

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
    """Read the log in a file or folder, in file order: RecBole atomic, S3-Rec / CoSeRec text, CSV, TSV or Parquet.

    Args:
        path: a file (also gzipped text), a folder with one .inter file, or a folder of Parquet parts.
        format: atomic, csv, tsv, parquet or text; None: found by the suffix, else by the first line.
        user: column of the user ids; None: found by its usual names (user_id, user, ...).
        item: column of the item ids; None: found by its usual names (item_id, item, ...).
        time: column of the times (seconds or dates); None: found by its usual names (timestamp, ...), if there; "-": the order
            of the file.
        name: name of the data set in results; None: the name of the file.

    Raises:
        UserError: a value does not fit; its file, line and column are named.
    """
    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    path = Path(path)
    try:
        files = log_files(path)
        kind = format or detect(files[0], user, item)
        label = name or log_name(path)
        if kind == "parquet":
            log = read_parquet_log(files, label, user=user, item=item, time=time)
        elif kind == "atomic":
            log = read_atomic_log(files[0], label, user=user, item=item, time=time)
        elif kind == "text":
            log = read_text_log(files[0], label)
        else:
            delimiter = "\t" if kind == "tsv" else None
            log = read_delimited_log(
                open_delimited(files[0], user=user, item=item, time=time, delimiter=delimiter), label
            )
    except (OSError, EOFError) as error:  # gzip raises EOFError for a file that is cut off
        raise UserError(f"{path}: cannot be read: {error}") from None
    near = attribute_file(path)
    if near is not None:
        try:
            log = replace(log, item_features=read_attributes(near))
        except UserError as error:  # most models do not need attributes
            logger.warning("%s; going on without attributes of items", error)
    pa.default_memory_pool().release_unused()
    check_sequences(log)
    return log


def detect(path: Path, user: str | None, item: str | None) -> str:
    """Find the format of a file by its suffix, else by its first bytes."""
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


def check_sequences(log: Interactions) -> None:
    """Refuse a log without sequences to learn from.

    Raises:
        UserError: there is a single user, or no user has two interactions.
    """
    if len(log.user_ids) == 1:
        raise UserError(f"{log.source}: the user column has a single user, {log.user_ids[0]}, in all {len(log):,} rows")
    if len(log.user_ids) == len(log):
        raise UserError(
            f"{log.source}: the user column has {len(log):,} users with one item each, so there is no sequence to learn from"
        )
