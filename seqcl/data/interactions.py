"""A log of interactions as one table of codes: every reader makes it, and `pack` takes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.said import sentence
from seqcl.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


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
        parts: 0 for a row of training, 1 of validation, 2 of the test, (T,) int8, where the split was made elsewhere.
        user_features: table of the users indexed by raw id, if any.
        item_features: table of the items indexed by raw id, if any.
        reading: how the source was read: layout, columns, order, times, rows dropped; JSON values, empty if nothing was read.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    times: np.ndarray | None = None
    name: str = "log"
    source: str = ""
    parts: np.ndarray | None = None
    user_features: pd.DataFrame | None = None
    item_features: pd.DataFrame | None = None
    reading: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def told(self) -> str:
        """One line about how the source was read."""
        return sentence(self.reading, self.name)

    @staticmethod
    def from_frame(
        frame: Any,
        *,
        user: str | None = None,
        item: str | None = None,
        time: str | None = None,
        order: str = "time",
        where: str | None = None,
        min_rating: float | None = None,
        given: bool = False,
        split_column: str | None = None,
        name: str = "frame",
        user_features: pd.DataFrame | None = None,
        item_features: pd.DataFrame | None = None,
    ) -> Interactions:
        """Read the interactions of a data frame: one a row, or a list of items a row.

        Args:
            frame: a frame of pandas, polars or anything else that narwhals knows, or a table of Arrow; ids are integers or
                text, times are seconds or datetimes. A named index of pandas counts as a column.
            user: column of the user ids; None: found by its usual names.
            item: column of the item ids, or of lists of them; None: found by its usual names.
            time: column of the times; None: found by its usual names, else by content.
            order: time, or file: the order of the rows counts, and times are not read.
            where: keep the rows for which this holds, such as "event == 'transaction'".
            min_rating: keep the rows with at least this rating.
            given: the split was made elsewhere: read the part of each row, train, valid or test.
            split_column: column of the parts; None: found by its usual names.
            name: name of the data set in results.
            user_features: table of the users indexed by raw id.
            item_features: table of the items indexed by raw id.

        Raises:
            UserError: a column is missing (the nearest are named), or a value is no id or time (row and column are named).
        """
        from seqcl.data.columns import Wanted  # slow to import, and not needed when the packed log comes from the cache
        from seqcl.data.frames import read_frame

        wanted = Wanted(
            user=user,
            item=item,
            time=time,
            order=order,
            where=where,
            min_rating=min_rating,
            given=given,
            split_column=split_column,
        )
        log = read_frame(frame, wanted, name)
        for column, table in ((log.reading["columns"]["user"], user_features), (log.reading["columns"]["item"], item_features)):  # fmt: skip
            if table is not None and column in table.columns:
                raise UserError(
                    f"{log.source}: a table of features must be indexed by {column!r}: give table.set_index({column!r})"
                )
        return replace(log, user_features=user_features, item_features=item_features)
