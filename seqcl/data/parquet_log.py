"""Logs in Parquet files, read in batches."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from seqcl.data.arrow import path_for_arrow
from seqcl.data.columns import choose_columns
from seqcl.data.encode import encode_log
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError

ROWS_A_CHUNK = 1 << 20


def read_parquet_log(
    files: list[Path], name: str, *, user: str | None, item: str | None, time: str | None
) -> Interactions:
    """Read Parquet files as one log, one after the other.

    Raises:
        UserError: a file is not whole, or a value does not fit; its file, row and column are named.
    """
    starts: list[int] = []
    chunks: dict[str, list[pa.Array]] = {}
    chosen: tuple[str, str, str | None] | None = None
    rows = 0
    for path in files:
        starts.append(rows)
        try:
            file = parquet.ParquetFile(path_for_arrow(path))
            chosen = choose_columns(file.schema_arrow.names, user=user, item=item, time=time, source=str(path))
            wanted = [column for column in chosen if column]
            for batch in file.iter_batches(ROWS_A_CHUNK, columns=wanted):
                rows += batch.num_rows
                for column in wanted:
                    array = batch.column(batch.schema.get_field_index(column))
                    compact = column != chosen[2] and array.type in (pa.int64(), pa.string()) and not array.null_count
                    chunks.setdefault(column, []).append(array.dictionary_encode() if compact else array)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{path}: not a whole Parquet file; is it cut off, or still being written? ({error})"
            ) from None

    def where(row: int, column: str) -> str:
        part = bisect_right(starts, row) - 1
        return f"{files[part]}: row {row - starts[part] + 1:,}: column {column!r}"

    if not rows or chosen is None:
        raise UserError(f"{files[0]}: row 1: there are no rows")
    source = str(files[0] if len(files) == 1 else files[0].parent)
    return encode_log(chunks, chosen, where, name=name, source=source)
