"""Read a log from a data frame: of pandas, polars, Arrow, or any other that narwhals knows."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import pyarrow as pa

from seqcl.data.columns import Wanted, choose_columns
from seqcl.data.encode import encode_log
from seqcl.data.interactions import Interactions
from seqcl.errors import UserError

SAMPLE_ROWS = 200


def read_frame(frame: Any, wanted: Wanted, name: str) -> Interactions:
    """Read the interactions of a frame, a row each, or a list of items a row.

    Raises:
        UserError: it is no frame, a column is missing, or a value is no id or time; row and column are named.
    """
    source = f"data frame {name!r}"
    if wanted.columns or wanted.format:
        raise UserError(
            f"{source}: data.columns and data.format are for files; name its columns with data.user, data.item and data.time"
        )
    pandas = is_pandas(frame)
    index = frame.index if pandas else None
    frame = with_index(frame) if pandas else narrow(frame, source)
    names = [str(column) for column in frame.columns]
    if not len(frame):
        raise UserError(f"{source}: it has no rows")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{source}: two columns are called {', '.join(map(repr, twice))}")
    head = frame.head(SAMPLE_ROWS)
    sample = {text: list(head[column].to_list()) for text, column in zip(names, frame.columns, strict=True)}
    chosen = choose_columns(names, sample, wanted, source)

    def where(row: int, column: str) -> str:
        own = f" (index {index[row]!r})" if index is not None else ""
        return f"{source}: row {row}{own}, column {column!r}"

    columns = dict(zip(names, frame.columns, strict=True))
    chunks = {column: [to_arrow(frame[columns[column]], column, source)] for column in chosen.needed}
    return encode_log(chunks, chosen, where, wanted, name=name, source=source, layout="data frame")


def is_pandas(frame: Any) -> bool:
    """True for a data frame of pandas."""
    return bool(nw.dependencies.is_pandas_dataframe(frame))


def with_index(frame: Any) -> Any:
    """A pandas frame whose named index levels are columns too."""
    named = [level for level in frame.index.names if level is not None and level not in frame.columns]
    if frame.columns.nlevels > 1:
        raise UserError("data frame: its columns have several levels; give them one name each")
    return frame.reset_index(level=named) if named else frame


def narrow(frame: Any, source: str) -> nw.DataFrame[Any]:
    """A frame of another library, as narwhals sees it; a lazy one is computed.

    Raises:
        UserError: it is no frame.
    """
    try:
        found = nw.from_native(frame)
    except TypeError:
        raise UserError(
            f"{source}: a {type(frame).__name__} is no data frame; give one of pandas, polars or pyarrow, a file or a name"
        ) from None
    return found.collect() if isinstance(found, nw.LazyFrame) else found


def to_arrow(series: Any, column: str, source: str) -> pa.Array:
    """The values of a column as one Arrow array.

    Raises:
        UserError: it mixes types, or holds what Arrow cannot.
    """
    try:
        array = series.to_arrow() if isinstance(series, nw.Series) else pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # UnicodeError is a ValueError
        text = " ".join(str(error).split())[:160]
        raise UserError(f"{source}: column {column!r} mixes types, or holds what is no id or time: {text}") from None
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    return array.cast(pa.string()) if pa.types.is_string_view(array.type) else array
