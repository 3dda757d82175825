"""A log of interactions as one table of codes: every reader makes it, and `pack` takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from seqcl.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, eq=False, kw_only=True)
class Interactions:
    """T interactions in the order of their source; a code is a place, from 0 on, in the sorted raw ids.

    Args:
        users: code of each interaction's user, (T,) int32.
        items: code of each interaction's item, (T,) int32.
        user_ids: distinct raw ids of the users, sorted: int64, or text if one of them is no plain integer.
        item_ids: distinct raw ids of the items, in the same form.
        times: seconds, (T,) float64; None if the source has only an order.
        name: name of the data set in results.
        source: where the log came from, for messages.
        user_features: table of the users indexed by raw id, if any.
        item_features: table of the items indexed by raw id, if any.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    times: np.ndarray | None = None
    name: str = "log"
    source: str = ""
    user_features: pd.DataFrame | None = None
    item_features: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.users)

    @staticmethod
    def from_frame(
        frame: pd.DataFrame,
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: str | None = "timestamp",
        name: str = "frame",
        user_features: pd.DataFrame | None = None,
        item_features: pd.DataFrame | None = None,
    ) -> Interactions:
        """Read the interactions of a data frame, one for each row.

        Args:
            frame: one row for each interaction; ids are integers or text, times are seconds or datetimes.
            user: column of the user ids.
            item: column of the item ids.
            time: column of the times; None: the order of the rows counts.
            name: name of the data set in results.
            user_features: table of the users indexed by raw id.
            item_features: table of the items indexed by raw id.

        Raises:
            UserError: a column is missing (the nearest are named), or a value is no id or time (row and column are named).
        """
        import pyarrow as pa  # slow to import, and not needed when the packed log comes from the cache

        from seqcl.data.columns import NO_TIME, choose_columns
        from seqcl.data.encode import encode_log

        source = f"data frame {name!r}"
        names = [str(column) for column in frame.columns]
        choose_columns(names, user=user, item=item, time=time or NO_TIME, source=source)
        if frame.empty:
            raise UserError(f"{source}: it has no rows")
        for column, table in ((user, user_features), (item, item_features)):
            if table is not None and column in table.columns:
                raise UserError(
                    f"{source}: a table of features must be indexed by {column!r}: give table.set_index({column!r})"
                )

        def where(row: int, column: str) -> str:
            return f"{source}: row {row} (index {frame.index[row]!r}), column {column!r}"

        def arrow(column: str) -> pa.Array:
            series = frame[column]
            try:
                array = pa.Array.from_pandas(series)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise UserError(f"{source}: column {column!r} mixes types: {error}") from None
            return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array

        chunks = {column: [arrow(column)] for column in (user, item, time) if column}
        log = encode_log(chunks, (user, item, time), where, name=name, source=source)
        return replace(log, user_features=user_features, item_features=item_features)
