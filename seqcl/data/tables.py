"""Files that say what items or users are: a row for each, found by its id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.cells import cells_of, rows_of
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*SEPARATORS, ".parquet", ".npz")


def read_columns(path: Path, raw_ids: np.ndarray, which: str) -> dict[str, Sequence[Any]]:
    """The columns of a file in the order of raw ids; vectors as (N, M), NaN where an id has no row, else cells, None there.

    Args:
        path: .csv or .tsv (also with .gz behind it), or .parquet, with a column of ids; or .npz with an array `ids` and others that
            are as long, vectors being arrays of two dimensions (`numpy.savez(path, ids=ids, image=vectors)`).
        raw_ids: (N,)
        which: items or users; the column of ids is found by its usual names.

    Raises:
        UserError: no such file, another format, no column of ids, or it cannot be read.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        raise unknown(f"kind of table, {path}:", suffix, FORMATS)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if suffix == ".npz":
            return of_arrays(path, raw_ids)
        if suffix == ".parquet":
            return of_parquet(path, raw_ids, which)
        import pandas as pd

        names = [str(name) for name in pd.read_csv(path, sep=SEPARATORS[suffix], nrows=0).columns]
        owner = column_of_ids(names, which, path)
        table = pd.read_csv(path, sep=SEPARATORS[suffix], dtype={owner: "str"})
        return dict(cells_of(table.set_index(owner), raw_ids, str(path)))
    except (OSError, ValueError, KeyError, EOFError) as error:  # pandas' and Arrow's errors are ValueErrors
        raise UserError(f"{path}: it cannot be read: {str(error).strip()}") from None


def column_of_ids(names: Sequence[str], which: str, path: Path) -> str:
    """The column that holds the ids.

    Raises:
        UserError: none has a usual name.
    """
    from seqcl.data.columns import ITEM_NAMES, USER_NAMES  # brings pyarrow

    usual = ITEM_NAMES if which == "items" else USER_NAMES
    for name in usual:
        for column in names:
            if column.lower() == name:
                return column
    raise UserError(f"{path}: no column of ids: it has {', '.join(names)}; call it {usual[0]}")


def of_parquet(path: Path, raw_ids: np.ndarray, which: str) -> dict[str, Sequence[Any]]:
    """The columns of a Parquet file; lists of numbers of one width are vectors."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(path)
    owner = column_of_ids(table.column_names, which, path)
    vectors = {}
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        listed = isinstance(kind, pa.FixedSizeListType) and pa.types.is_floating(kind.value_type)
        if listed and not table[name].null_count:
            flat = table[name].combine_chunks().flatten()
            vectors[name] = flat.to_numpy(zero_copy_only=False).reshape(-1, kind.list_size)
    frame: pd.DataFrame = table.drop_columns([owner, *vectors]).to_pandas()
    ids = table[owner].to_pylist()
    rows = rows_of(ids, raw_ids, str(path))
    cells = cells_of(frame.set_axis(ids), raw_ids, str(path)) if len(frame.columns) else {}
    return dict(cells) | {name: taken(values, rows) for name, values in vectors.items()}


def of_arrays(path: Path, raw_ids: np.ndarray) -> dict[str, Sequence[Any]]:
    """The arrays of an .npz file, `ids` aside.

    Raises:
        UserError: no ids, or an array is of another length or has more than two dimensions.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if "ids" not in arrays:
        raise UserError(f"{path}: no array `ids`: numpy.savez({path.name!r}, ids=ids, NAME=vectors) makes such a file")
    ids = arrays.pop("ids")
    for name, values in arrays.items():
        if values.ndim not in (1, 2) or len(values) != len(ids):
            raise UserError(
                f"{path}: array {name!r} has the shape {values.shape}, where {len(ids)} ids need as many rows"
            )
    rows = rows_of(ids.tolist(), raw_ids, str(path))
    return {name: taken(values, rows) for name, values in arrays.items()}


def taken(values: np.ndarray, rows: np.ndarray) -> Sequence[Any]:
    """The rows of an array, -1 being none: vectors (N, M) float32, or cells."""
    if values.ndim == 1:
        cells = [*values.tolist(), None]
        return [cells[row] for row in rows.tolist()]
    found = values[rows].astype(np.float32)
    found[rows < 0] = np.nan
    return found
