"""Read tables of text: a quick pass with Arrow, and a slow one that says where a value does not fit."""

from __future__ import annotations

import csv
import io
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
from pyarrow import csv as arrow_csv

from seqcl.data.arrow import path_for_arrow
from seqcl.data.columns import Chosen
from seqcl.data.files import archive_of, is_packed, open_bytes
from seqcl.data.layout import BLANK, Layout
from seqcl.errors import UserError

BLOCK_BYTES = 4 << 20
"""Bytes of text parsed at once: enough for speed, and little memory beside the result, though a few blocks are in flight."""


def check_encoding(head: bytes, path: Path) -> None:
    """Refuse a file that cannot be UTF-8 text, by its first bytes.

    Raises:
        UserError: the file is empty, in UTF-16 or UTF-32, no text at all, or its lines end with a carriage return alone.
    """
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        raise UserError(f"{path}:1: the file is empty" if not head else f"{path}:1: there is nothing but blank space")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"{path}:1: column 1: not UTF-8 text (UTF-16, or a binary file); save it as UTF-8")
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].rstrip(b"\r")
    if not first.strip():
        raise UserError(f"{path}:1: the first line is empty; take it out")
    if b"\r" in first:
        raise UserError(f"{path}:1: a carriage return stands inside a line; lines must end with \\n")
    try:
        (first if b"\n" in head else first[:-4]).decode()  # a letter may be cut off at the end
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:1: byte {error.start + 1} is not UTF-8 text; save the file as UTF-8") from None


@dataclass(frozen=True)
class TextTable:
    """A file that is a table of text.

    Args:
        path: the file.
        layout: how its lines are cut.
    """

    path: Path
    layout: Layout

    def place(self, line: int, column: str) -> str:
        """A place for messages: log.csv:7: column 2 'item_id'."""
        return f"{self.path}:{line}: column {self.layout.names.index(column) + 1} {column!r}"

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Give the last line and the cells of every record after the header; bytes that are not UTF-8 become surrogates."""
        with open_bytes(self.path) as raw:
            lines = (line.decode("utf-8", "surrogateescape") for line in raw)
            reader = Cells(lines, self.layout)
            try:
                if self.layout.header:
                    next(reader, None)
                for cells in reader:
                    yield reader.line, cells
            except csv.Error as error:
                raise UserError(f"{self.path}:{reader.line}: {error}") from None

    def where(self, row: int, column: str) -> str:
        """The place of a column in a 0-based record, for messages; reads the file again up to this record.

        Raises:
            UserError: the record is an empty line, a better message than one about a column.
        """
        line, cells = next((one for index, one in enumerate(self.records()) if index == row), (None, []))
        if line is None:  # Arrow and Python's csv cut the lines in different ways
            return f"{self.path}: row {row + 1}, {column!r}"
        if not cells:
            raise UserError(f"{self.path}:{line}: column 1: the row is empty")
        return self.place(line, column)


class Cells:
    """The cells of each record of some lines; `line` is the last line read."""

    def __init__(self, lines: Iterable[str], layout: Layout) -> None:
        self.layout = layout
        self.line = 0
        self.lines = lines if layout.quoted else iter(lines)
        self.reader = csv.reader(lines, delimiter=layout.delimiter) if layout.quoted else None

    def __iter__(self) -> Cells:
        return self

    def __next__(self) -> list[str]:
        if self.reader is not None:
            cells = next(self.reader)
            self.line = self.reader.line_num
            return cells
        text = next(self.lines).rstrip("\r\n")  # type: ignore[call-overload]
        self.line += 1
        if not text.strip():
            return []
        return text.split() if self.layout.delimiter == BLANK else text.split(self.layout.delimiter)


def read_text_table(table: TextTable, chosen: Chosen) -> pa.Table:
    """The chosen columns of a file: ids as codes into text, times as float64 or text, others as Arrow infers them.

    Raises:
        UserError: a row does not fit; the file and its line are named.
    """
    for name in chosen.needed:
        if name not in table.layout.names:
            raise UserError(f"{table.path}:1: column {name!r} is missing, though other parts of the log have it")
    try:
        found = parse(table, chosen)
    except pa.ArrowException:
        try:
            found = parse(table, chosen, text_time=True)  # dates, or values that `to_seconds` refuses by name
        except pa.ArrowException as error:
            explain(table, chosen, str(error))
    if not len(found):
        raise UserError(f"{table.path}:2: there is a header and nothing under it")
    return found


def parse(table: TextTable, chosen: Chosen, *, text_time: bool = False) -> pa.Table:
    """Parse the chosen columns; ids as codes into text, so that 007 and 20 digits survive; an empty line counts as a row."""
    layout, ids = table.layout, pa.dictionary(pa.int32(), pa.string())
    types: dict[str, pa.DataType] = {chosen.user: ids, chosen.item: ids}
    if chosen.time:
        types[chosen.time] = pa.string() if text_time else pa.float64()
    for name in (*chosen.tested, chosen.part):
        if name and name not in types:
            types[name] = pa.string()  # so that '007' and '7' are two values
    if chosen.rating:
        types[chosen.rating] = pa.float64()
    names, delimiter = list(layout.names), layout.delimiter
    if delimiter == "::":  # Arrow takes one letter: between two columns stands an empty one
        delimiter = ":"
        names = [name for place, own in enumerate(names) for name in (f"\0{place}", own)][1:]
    elif delimiter == BLANK:
        delimiter = "\t"
    found = arrow_csv.read_csv(
        source_of(table),
        read_options=arrow_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names, skip_rows=int(layout.header)),
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if layout.quoted else False,
            newlines_in_values=layout.quoted and holds_quotes(table.path),
            ignore_empty_lines=False,
        ),
        convert_options=arrow_csv.ConvertOptions(include_columns=chosen.needed, column_types=types),
    )
    if layout.quoted and len(found) + layout.header < lines_in(table.path):
        check_quotes(table)
    return found.slice(0, max(0, len(found) - blank_lines_at_end(table.path)))


def lines_in(path: Path) -> int:
    """The number of lines of a file that holds quotes; 0 for any other, whose rows are lines."""
    if not holds_quotes(path):
        return 0
    count, last = 0, b"\n"
    with open_bytes(path) as file:
        while block := file.read(BLOCK_BYTES):
            count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def check_quotes(table: TextTable) -> None:
    """Refuse a file with cells of several lines in which a quote stands alone, and so swallows rows.

    Raises:
        UserError: text follows a closing quote, or a quote is never closed; the line is named on which the row began.
    """
    with open_bytes(table.path) as raw:
        reader = csv.reader(
            (line.decode("utf-8", "surrogateescape") for line in raw), delimiter=table.layout.delimiter, strict=True
        )
        begin = 1
        try:
            for _ in reader:
                begin = reader.line_num + 1
        except csv.Error as error:
            open_end = "end of data" in str(error)
            what = "the file ends inside quotes" if open_end else "text stands behind a closing quote"
            raise UserError(
                f"{table.path}:{reader.line_num}: {what}, in a row that begins on line {begin}: is a quote mark too many there? "
                'A quote inside a quoted cell is written twice ("")'
            ) from None


def source_of(table: TextTable) -> str | io.BytesIO:
    """The source that Arrow reads: the path, or the bytes of a file that is packed or whose blanks vary."""
    if table.layout.delimiter == BLANK:
        with open_bytes(table.path) as file:
            lines = (line.removeprefix(b"\xef\xbb\xbf") for line in file)
            return io.BytesIO(b"\n".join(b"\t".join(line.split()) for line in lines))
    if archive_of(table.path) or is_packed(table.path) != (table.path.suffix == ".gz"):
        with open_bytes(table.path) as file:
            return io.BytesIO(file.read())
    return path_for_arrow(table.path)


def holds_quotes(path: Path) -> bool:
    """True if the file has any quote: then cells may hold line breaks, and Arrow needs a slower pass."""
    if is_packed(path):
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(b'"') >= 0


def blank_lines_at_end(path: Path) -> int:
    """Count the empty lines after the last row, which are harmless; in a packed file they count as rows and are refused."""
    if is_packed(path):
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    return max(0, tail[len(tail.rstrip(b"\r\n")) :].count(b"\n") - 1)


def explain(table: TextTable, chosen: Chosen, reason: str) -> NoReturn:
    """Raise the error of the first record that is not as wide as the header, or not UTF-8; without one, Arrow's reason."""
    names = table.layout.names
    ours = [names.index(column) for column in chosen.needed]
    first = "the header" if table.layout.header else "the first line"
    before = int(table.layout.header)
    for line, cells in table.records():
        if cells and len(cells) != len(names):
            end = f"{table.path}:{line}: column {min(len(cells), len(names))}"
            begun = f"; it begins on line {before + 1}: is a quote left open there?" if line > before + 1 else ""
            raise UserError(f"{end}: the row has {len(cells)} columns, {first} {len(names)}{begun}")
        before = line
        for index in ours if cells else []:
            if any("\udc80" <= letter <= "\udcff" for letter in cells[index]):
                raise UserError(f"{table.place(line, names[index])}: not UTF-8 text; save the file as UTF-8")
    raise UserError(f"{table.path}: {' '.join(reason.split())[:200]}")
