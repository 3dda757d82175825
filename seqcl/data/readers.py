"""Read a log from a file or folder of any layout: `read` finds out the layout and says it."""

from __future__ import annotations

import logging
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from seqcl.data.atomic import with_features
from seqcl.data.attributes import read_attributes
from seqcl.data.columns import Chosen, Wanted, choose_columns
from seqcl.data.conditions import Condition
from seqcl.data.delimited import TextTable, check_encoding, read_text_table
from seqcl.data.encode import Chunks, encode_log
from seqcl.data.files import attribute_file, log_files, log_name, open_bytes, part_files
from seqcl.data.interactions import Interactions
from seqcl.data.json_log import choose_keys, read_json
from seqcl.data.layout import Layout, cells_of_line, recognise, sample_lines
from seqcl.data.parquet_log import read_parquet_log
from seqcl.data.part_files import join, list_column, unroll
from seqcl.data.text_log import read_text_log
from seqcl.errors import UserError, unknown

logger = logging.getLogger("seqcl")

FORMATS = ("atomic", "csv", "json", "parquet", "text", "tsv")
SUFFIXES = {
    **{".inter": "atomic", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"},
    **{".jsonl": "json", ".ndjson": "json", ".json": "json"},
}
HEAD_BYTES = 1 << 16


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
    near = attribute_file(path)
    if near is not None:
        try:
            log = replace(log, item_features=read_attributes(near))
        except UserError as error:  # most models do not need attributes
            logger.warning("%s; going on without attributes of items", error)
    pa.default_memory_pool().release_unused()
    check_sequences(log)
    log = replace(log, reading=log.reading | {"source": path.name})
    logger.info("%s", log.told)
    return log


def read_parts(files: Mapping[int, Path], path: Path, name: str, wanted: Wanted) -> Interactions:
    """Read the files of a split that was made elsewhere, each as what the first is."""
    plain = replace(wanted, given=False)
    logs: dict[int, Interactions] = {}
    like: Layout | None = None
    for part in sorted(files):
        file = files[part]
        if part and like is not None and like.kind in ("text", "colon"):
            logs[part] = read_text_log(file, name, like)
            continue
        with open_bytes(file) as opened:
            head = opened.read(HEAD_BYTES)
        if not part and not head.startswith(b"PAR1"):
            check_encoding(head, file)
            like = recognise(head, file, plain, suffix_format(file))
            chosen = chosen_columns(TextTable(file, like), plain) if like.header else None
            if chosen and list_column(like.names, chosen.item):
                return read_unrolled(files, path, name, like, chosen, plain)
        logs[part] = read_files([file], file, name, plain)
    return join(logs, name, str(path))


def read_unrolled(
    files: Mapping[int, Path], path: Path, name: str, layout: Layout, chosen: Chosen, wanted: Wanted
) -> Interactions:
    """Read files of rows with a list of items and the target after it, such as RecBole's for sequential models."""
    tables = {part: TextTable(files[part], layout_of_part(files[part], layout, wanted)) for part in sorted(files)}
    logs = {}
    for part, rows in unroll(tables, chosen.user, chosen.item).items():
        if not rows:
            raise UserError(f"{files[part]}:2: there is a header and nothing under it")
        values = {chosen.user: [user for user, _ in rows], chosen.item: [item for _, item in rows]}
        chunks = {column: [pa.array(texts, pa.string())] for column, texts in values.items()}
        own = replace(chosen, time=None, rating=None, tested=())

        def where(row: int, column: str, file: Path = files[part]) -> str:
            return f"{file}: interaction {row + 1:,}, column {column!r}"

        told = f"{layout}, lists of items and targets"
        logs[part] = encode_log(chunks, own, where, Wanted(), name=name, source=str(path), layout=told)
    return join(logs, name, str(path))


def suffix_format(path: Path) -> str:
    """The format that the name of a file suggests; empty if it suggests none."""
    return SUFFIXES.get(Path(path.name.lower().removesuffix(".gz")).suffix, "")


def read_files(files: Sequence[Path], path: Path, name: str, wanted: Wanted) -> Interactions:
    """Read the files of one log by the layout of the first."""
    kind = wanted.format or suffix_format(files[0])
    source = str(files[0] if len(files) == 1 else path)
    with open_bytes(files[0]) as file:
        head = file.read(HEAD_BYTES)
    if kind == "parquet" or (not kind and head.startswith(b"PAR1")):
        if wanted.columns:
            raise UserError(
                f"{source}: a Parquet file has names of columns; choose them with --data.user, --data.item and --data.time"
            )
        return read_parquet_log(list(files), name, wanted, source)
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


def read_table_log(files: Sequence[Path], name: str, layout: Layout, wanted: Wanted, source: str) -> Interactions:
    """Read tables of text as one log; every part may have its columns in another order."""
    tables: list[TextTable] = []
    starts: list[int] = []
    chunks: Chunks = {}
    chosen: Chosen | None = None
    rows = 0
    for path in files:
        if tables:
            layout = layout_of_part(path, layout, wanted)
        table = TextTable(path, layout)
        chosen = chosen or chosen_columns(table, wanted)
        found = read_text_table(table, chosen)
        for column in chosen.needed:
            chunks.setdefault(column, []).extend(found[column].chunks)
        tables.append(table)
        starts.append(rows)
        rows += len(found)
        del found  # so that each column is freed as soon as it is encoded
    assert chosen is not None

    def where(row: int, column: str) -> str:
        part = bisect_right(starts, row) - 1
        return tables[part].where(row - starts[part], column)

    told = str(layout) + (f", {len(files)} parts" if len(files) > 1 else "")
    log = encode_log(chunks, chosen, where, wanted, name=name, source=source, layout=told)
    return log if layout.header else replace(log, reading=log.reading | {"positions": list(layout.names)})


def layout_of_part(path: Path, first: Layout, wanted: Wanted) -> Layout:
    """The layout of a further part, whose header may have another order.

    Raises:
        UserError: the part is empty, in another encoding, or laid out in another way.
    """
    with open_bytes(path) as file:
        head = file.read(HEAD_BYTES)
    check_encoding(head, path)
    if not first.header:
        return first
    found = recognise(head, path, wanted, "atomic" if first.kind == "atomic" else "")
    if (found.kind, found.delimiter, found.header) != (first.kind, first.delimiter, True):
        raise UserError(f"{path}:1: {found}, but the parts before it are {first}")
    return found


def chosen_columns(table: TextTable, wanted: Wanted) -> Chosen:
    """Choose the columns of a table of text by its names, and by its content where these do not say."""
    layout = table.layout
    with open_bytes(table.path) as file:
        lines = sample_lines(file.read(HEAD_BYTES))[int(layout.header) :]
    rows = [cells for line in lines if len(cells := cells_of_line(line, layout.delimiter)) == len(layout.names)]
    sample = {name: [row[place] for row in rows] for place, name in enumerate(layout.names)}
    tested = tuple(Condition.parse(wanted.where).names.values()) if wanted.where is not None else ()
    return choose_columns(layout.names, sample, wanted, f"{table.path}:1", tested=tested)


def read_json_log(files: Sequence[Path], name: str, layout: Layout, wanted: Wanted, source: str) -> Interactions:
    """Read files of a JSON object a line as one log."""
    chosen = choose_keys(files[0], wanted)
    chunks: Chunks = {}
    places: list[tuple[Path, int]] = []
    for path in files:
        found, lines = read_json(path, chosen)
        for column, arrays in found.items():
            chunks.setdefault(column, []).extend(arrays)
        places += [(path, line) for line in lines]

    def where(row: int, column: str) -> str:
        path, line = places[row]
        return f"{path}:{line}: {column!r}"

    told = str(layout) + (f", {len(files)} parts" if len(files) > 1 else "")
    return encode_log(chunks, chosen, where, wanted, name=name, source=source, layout=told)


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
