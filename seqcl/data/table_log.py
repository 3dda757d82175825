"""Logs that are tables of text, or a JSON object a line, in one file or in parts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seqcl.data.columns import Chosen, Wanted, choose_columns
from seqcl.data.delimited import TextTable, check_encoding, read_text_table
from seqcl.data.encode import encode_log
from seqcl.data.files import open_bytes
from seqcl.data.interactions import Interactions
from seqcl.data.json_log import choose_keys, read_json
from seqcl.data.layout import Layout, cells_of_line, is_header, recognise, sample_lines
from seqcl.data.sieve import Chunks
from seqcl.errors import UserError

FORMATS = ("atomic", "csv", "json", "parquet", "text", "tsv")
SUFFIXES = {
    **{".inter": "atomic", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"},
    **{".jsonl": "json", ".ndjson": "json", ".json": "json"},
}
HEAD_BYTES = 1 << 16
LONGEST_LINE = 1 << 24
"""Most bytes of a first line that are looked at."""


def head_of(path: Path) -> bytes:
    """The first bytes of a file, to the end of its first line at least, or some megabytes."""
    with open_bytes(path) as file:
        head = file.read(HEAD_BYTES)
        return head if b"\n" in head else head + file.readline(LONGEST_LINE)


def read_table_log(files: Sequence[Path], name: str, layout: Layout, wanted: Wanted, source: str) -> Interactions:
    """Read tables of text as one log; every part may have its columns in another order."""
    tables = [TextTable(path, layout_of_part(path, layout, wanted) if n else layout) for n, path in enumerate(files)]
    return encoded(tables, chosen_columns(tables[0], wanted), wanted, name, source)


def encoded(tables: Sequence[TextTable], chosen: Chosen, wanted: Wanted, name: str, source: str) -> Interactions:
    """Encode the chosen columns of tables as one log."""
    starts: list[int] = []
    chunks: Chunks = {}
    rows = 0
    for table in tables:
        found = read_text_table(table, chosen)
        for column in chosen.needed:
            chunks.setdefault(column, []).extend(found[column].chunks)
        starts.append(rows)
        rows += len(found)
        del found  # so that each column is freed as soon as it is encoded

    def where(row: int, column: str) -> str:
        part = bisect_right(starts, row) - 1
        return tables[part].where(row - starts[part], column)

    layout = tables[0].layout
    told = str(layout) + (f", {len(tables)} parts" if len(tables) > 1 else "")
    log = encode_log(chunks, chosen, where, wanted, name=name, source=source, layout=told)
    return log if layout.header else replace(log, reading=log.reading | {"positions": list(layout.names)})


def layout_of_part(path: Path, first: Layout, wanted: Wanted) -> Layout:
    """The layout of a further part, whose header may have another order.

    Raises:
        UserError: the part is empty, in another encoding, or laid out in another way.
    """
    head = head_of(path)
    check_encoding(head, path)
    if not first.header:
        rows = [cells_of_line(line, first.delimiter) for line in sample_lines(head)]
        if is_header(rows, wanted):
            raise UserError(f"{path}:1: a header, {', '.join(rows[0])[:80]}, but the parts before it have none")
        return first
    found = recognise(head, path, wanted, "atomic" if first.kind == "atomic" else "")
    if (found.kind, found.delimiter, found.header) != (first.kind, first.delimiter, True):
        raise UserError(f"{path}:1: {found}, but the parts before it are {first}")
    if set(found.names) != set(first.names):
        apart = ", ".join(sorted(set(found.names) ^ set(first.names)))
        raise UserError(
            f"{path}:1: not the columns of the parts before it: {apart[:120]} differ; is it of another log?"
        )
    return found


def chosen_columns(table: TextTable, wanted: Wanted, *, cut: bool = False) -> Chosen:
    """Choose the columns of a table of text by its names, and by its content where these do not say."""
    layout = table.layout
    lines = sample_lines(head_of(table.path))[int(layout.header) :]
    rows = [cells for line in lines if len(cells := cells_of_line(line, layout.delimiter)) == len(layout.names)]
    sample = {name: [row[place] for row in rows] for place, name in enumerate(layout.names)}
    chosen = choose_columns(layout.names, sample, wanted, f"{table.path}:1", named=layout.header)
    if any(value.startswith("[") and value.endswith("]") for value in sample[chosen.item]):
        raise UserError(
            f"{table.path}: column {chosen.item!r} holds lists; in text they are not read: give Parquet, JSON lines, or a line a user"
        )
    if f"{chosen.item}_list" in layout.names and not cut:
        raise UserError(
            f"{table.path}: rows with {chosen.item}_list were cut elsewhere; give their folder with --data.split given"
        )
    return chosen


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


def suffix_format(path: Path) -> str:
    """The format that the name of a file suggests; empty if it suggests none."""
    return SUFFIXES.get(Path(path.name.lower().removesuffix(".gz")).suffix, "")
