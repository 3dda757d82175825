"""Read CSV, TSV and RecBole's atomic files: a quick pass with Arrow, and a slow one that says where a value does not fit."""

from __future__ import annotations

import csv
import gzip
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import pyarrow as pa
from pyarrow import csv as arrow_csv

from seqcl.data.arrow import path_for_arrow
from seqcl.data.columns import choose_columns
from seqcl.data.encode import encode_log
from seqcl.data.interactions import Interactions
from seqcl.data.times import parse_time
from seqcl.errors import UserError

if TYPE_CHECKING:
    from _csv import Reader

BLOCK_BYTES = 4 << 20
"""Bytes of text parsed at once: enough for speed, and little memory beside the result, though a few blocks are in flight."""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for its bytes; a .gz file is unpacked."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def check_encoding(head: bytes, path: Path) -> None:
    """Refuse a file that cannot be UTF-8 text, by its first bytes.

    Raises:
        UserError: the file is empty, in UTF-16 or UTF-32, or no text at all.
    """
    if not head.strip(b"\xef\xbb\xbf\r\n\t "):
        raise UserError(f"{path}:1: the file is empty" if not head else f"{path}:1: there is nothing but blank space")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"{path}:1: column 1: not UTF-8 text (UTF-16, or a binary file); save it as UTF-8")


def split_cells(lines: Iterable[str], delimiter: str, quoted: bool) -> Reader:
    """Split lines into the cells of each record; without quoting, a quote is a letter like any other."""
    if quoted:
        return csv.reader(lines, delimiter=delimiter)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


@dataclass(frozen=True)
class DelimitedFile:
    """A delimited file whose first line has been read.

    Args:
        path: the file.
        delimiter: letter between two cells.
        quoted: quotes may group a cell.
        names: names of all columns.
        columns: the columns of users, items and times; None for the times if there are none.
    """

    path: Path
    delimiter: str
    quoted: bool
    names: tuple[str, ...]
    columns: tuple[str, str, str | None]

    def place(self, line: int, column: str) -> str:
        """A place for messages: log.csv:7: column 2 'item_id'."""
        return f"{self.path}:{line}: column {self.names.index(column) + 1} {column!r}"

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Give the last line and the cells of every record after the header; bytes that are not UTF-8 become surrogates."""
        with open_bytes(self.path) as raw:
            lines = (line.decode("utf-8", "surrogateescape") for line in raw)
            reader = split_cells(lines, self.delimiter, self.quoted)
            try:
                next(reader, None)
                for cells in reader:
                    yield reader.line_num, cells
            except csv.Error as error:
                raise UserError(f"{self.path}:{reader.line_num}: {error}") from None

    def where(self, row: int, column: str) -> str:
        """The place of a column in a 0-based record, for messages; reads the file again up to this record.

        Raises:
            UserError: the record is an empty line, a better message than one about a column.
        """
        line, cells = next(record for index, record in enumerate(self.records()) if index == row)
        if not cells:
            raise UserError(f"{self.path}:{line}: column 1: the row is empty")
        return self.place(line, column)


def open_delimited(
    path: Path,
    *,
    user: str | None,
    item: str | None,
    time: str | None,
    delimiter: str | None = None,
    quoted: bool = True,
) -> DelimitedFile:
    """Read the first line of a file and choose the columns of users, items and times.

    Raises:
        UserError: the file is empty or in another encoding, or a column is missing.
    """
    with open_bytes(path) as file:
        head = file.read(1 << 16)
    check_encoding(head, path)
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].rstrip(b"\r")
    try:
        title = first.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:1: byte {error.start + 1} is not UTF-8 text; save the file as UTF-8") from None
    if delimiter is None:
        delimiter = max(",\t;|", key=title.count)
    try:
        cells = next(split_cells([title], delimiter, quoted), [])
    except csv.Error as error:
        raise UserError(f"{path}:1: {error}; lines must end with \\n") from None
    names = tuple(cell.strip() if quoted else cell.strip().split(":")[0] for cell in cells)
    if all(parse_time(name) is not None for name in names):
        raise UserError(
            f"{path}:1: the first line holds numbers, but it must be a header with the names of the columns"
        )
    columns = choose_columns(names, user=user, item=item, time=time, source=f"{path}:1")
    return DelimitedFile(path, delimiter, quoted, names, columns)


def holds_quotes(path: Path) -> bool:
    """True if the file has any quote: then cells may hold line breaks, and Arrow needs a slower pass."""
    if path.suffix == ".gz":
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(b'"') >= 0


def read_delimited_log(file: DelimitedFile, name: str) -> Interactions:
    """Read the log in a delimited file.

    Raises:
        UserError: a value does not fit; the file, line and column of the first one are named.
    """
    try:
        table = parse(file)
    except pa.ArrowInvalid:
        try:
            table = parse(file, text_time=True)  # dates, or values that `to_seconds` refuses by name
        except pa.ArrowInvalid as error:
            explain(file, str(error))
    if not len(table):
        raise UserError(f"{file.path}:2: there is a header and nothing under it")
    chunks = {column: table[column].chunks for column in file.columns if column}
    del table  # so that each column is freed as soon as it is encoded
    return encode_log(chunks, file.columns, file.where, name=name, source=str(file.path))


def parse(file: DelimitedFile, *, text_time: bool = False) -> pa.Table:
    """Parse the chosen columns; ids as codes into text, so that 007 and 20 digits survive; an empty line counts as a row."""
    ids = pa.dictionary(pa.int32(), pa.string())
    user, item, time = file.columns
    types: dict[str, pa.DataType] = {user: ids, item: ids}
    if time:
        types[time] = pa.string() if text_time else pa.float64()
    table = arrow_csv.read_csv(
        path_for_arrow(file.path),
        read_options=arrow_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=list(file.names), skip_rows=1),
        parse_options=arrow_csv.ParseOptions(
            delimiter=file.delimiter,
            quote_char='"' if file.quoted else False,
            newlines_in_values=file.quoted and holds_quotes(file.path),
            ignore_empty_lines=False,
        ),
        convert_options=arrow_csv.ConvertOptions(include_columns=list(types), column_types=types),
    )
    return table.slice(0, max(0, len(table) - blank_lines_at_end(file.path)))


def blank_lines_at_end(path: Path) -> int:
    """Count the empty lines after the last row, which are harmless; in a gzipped file they count as rows and are refused."""
    if path.suffix == ".gz":
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    return max(0, tail[len(tail.rstrip(b"\r\n")) :].count(b"\n") - 1)


def explain(file: DelimitedFile, reason: str) -> NoReturn:
    """Raise the error of the first record that is not as wide as the header, or not UTF-8; without one, Arrow's reason."""
    ours = [file.names.index(column) for column in file.columns if column]
    for line, cells in file.records():
        if cells and len(cells) != len(file.names):
            end = f"{file.path}:{line}: column {min(len(cells), len(file.names))}"
            raise UserError(f"{end}: the row has {len(cells)} columns, the header {len(file.names)}")
        for index in ours if cells else []:
            if any("\udc80" <= letter <= "\udcff" for letter in cells[index]):
                raise UserError(f"{file.place(line, file.names[index])}: not UTF-8 text; save the file as UTF-8")
    raise UserError(f"{file.path}: {reason}")
