"""Read a log from a file or folder of any layout: `read` finds out the layout and says it."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from seqcl.data.atomic import with_features
from seqcl.data.attributes import read_attributes
from seqcl.data.columns import Chosen, Wanted
from seqcl.data.delimited import TextTable, check_encoding
from seqcl.data.encode import encode_log
from seqcl.data.files import attribute_file, log_files, log_name, part_files
from seqcl.data.interactions import Interactions
from seqcl.data.layout import Layout, recognise
from seqcl.data.parquet_log import read_parquet_log
from seqcl.data.part_files import join, unroll
from seqcl.data.table_log import (
    FORMATS,
    chosen_columns,
    encoded,
    head_of,
    layout_of_part,
    read_json_log,
    read_table_log,
    suffix_format,
)
from seqcl.data.text_log import read_text_log
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("seqcl")


def read(
    path: str | Path,
    *,
    format: str | None = None,
    columns: str | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    order: str = "time",
    where: str | None = None,
    min_rating: float | None = None,
    given: bool = False,
    split_column: str | None = None,
    name: str | None = None,
    short: bool = False,
) -> Interactions:
    """Read the log in a file or folder, in file order; the layout is recognised by evidence, and logged in one line.

    Args:
        path: a file (also in .gz, or as ARCHIVE.zip/MEMBER), a folder with one .inter file, or a folder of parts.
        format: atomic, csv, json, parquet, text or tsv; None: found by the suffix and the first lines.
        columns: columns of a file without a header, such as user,item,_,time; None: found by their content.
        user: column of the user ids; None: found by its usual names (user_id, user, ...).
        item: column of the item ids, or of lists of them; None: found by its usual names (item_id, item, ...).
        time: column of the times (numbers or dates); None: found by its usual names (timestamp, ...), else by content.
        order: time, or file: the order of the file counts, and times are not read.
        where: keep the rows for which this holds, such as "event == 'transaction'".
        min_rating: keep the rows with at least this rating.
        given: the split was made elsewhere: a column says the part of each row, or a folder has train, valid and test files.
        split_column: column of the parts; None: found by its usual names (split, ...).
        name: name of the data set in results; None: the name of the file.
        short: take a single user, and users with one item each, too: there is nothing to learn from, but something to ask for.

    Raises:
        UserError: no layout fits or two do, or a value does not fit; its file, line and column are named.
    """
    wanted = Wanted(
        format=format,
        columns=columns,
        user=user,
        item=item,
        time=time,
        order=order,
        where=where,
        min_rating=min_rating,
        given=given,
        split_column=split_column,
    )
    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    path = Path(path)
    try:
        own = part_files(path) if given and split_column is None else {}
        if own:
            log = read_parts(own, path, name or log_name(path), wanted)
        else:
            log = read_files(log_files(path), path, name or log_name(path), wanted)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    if (table := attributes_near(path)) is not None:
        log = replace(log, item_features=table)
    pa.default_memory_pool().release_unused()
    if not short:
        check_sequences(log.user_ids, len(log), log.source)
    log = replace(log, reading=log.reading | {"source": path.name})
    logger.info("%s", log.told)
    return log


def read_parts(files: Mapping[int, Path], path: Path, name: str, wanted: Wanted) -> Interactions:
    """Read the files of a split that was made elsewhere, each as what the file of training is."""
    plain = replace(wanted, given=False)
    files = dict(sorted(files.items()))  # training first
    first = files[0]
    head = head_of(first)
    if head.startswith(b"PAR1"):
        return join({part: read_files([file], file, name, plain) for part, file in files.items()}, name, str(path))
    check_encoding(head, first)
    like = recognise(head, first, plain, suffix_format(first))
    if like.kind in ("text", "colon"):
        return join({part: whole_lines([file], name, like, plain) for part, file in files.items()}, name, str(path))
    if like.kind == "json":
        return join(
            {part: read_json_log([file], name, like, plain, str(file)) for part, file in files.items()}, name, str(path)
        )
    tables = {
        part: TextTable(file, layout_of_part(file, like, plain) if part else like) for part, file in files.items()
    }
    chosen = chosen_columns(tables[0], plain, cut=True)
    if f"{chosen.item}_list" in like.names:
        log = join(cut_rows(tables, chosen, plain, name, path), name, str(path))
    else:
        log = join(
            {part: encoded([one], chosen, plain, name, str(one.path)) for part, one in tables.items()}, name, str(path)
        )
    return with_features(log, first) if like.kind == "atomic" else log


def cut_rows(
    tables: Mapping[int, TextTable], chosen: Chosen, wanted: Wanted, name: str, path: Path
) -> dict[int, Interactions]:
    """The interactions of each part, of rows with a list of items and the target after it, as RecBole cuts them.

    Raises:
        UserError: an option that chooses among rows, or a row that does not go on where those before it end.
    """
    for option in ("where", "min_rating"):
        if (value := getattr(wanted, option)) is not None:
            raise UserError(
                f"--data.{option} {value}: the rows of {path} were cut with {chosen.item}_list, so none can be left out"
            )
    logs = {}
    for part, rows in unroll(tables, chosen.user, chosen.item).items():
        if not rows:
            raise UserError(f"{tables[part].path}:2: there is a header and nothing under it")
        values = {chosen.user: [user for user, _ in rows], chosen.item: [item for _, item in rows]}
        chunks = {column: [pa.array(texts, pa.string())] for column, texts in values.items()}

        def where(row: int, column: str, file: Path = tables[part].path) -> str:
            return f"{file}: interaction {row + 1:,}, column {column!r}"

        own = replace(chosen, time=None, rating=None)
        told = f"{tables[part].layout}, lists of items and targets"
        logs[part] = encode_log(chunks, own, where, Wanted(), name=name, source=str(path), layout=told)
    return logs


def read_files(files: Sequence[Path], path: Path, name: str, wanted: Wanted) -> Interactions:
    """Read the files of one log by the layout of the first."""
    kind = wanted.format or suffix_format(files[0])
    source = str(files[0] if len(files) == 1 else path)
    if is_parquet(files[0], wanted):
        return read_parquet_log(list(files), name, wanted, source)
    head = head_of(files[0])
    check_encoding(head, files[0])
    layout = recognise(head, files[0], wanted, kind)
    if layout.kind in ("text", "colon"):
        return whole_lines(files, name, layout, wanted)
    if wanted.columns and (layout.header or layout.kind == "json"):
        raise UserError(
            f"--data.columns {wanted.columns}: {source} has names of its own ({layout}); choose them with --data.user, --data.item and --data.time"
        )
    if layout.kind == "json":
        log = read_json_log(files, name, layout, wanted, source)
    else:
        log = read_table_log(files, name, layout, wanted, source)
    return with_features(log, files[0]) if layout.kind == "atomic" else log


def whole_lines(files: Sequence[Path], name: str, layout: Layout, wanted: Wanted) -> Interactions:
    """Read a log whose lines have a user and its items, which has no columns to choose.

    Raises:
        UserError: several files, or an option that needs columns.
    """
    if wanted.given:
        raise UserError(
            f"--data.split given: {files[0]} has no column of parts ({layout}); give a folder with train, valid and test files"
        )
    for option in ("user", "item", "time", "where", "min_rating", "columns"):
        if (value := getattr(wanted, option)) is not None:
            raise UserError(f"--data.{option} {value}: {files[0]} has no columns ({layout})")
    if len(files) > 1:
        raise UserError(f"{files[0].parent}: {len(files)} files with {layout}; name one of them")
    return read_text_log(files[0], name, layout)


def is_parquet(file: Path, wanted: Wanted) -> bool:
    """True if a file is to be read as Parquet.

    Raises:
        OSError: it cannot be opened.
    """
    kind = wanted.format or suffix_format(file)
    return kind == "parquet" or (not kind and head_of(file).startswith(b"PAR1"))


def attributes_near(path: Path) -> pd.DataFrame | None:
    """The attributes of items in a file beside a log; None if there is none, or with a warning if it cannot be read."""
    near = attribute_file(path)
    try:
        return None if near is None else read_attributes(near)
    except UserError as error:  # most models do not need attributes
        logger.warning("%s; going on without attributes of items", error)
        return None


def check_sequences(user_ids: np.ndarray, rows: int, source: str) -> None:
    """Refuse a log without sequences to learn from.

    Args:
        user_ids: the different users.
        rows: number of interactions.
        source: where the log came from.

    Raises:
        UserError: there is a single user, or no user has two interactions.
    """
    if len(user_ids) == 1:
        raise UserError(f"{source}: the user column has a single user, {user_ids[0]}, in all {rows:,} rows")
    if len(user_ids) == rows:
        raise UserError(
            f"{source}: the user column has {rows:,} users with one item each, so there is no sequence to learn from"
        )
