"""Files with features of items or users: one row for each, found by its id."""

from __future__ import annotations

import ast
import csv
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.cells import Coded, Numeric, rows_of
from seqcl.data.columns import pick
from seqcl.data.files import open_bytes
from seqcl.data.layout import best_delimiter, sample_lines
from seqcl.data.names import ITEM_NAMES, USER_NAMES
from seqcl.errors import UserError, brief, unknown

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SEPARATORS = (",", "\t", ";", "|")
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".npz")


def load_table(table: pd.DataFrame | Path | None, *, categories: bool = False) -> pd.DataFrame | None:
    """A feature table as a frame, read from its Parquet file if a path is given; its text as categories if that is wanted."""
    if not isinstance(table, Path):
        return table
    import pandas as pd

    from seqcl.data.arrow import opened

    with opened(table) as file:
        return pd.read_parquet(file, read_dictionary=text_columns(file) if categories else [])


def text_columns(file: pa.NativeFile) -> list[str]:
    """Names of the columns of text in a Parquet file, its index apart."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = parquet.ParquetFile(file).schema_arrow
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    text = (pa.types.is_string, pa.types.is_large_string)  # pandas 3 writes the latter
    return [field.name for field in schema if any(one(field.type) for one in text) and field.name not in index]


def check_storable(table: pd.DataFrame | Path | None, which: str) -> None:
    """Refuse a frame of features that Parquet cannot hold, since a run keeps it: complex numbers, half letters, objects.

    Raises:
        UserError: names what cannot be kept.
    """
    if table is None or isinstance(table, Path):
        return
    import pyarrow as pa

    for name in table.columns:
        try:
            str(name).encode()
            pa.Table.from_pandas(table[[name]])
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:  # Arrow's errors are some of these
            raise UserError(
                f"the table of {which}: column {brief(ascii(str(name)), 40)} cannot be kept as Parquet: {brief(error)}"
            ) from None


def read_columns(path: Path, raw_ids: np.ndarray, which: str, words: Collection[str] = ()) -> dict[str, Sequence[Any]]:
    """Read the columns of a file, in the order of the raw ids.

    Vectors come as an array (N, M), NaN where an id has no row. Other columns come as sequences of cells, None there; those
    of Parquet with text or numbers hold no object for each row.

    Args:
        path: .csv or .tsv (also gzipped: .csv.gz) or .parquet with a column of ids; or .npz with an array `ids` and other
            arrays of the same length, vectors as arrays of two dimensions (`numpy.savez(path, ids=ids, image=vectors)`).
        raw_ids: (N,) ids of the items or users of the log.
        which: items or users; the column of ids is found by its usual names.
        words: columns whose cells stay text or lists, even if they look like numbers or vectors.

    Raises:
        UserError: no such file, another format, no column of ids, no row for any of the ids, or a file that cannot be read.
    """
    ids, columns = read_table(path, which, words)
    rows = rows_of(ids, raw_ids, str(path))
    if not (rows >= 0).any():
        raise UserError(f"{path}: it has no row for any of the {which}: an id is {raw_ids[0]} in the log, and {next(iter(ids), 'none')} in the file")  # fmt: skip
    return {name: rows_taken(values, rows) for name, values in columns.items()}


def read_table(path: Path, which: str, words: Collection[str] = ()) -> tuple[Any, dict[str, Any]]:
    """Read the ids of a file and its other columns, as `read_columns`; of Parquet the ids are an array or a column of text.

    Raises:
        UserError: no such file, another format, no column of ids, or a file that cannot be read.
    """
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"{path}: {unknown('kind of table', path.suffix, SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if suffix == ".npz":
            return from_npz(path)
        return from_parquet(path, which, words) if suffix == ".parquet" else from_text(path, which, words)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, SyntaxError, tokenize.TokenError) as error:  # fmt: skip
        raise UserError(f"{path}: it cannot be read: {brief(error)}") from None  # Arrow's and pandas' are ValueErrors


def from_text(path: Path, which: str, words: Collection[str]) -> tuple[list[str], dict[str, Any]]:
    """Read the ids and columns of a text file with a header; a column whose cells are all numbers becomes numbers.

    Cells are separated as in logs: by what cuts the header and the rows alike. Quotes group a cell unless tabs separate.
    """
    import pandas as pd

    with open_bytes(path) as file:
        separator = best_delimiter(sample_lines(file.read(1 << 16)) or [""], SEPARATORS) or ","
    # the stubs of pandas want a literal for `quoting`
    quoting: Any = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    with warnings.catch_warnings(), open_bytes(path) as file:
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header
        try:
            table = pd.read_csv(
                file, sep=separator, header=None, dtype="str", keep_default_na=False, na_values=[""],
                index_col=False, quoting=quoting, encoding="utf-8-sig",
            )  # fmt: skip
        except pd.errors.ParserWarning as error:
            raise UserError(f"{path}: a row is longer than the header: {error}") from None
    names = ["" if cell is None or cell != cell else str(cell) for cell in table.iloc[0]]
    owner = column_of_ids(names, which, path)
    columns: dict[str, Any] = {}
    for number, name in enumerate(names):
        cells = table.iloc[1:, number]
        if name != owner:
            numbers = None if name in words else pd.to_numeric(cells, errors="coerce")
            plain = numbers is not None and bool((numbers.isna() == cells.isna()).all())
            found = (numbers if plain else cells.astype(object).where(cells.notna(), None)).tolist()  # type: ignore[union-attr]
            columns[name] = lists_in(found, path, name) if not plain else found
    return table.iloc[1:, names.index(owner)].tolist(), columns


def lists_in(cells: list[Any], path: Path, name: str) -> list[Any]:
    """Cells as they are, or, if all that are there look like Python's or JSON's lists, the lists: "[10, 11]" holds two words.

    Raises:
        UserError: most cells are lists and one cannot be read.
    """
    texts = [cell for cell in cells if cell is not None]
    if not texts or not all(text.lstrip().startswith("[") and text.rstrip().endswith("]") for text in texts):
        return cells
    found = []
    for row, cell in enumerate(cells, 2):
        try:
            value = None if cell is None else ast.literal_eval(cell.strip())  # reads values, runs nothing
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise UserError(
                f"{path}:{row}: column {name!r}: {cell[:40]!r} is no list, as the cells above it are"
            ) from None
        found.append(value)
    return found


def column_of_ids(names: Sequence[str], which: str, path: Path) -> str:
    """Find the column of ids by its usual names.

    Raises:
        UserError: no column has a usual name, or two columns have the same name.
    """
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise UserError(f"{path}: two columns are called {', '.join(map(repr, twice))}")
    role, usual, example = ("item", ITEM_NAMES, "item_id") if which == "items" else ("user", USER_NAMES, "user_id")
    found = pick(names, None, usual, role, str(path), {})
    if found is None:
        raise UserError(f"{path}: no column of ids: it has {', '.join(names)}; call it {example}")
    return found


def from_parquet(path: Path, which: str, words: Collection[str]) -> tuple[Any, dict[str, Any]]:
    """Read the ids and columns of a Parquet file; lists of numbers become vectors."""
    import pyarrow as pa
    from pyarrow import parquet

    from seqcl.data.arrow import path_for_arrow
    from seqcl.data.compact import compact, compact_ids

    table = parquet.read_table(path_for_arrow(path))
    owner = column_of_ids(table.column_names, which, path)
    columns: dict[str, Any] = {}
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        if name in (owner, "__index_level_0__"):  # the second is the index of a pandas frame, which says nothing
            continue
        lists = isinstance(kind, pa.FixedSizeListType | pa.ListType | pa.LargeListType)
        number = lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
        if number and name not in words:
            columns[name] = vectors_of(table[name], name, path)
        else:
            found = compact(table[name], lists=False)
            columns[name] = table[name].to_pylist() if found is None else found
    return compact_ids(table[owner]), columns


def vectors_of(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """Turn a column of lists of numbers into (R, M) float32, NaN where a row has no list.

    Raises:
        UserError: the lists have different lengths.
    """
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column).to_numpy()  # (R,), NaN for null
    there = np.asarray(~pc.is_null(column).to_numpy(), bool)
    widths = np.unique(lengths[there]).astype(int)
    if len(widths) != 1:
        raise UserError(
            f"{path}: column {name!r} has lists of {', '.join(map(str, widths[:3])) or 'no'} numbers, but vectors must be equally long; "
            f"write {name}:words if its numbers are words"
        )
    return of_width(column, int(widths[0]))


def of_width(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """Lists of `width` numbers as (R, M) float32, NaN where a row has no list."""
    import pyarrow.compute as pc

    found = np.full((len(column), width), np.nan, np.float32)
    place = 0
    for chunk in column.chunks:
        there = np.asarray(chunk.is_valid().to_numpy(zero_copy_only=False), bool)
        values = pc.list_flatten(chunk).to_numpy(zero_copy_only=False)
        found[place : place + len(chunk)][there] = values.reshape(-1, width)
        place += len(chunk)
    return found


def from_npz(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Read the ids and arrays of an .npz file.

    Raises:
        UserError: no ids, or an array of another length, of more than two dimensions, or of another type.
    """
    with path.open("rb") as handle:
        file = np.load(handle, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(
                f"{path}: it holds a single array; write it with numpy.savez({path.name!r}, ids=ids, NAME=vectors)"
            )
        arrays = dict(file)
    if "ids" not in arrays:
        raise UserError(f"{path}: no array `ids`; write it with numpy.savez({path.name!r}, ids=ids, NAME=vectors)")
    ids = arrays.pop("ids")
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise UserError(
            f"{path}: `ids` must have one dimension and hold whole numbers or text, not {ids.dtype} of shape {ids.shape}"
        )
    for name, values in arrays.items():
        if values.ndim not in (1, 2) or len(values) != len(ids):
            raise UserError(
                f"{path}: array {name!r} has the shape {values.shape}, but it needs {len(ids)} rows, one for each id"
            )
        if values.ndim == 2 and not values.shape[1]:
            raise UserError(f"{path}: array {name!r} has vectors of no numbers: its shape is {values.shape}")
        if values.dtype.kind not in "biufU":
            raise UserError(f"{path}: array {name!r} holds {values.dtype}; only numbers and text are read")
    return ids.tolist(), {name: values if values.ndim == 2 else values.tolist() for name, values in arrays.items()}


def rows_taken(values: Any, rows: np.ndarray) -> Any:
    """Take the given rows of a column, -1 for a missing one: vectors (N, M) float32 with NaN, or cells with None."""
    if isinstance(values, Coded | Numeric):
        return values.take(rows)
    if not isinstance(values, np.ndarray):
        cells = [*values, None]
        return [cells[row] for row in rows.tolist()]
    found = np.full((len(rows), values.shape[1]), np.nan, np.float32)
    found[rows >= 0] = values[rows[rows >= 0]]
    return found
