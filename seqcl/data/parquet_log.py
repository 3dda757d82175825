"""Logs in Parquet files, read in batches."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from seqcl.data.arrow import path_for_arrow
from seqcl.data.columns import Chosen, Wanted, choose_columns
from seqcl.data.encode import encode_log
from seqcl.data.files import archive_of
from seqcl.data.interactions import Interactions
from seqcl.data.sieve import Chunks
from seqcl.errors import UserError, brief

logger = logging.getLogger("seqcl")

ROWS_A_CHUNK = 1 << 20
SAMPLE_ROWS = 200


class ParquetLog:
    """Parquet files as one log, one after the other, read in batches of rows; what was read tells the places of rows.

    Args:
        files: the files, in order.
        wanted: what the user says of the columns.
        source: where the log came from, for messages.
    """

    def __init__(self, files: list[Path], wanted: Wanted, source: str) -> None:
        self.files = files
        self.wanted = wanted
        self.source = source
        self.starts: list[int] = []  # the first row of each file
        self.chosen: Chosen | None = None  # once the first batch is read
        self.types: dict[str, str] = {}  # "text" or "numbers", of the columns of ids in the file read last

    @property
    def layout(self) -> str:
        """How the log is laid out, in words."""
        return "Parquet" + (f", {len(self.files)} parts" if len(self.files) > 1 else "")

    def where(self, row: int, column: str) -> str:
        """The place of a value, for messages."""
        part = bisect_right(self.starts, row) - 1
        return f"{self.files[part]}: row {row - self.starts[part] + 1:,}: column {column!r}"

    def batches(self) -> Iterator[dict[str, pa.Array]]:
        """The needed columns, batch by batch.

        Raises:
            UserError: columns are named by position; a file is not whole, has other columns than those before it, or there are no rows.
        """
        if self.wanted.columns:
            raise UserError(
                f"{self.source}: a Parquet file has names of columns; choose them with --data.user, --data.item and --data.time"
            )
        self.starts, rows = [], 0
        for path in self.files:
            self.starts.append(rows)
            if archive_of(path):
                raise UserError(f"{path}: a Parquet file inside a .zip is not read; unpack it first")
            try:
                with parquet.ParquetFile(path_for_arrow(path)) as file:
                    chosen = self.compared(file, path)
                    for batch in file.iter_batches(ROWS_A_CHUNK, columns=chosen.needed):
                        rows += batch.num_rows
                        yield {name: batch.column(batch.schema.get_field_index(name)) for name in chosen.needed}
            except (pa.ArrowException, OSError, UnicodeError) as error:
                why = " ".join(str(error).split())[:160]
                raise UserError(
                    f"{path}: not a whole Parquet file; is it cut off, or still being written? ({why})"
                ) from None
        if not rows:
            raise UserError(f"{self.files[0]}: row 1: there are no rows")

    def compared(self, file: parquet.ParquetFile, path: Path) -> Chosen:
        """The columns, chosen by the first file; every other one needs them too, and ids of another type are told.

        Raises:
            UserError: a later file lacks a column.
        """
        schema = file.schema_arrow
        if self.chosen is None:
            self.chosen = chosen_columns(file, self.wanted, str(path))
        if missing := next((name for name in self.chosen.needed if name not in schema.names), None):
            raise UserError(
                f"{path}: it has no column {missing!r}, which {self.files[0].name} has; all parts need the same columns, "
                f"and its own are {brief(', '.join(schema.names), 80)}"
            )
        for name in (self.chosen.user, self.chosen.item):
            held = schema.field(name).type
            kind = "numbers" if pa.types.is_integer(held) or pa.types.is_floating(held) else "text"
            if self.types.setdefault(name, kind) != kind:
                self.types[name] = kind  # told once for each change
                logger.warning(
                    "%s: %r holds %s here, but not in the parts before it; both are read as text", path, name, kind
                )
        return self.chosen


def read_parquet_log(files: list[Path], name: str, wanted: Wanted, source: str) -> Interactions:
    """Read Parquet files as one log, one after the other.

    Raises:
        UserError: a file is not whole, or a value does not fit; its file, row and column are named.
    """
    log = ParquetLog(files, wanted, source)
    chunks: Chunks = {}
    for batch in log.batches():
        for column, array in batch.items():
            assert log.chosen is not None
            compact = column in (log.chosen.user, log.chosen.item) and array.type in (pa.int64(), pa.string())
            compact = compact and not array.null_count
            chunks.setdefault(column, []).append(array.dictionary_encode() if compact else array)
    assert log.chosen is not None
    return encode_log(chunks, log.chosen, log.where, wanted, name=name, source=source, layout=log.layout)


def chosen_columns(file: parquet.ParquetFile, wanted: Wanted, source: str) -> Chosen:
    """Choose the columns of a Parquet file, by the names and the first rows."""
    names = [name for name in file.schema_arrow.names if name != "__index_level_0__"]
    head = next(file.iter_batches(SAMPLE_ROWS), None)
    sample = {name: values(head.column(head.schema.get_field_index(name))) for name in names} if head else {}
    return choose_columns(names, sample, wanted, source)


def values(array: pa.Array) -> list[object]:
    """The values of an array as Python's; none where they cannot be (times in nanoseconds need pandas)."""
    try:
        return list(array.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return []
