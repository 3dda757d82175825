"""CSV, TSV and RecBole's atomic files: one quick pass with Arrow, and a slow one that explains where it fails."""

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

from seqcl.data.columns import choose_columns, encode_ids, parse_time, to_seconds
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError

if TYPE_CHECKING:
    from _csv import Reader

BLOCK_BYTES = 4 << 20
"""Text parsed at once: large enough for speed, and a few of them in flight cost little beside the result."""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzipped."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def check_encoding(head: bytes, path: Path) -> None:
    """Refuse what cannot be UTF-8 text, by the first bytes of a file.

    Raises:
        UserError: the file is empty, UTF-16 or UTF-32, or not text at all.
    """
    if not head.strip(b"\xef\xbb\xbf\r\n\t "):
        raise UserError(f"{path}:1: the file is empty" if not head else f"{path}:1: there is nothing but blank space")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"{path}:1: column 1: not UTF-8 text (UTF-16, or a binary file); save it as UTF-8")


def split_cells(lines: Iterable[str], delimiter: str, quoted: bool) -> Reader:
    """The cells of each record; where nothing is quoted a quote is a letter like any other."""
    if quoted:
        return csv.reader(lines, delimiter=delimiter)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


@dataclass(frozen=True)
class Layout:
    """How a delimited file is written and which of its columns are ours."""

    path: Path
    delimiter: str
    quoted: bool
    names: tuple[str, ...]
    columns: tuple[str, str, str | None]  # user, item, time

    def place(self, line: int, column: str) -> str:
        """'log.csv:7: column 2 'item_id''."""
        return f"{self.path}:{line}: column {self.names.index(column) + 1} {column!r}"

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Last line and cells of every record under the header; what is not UTF-8 stays as surrogates."""
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
        """The place of a 0-based record; reads the file again up to it.

        Raises:
            UserError: the record is an empty line, which says more than any of its columns.
        """
        line, cells = next(record for index, record in enumerate(self.records()) if index == row)
        if not cells:
            raise UserError(f"{self.path}:{line}: column 1: the row is empty")
        return self.place(line, column)


def layout(
    path: Path,
    *,
    user: str | None,
    item: str | None,
    time: str | None,
    delimiter: str | None = None,
    quoted: bool = True,
) -> Layout:
    """What the first line of a file says of its columns.

    Raises:
        UserError: an empty file, another encoding, a column that is missing.
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
        raise UserError(f"{path}:1: the first line holds numbers; a header with the names of the columns is needed")
    columns = choose_columns(names, user=user, item=item, time=time, source=f"{path}:1")
    return Layout(path, delimiter, quoted, names, columns)


def holds_quotes(path: Path) -> bool:
    """Whether a quote occurs at all: cells that may hold line breaks cost a slower pass."""
    if path.suffix == ".gz":
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(b'"') >= 0


def read_delimited(plan: Layout, name: str) -> Interactions:
    """The log of one delimited file.

    Raises:
        UserError: with file, line and column of the first value that does not fit.
    """
    user, item, time = plan.columns
    try:
        table = parse(plan)
    except pa.ArrowInvalid:
        try:
            table = parse(plan, text_time=True)  # dates, or what `to_seconds` will name
        except pa.ArrowInvalid as error:
            explain(plan, str(error))
    if not len(table):
        raise UserError(f"{plan.path}:2: there is a header and nothing under it")
    chunks = {column: table[column].chunks for column in plan.columns if column}
    del table  # so that each column goes as soon as its codes are there
    times = to_seconds(chunks.pop(time), time, plan.where) if time else None
    users, user_ids = encode_ids(chunks.pop(user), user, plan.where)
    items, item_ids = encode_ids(chunks.pop(item), item, plan.where)
    source = str(plan.path)
    return Interactions(
        users=users, items=items, user_ids=user_ids, item_ids=item_ids, times=times, name=name, source=source
    )


def parse(plan: Layout, *, text_time: bool = False) -> pa.Table:
    """The columns that are ours; ids as codes into text, so that 007 and 20 digits survive; an empty line is a row."""
    ids = pa.dictionary(pa.int32(), pa.string())
    user, item, time = plan.columns
    types: dict[str, pa.DataType] = {user: ids, item: ids}
    if time:
        types[time] = pa.string() if text_time else pa.float64()
    table = arrow_csv.read_csv(
        plan.path,
        read_options=arrow_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=list(plan.names), skip_rows=1),
        parse_options=arrow_csv.ParseOptions(
            delimiter=plan.delimiter,
            quote_char='"' if plan.quoted else False,
            newlines_in_values=plan.quoted and holds_quotes(plan.path),
            ignore_empty_lines=False,
        ),
        convert_options=arrow_csv.ConvertOptions(include_columns=list(types), column_types=types),
    )
    return table.slice(0, max(0, len(table) - blank_lines_at_end(plan.path)))


def blank_lines_at_end(path: Path) -> int:
    """Empty lines after the last row, which do no harm; those of a gzipped file count as rows and are refused."""
    if path.suffix == ".gz":
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    return max(0, tail[len(tail.rstrip(b"\r\n")) :].count(b"\n") - 1)


def explain(plan: Layout, reason: str) -> NoReturn:
    """Raise what is wrong with the first record that is not as wide as the header or not UTF-8."""
    ours = [plan.names.index(column) for column in plan.columns if column]
    for line, cells in plan.records():
        if cells and len(cells) != len(plan.names):
            end = f"{plan.path}:{line}: column {min(len(cells), len(plan.names))}"
            raise UserError(f"{end}: the row has {len(cells)} columns, the header {len(plan.names)}")
        for index in ours if cells else []:
            if any("\udc80" <= letter <= "\udcff" for letter in cells[index]):
                raise UserError(f"{plan.place(line, plan.names[index])}: not UTF-8 text; save the file as UTF-8")
    raise UserError(f"{plan.path}: {reason}")
