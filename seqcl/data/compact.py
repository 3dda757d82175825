"""Columns of Parquet tables as arrays and codes, without an object of Python for each row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.cells import Coded, Numeric, column_of, rows_of
from seqcl.data.tables import of_width, rows_taken, text_columns

if TYPE_CHECKING:
    import pyarrow as pa


def stored_cells(
    path: Path, raw_ids: np.ndarray, source: str, words: Collection[str] = ()
) -> dict[str, Sequence[Any]] | None:
    """The columns of a stored frame in the order of the raw ids, as `cells_of` gives them.

    Text comes as `Coded`, numbers as `Numeric`, lists of fractions of one length as an array (N, M) with NaN where an id
    has none, except for the columns `words`. Other columns are lists of cells.

    Returns:
        None for a frame whose ids are not one column of the file, or whose columns have several levels.
    """
    from pyarrow import parquet

    from seqcl.data.arrow import opened

    with opened(path) as file:
        stored = parquet.ParquetFile(file, read_dictionary=text_columns(file))
        about = stored.schema_arrow.pandas_metadata or {}
        index = about.get("index_columns", [])
        names = stored.schema_arrow.names
        levels = len(about.get("column_indexes", []))
        if len(index) != 1 or not isinstance(index[0], str) or levels > 1 or len(set(names)) < len(names):
            return None
        keys = compact_ids(stored.read([index[0]])[index[0]])
        rows = rows_of(keys, raw_ids, source)
        del keys
        cells: dict[str, Sequence[Any]] = {}
        for name in names:  # one column at a time, so that the memory is that of one
            if name == index[0]:
                continue
            column = stored.read([name])[name]
            found = compact(column, lists=name not in words)
            cells[name] = column_of(column.to_pandas(), rows) if found is None else rows_taken(found, rows)
        return cells


def compact_ids(column: pa.ChunkedArray) -> Any:
    """Raw ids as an array of int64, or as the column itself if it is text; any other as a list."""
    import pyarrow as pa

    if not column.null_count and pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
        return column.to_numpy().astype(np.int64, copy=False)
    return column if not column.null_count and is_text(column.type) else column.to_pylist()


def compact(column: pa.ChunkedArray, *, lists: bool = True) -> Coded | Numeric | np.ndarray | None:
    """A column of text, of numbers, or, with `lists`, of equally long lists of fractions as an array (R, M); None for any other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not len(column):
        return None
    if is_text(kind) or (pa.types.is_dictionary(kind) and is_text(kind.value_type)):
        coded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        joined = coded.unify_dictionaries().combine_chunks()
        joined = joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
        codes = joined.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return Coded(codes.astype(np.int32, copy=False), joined.dictionary.to_pylist())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        there = np.asarray(column.is_valid().to_numpy(), bool)
        return Numeric((column.fill_null(0) if column.null_count else column).to_numpy(), there)
    if lists and (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_floating(kind.value_type):
        widths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
        return of_width(column, widths[0]) if len(widths) == 1 and widths[0] else None
    return None


def is_text(kind: pa.DataType) -> bool:
    """True for text; pandas 3 writes the large one."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
