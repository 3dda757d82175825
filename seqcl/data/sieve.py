"""Leave rows out of a log: those that a condition excludes, and those without a user. All readers count them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.arrow import null_mask, values_of
from seqcl.data.columns import Chosen, Wanted, Where
from seqcl.data.conditions import Condition
from seqcl.errors import UserError

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "none", "<NA>", "\\N")
"""Text that stands for a missing user."""

MOST_MISSING = 0.1
"""Largest share of rows without a user that are left out; above it the column is probably the wrong one."""

Chunks = dict[str, list[pa.Array]]
"""The values of each column, chunk by chunk."""

NO_USER = "no user"


class Sieve:
    """Tells which rows stay, over one batch of rows after the other, and counts the others by reason.

    Args:
        chosen: what each column is.
        wanted: the condition and the least rating.
        source: where the log came from, for messages.

    Raises:
        UserError: the condition is none.
    """

    def __init__(self, chosen: Chosen, wanted: Wanted, source: str) -> None:
        self.chosen = chosen
        self.source = source
        self.rows = 0
        self.left_out: dict[str, int] = {}
        self.missing: str | None = None  # the place of the first row without a user
        self.reasons: dict[str, Callable[[Chunks], np.ndarray | None]] = {}
        if wanted.where is not None:
            condition = Condition.parse(wanted.where)
            self.reasons[f"not fulfilled: {wanted.where}"] = lambda chunks: (
                ~by_chunk(chunks, condition.names.values(), condition.holds)
            )
        if wanted.min_rating is not None:
            least = Condition.parse(f"`{chosen.rating}` >= {float(wanted.min_rating)!r}")
            self.reasons[f"rating below {wanted.min_rating:g}"] = lambda chunks: (
                ~by_chunk(chunks, [str(chosen.rating)], least.holds)
            )
        self.reasons[NO_USER] = lambda chunks: missing_users(chunks[chosen.user])

    def keep(self, chunks: Chunks, where: Where) -> np.ndarray | None:
        """(T,) bool, true for the rows of a batch that stay; None if all do."""
        kept: np.ndarray | None = None
        self.rows += sum(len(chunk) for chunk in chunks[self.chosen.user])
        for why, find in self.reasons.items():
            bad = find(chunks)
            if bad is None or not bad.any():
                continue
            new = bad if kept is None else bad & kept
            count = int(new.sum())
            if why == NO_USER and count and self.missing is None:
                self.missing = where(int(np.flatnonzero(new)[0]), self.chosen.user)
            self.left_out[why] = self.left_out.get(why, 0) + count
            kept = ~bad if kept is None else kept & ~bad
        return kept

    def dropped(self) -> dict[str, int]:
        """The rows left out of all batches, by reason.

        Raises:
            UserError: no row is left, or too many have no user.
        """
        left, dropped = self.rows, {}
        for why in self.reasons:
            if why not in self.left_out:
                continue
            count = dropped[why] = self.left_out[why]
            if why == NO_USER and count > MOST_MISSING * left:
                others = " or ".join([*self.chosen.others.get("user", []), "another column"])
                raise UserError(
                    f"{self.missing}: the id is missing, as in {count / left:.0%} of the rows; choose {others} with --data.user, or leave these rows out with --data.where"
                )
            left -= count
            if not left:
                raise UserError(f"{self.source}: no row of {self.rows:,} is left ({', '.join(dropped)})")
        return dropped


def by_chunk(chunks: Chunks, names: Any, holds: Callable[[Mapping[str, pa.Array]], pa.Array]) -> np.ndarray:
    """A condition over all chunks: (T,) bool."""
    names = list(names)
    whole = {name: pa.chunked_array(chunks[name]) if len(chunks[name]) > 1 else chunks[name][0] for name in names}
    found = holds(whole)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return values_of(found.cast(pa.uint8()), np.uint8).astype(bool)


def missing_users(chunks: list[pa.Array]) -> np.ndarray | None:
    """(T,) bool, true where a user is null, or text that stands for a missing value; None if no row has such."""
    parts = []
    for chunk in chunks:
        bad = null_mask(chunk) if chunk.null_count else None
        values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
            bad = null_mask(values) if values.null_count and values is not chunk else bad
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            words = pc.is_in(pc.utf8_trim_whitespace(values), pa.array(MISSING, values.type))
            if pc.any(words).as_py():
                words = words.take(chunk.indices).fill_null(False) if values is not chunk else words
                marked = values_of(words.cast(pa.uint8()), np.uint8).astype(bool)
                bad = marked if bad is None else bad | marked
        parts.append(bad)
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(len(chunk), bool) if part is None else part for part, chunk in zip(parts, chunks, strict=True)]
    )
