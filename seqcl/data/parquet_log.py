"""Logs in Parquet files, read in batches."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from seqcl.data.arrow import path_for_arrow
from seqcl.data.columns import Chosen, Wanted, choose_columns
from seqcl.data.encode import Chunks, encode_log
from seqcl.data.files import archive_of
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError

ROWS_A_CHUNK = 1 << 20
SAMPLE_ROWS = 200


def read_parquet_log(files: list[Path], name: str, wanted: Wanted, source: str) -> Interactions:
    """Read Parquet files as one log, one after the other.

    Raises:
        UserError: a file is not whole, or a value does not fit; its file, row and column are named.
    """
    starts: list[int] = []
    chunks: Chunks = {}
    chosen: Chosen | None = None
    rows = 0
    for path in files:
        starts.append(rows)
        if archive_of(path):
            raise UserError(f"{path}: a Parquet file inside a .zip is not read; unpack it first")
        try:
            with parquet.ParquetFile(path_for_arrow(path)) as file:
                if chosen is None or not set(chosen.needed) <= set(file.schema_arrow.names):
                    chosen = chosen_columns(file, wanted, str(path))
                for batch in file.iter_batches(ROWS_A_CHUNK, columns=chosen.needed):
                    rows += batch.num_rows
                    for column in chosen.needed:
                        array = batch.column(batch.schema.get_field_index(column))
                        compact = column in (chosen.user, chosen.item) and array.type in (pa.int64(), pa.string())
                        compact = compact and not array.null_count
                        chunks.setdefault(column, []).append(array.dictionary_encode() if compact else array)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            why = " ".join(str(error).split())[:160]
            raise UserError(
                f"{path}: not a whole Parquet file; is it cut off, or still being written? ({why})"
            ) from None

    def where(row: int, column: str) -> str:
        part = bisect_right(starts, row) - 1
        return f"{files[part]}: row {row - starts[part] + 1:,}: column {column!r}"

    if not rows or chosen is None:
        raise UserError(f"{files[0]}: row 1: there are no rows")
    if len({len(arrays) for arrays in chunks.values()}) > 1:
        raise UserError(f"{source}: its parts have different columns: {', '.join(chunks)}"[:300])
    layout = "Parquet" + (f", {len(files)} parts" if len(files) > 1 else "")
    return encode_log(chunks, chosen, where, wanted, name=name, source=source, layout=layout)


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
