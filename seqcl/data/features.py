"""What is known of items and users, encoded: words as numbers, numbers standardised, vectors as they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.attributes import bag, cells_of, listed, missing, numeric, split
from seqcl.errors import unknown
from seqcl.types import Features

if TYPE_CHECKING:
    from seqcl.data.sequences import Sequences

log = logging.getLogger("seqcl")

LARGEST = 10.0
"""Deviations from the mean past which a number is cut off."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How a table is encoded: learned from the rows that training knows, and good for any rows after that.

    Args:
        words: the words of each column of words; a row has some of them, or none.
        numbers: mean and deviation of each column of numbers.
        vectors: width of each column of vectors.
    """

    words: dict[str, list[str]]
    numbers: dict[str, tuple[float, float]]
    vectors: dict[str, int]

    @classmethod
    def learn(cls, columns: Mapping[str, Sequence[Any]], *, min_count: int = 2) -> Schema:
        """The schema of columns of cells; words of fewer than `min_count` rows tell nothing and are not kept.

        Numbers are numbers, lists of fractions of one length are vectors, all else is words: text is split at blanks, a list of
        text is not.
        """
        words, numbers, vectors = {}, {}, {}
        for name, column in columns.items():
            if width := vector_width(column):
                vectors[name] = width
            elif numeric(column):
                values = to_numbers(column)
                if not np.isnan(values).all():
                    mean, deviation = float(np.nanmean(values)), float(np.nanstd(values))
                    numbers[name] = (mean, deviation if deviation > 1e-6 * max(1.0, abs(mean)) else 1.0)
            else:
                count = Counter(word for cell in column for word in set(split(cell)))
                words[name] = sorted(word for word, rows in count.items() if rows >= min_count)
        return cls(words={name: kept for name, kept in words.items() if kept}, numbers=numbers, vectors=vectors)

    def encode(self, columns: Mapping[str, Sequence[Any]], *, before: int = 0, after: int = 0) -> Features:
        """The rows of columns of cells, with rows that know nothing before and after them.

        What is missing, does not fit, or was not there when the schema was learned, is left out, and counted in the log.

        Raises:
            UserError: a column is not there.
        """
        for name in (*self.words, *self.numbers, *self.vectors):
            if name not in columns:
                raise unknown("column", name, columns)
        bags, numbers, vectors = {}, {}, {}
        none: list[list[int]] = [[]]
        for name, known in self.words.items():
            number = {word: place for place, word in enumerate(known)}
            cells = [set(split(cell)) for cell in columns[name]]
            rows = [sorted(number[word] for word in cell if word in number) for cell in cells]
            bags[name] = bag(none * before + rows + none * after, known)
            strange = sum(len(cell - number.keys()) for cell in cells)
            empty = sum(not row for row in rows)
            log.info(
                "feature %s: %d words, %d others left out; %d of %d rows have none",
                name,
                len(known),
                strange,
                empty,
                len(rows),
            )
        for name, (mean, deviation) in self.numbers.items():
            values = np.clip((to_numbers(columns[name]) - mean) / deviation, -LARGEST, LARGEST)
            numbers[name] = np.pad(values, (before, after), constant_values=np.nan).astype(np.float32)
            log.info("feature %s: a number; %d of %d rows have none", name, int(np.isnan(values).sum()), len(values))
        for name, width in self.vectors.items():
            found = np.stack([vector(cell, width) for cell in columns[name]])
            vectors[name] = np.pad(found, ((before, after), (0, 0)), constant_values=np.nan)
            empty = int(np.isnan(found[:, 0]).sum())
            log.info("feature %s: %d numbers; %d of %d rows have none", name, width, empty, len(found))
        return Features(bags=bags, numbers=numbers, vectors=vectors)


def vector_width(cells: Sequence[Any]) -> int:
    """How many numbers every cell has that has any; 0 where cells are something else."""
    widths = {len(cell) if is_vector(cell) else 0 for cell in cells if not missing(cell)}
    return widths.pop() if len(widths) == 1 else 0


def is_vector(cell: Any) -> bool:
    """Whether a cell is a list of fractions."""
    if isinstance(cell, np.ndarray) and cell.dtype.kind == "f":
        return cell.ndim == 1 and len(cell) > 0
    return isinstance(cell, list | tuple | np.ndarray) and len(cell) > 0 and all(isinstance(x, float) for x in cell)


def vector(cell: Any, width: int) -> np.ndarray:
    """A cell as (M,) float32, all NaN where it is missing, of another width or not finite."""
    found = np.asarray(cell, np.float32) if is_vector(cell) else np.empty(0, np.float32)
    return found if found.shape == (width,) and np.isfinite(found).all() else np.full(width, np.nan, np.float32)


def to_numbers(cells: Sequence[Any]) -> np.ndarray:
    """Cells as (R,) float64, NaN where one is missing, infinite or no number."""

    def number(cell: Any) -> float:
        try:
            return np.nan if missing(cell) else float(cell)
        except (TypeError, ValueError):
            return np.nan

    values = np.array([number(cell) for cell in cells])
    return np.where(np.isfinite(values), values, np.nan)


def table_features(
    sequences: Sequences, which: str, known: np.ndarray, columns: str | None = None, *, min_count: int = 2
) -> Features:
    """The features of a packed log's items (PAD, 1..N, MASK) or users (0..U - 1, and somebody unknown).

    Args:
        sequences: the packed log.
        which: items or users.
        known: (N,) or (U,) bool, the items or users that training knows, from which words, means and deviations come.
        columns: names separated by commas; None: all of the table.
        min_count: rows that must have a word for it to be kept.

    Raises:
        UserError: no such column.
    """
    raw, table = {
        "items": (sequences.item_ids, sequences.item_features),
        "users": (sequences.user_ids, sequences.user_features),
    }[which]
    if table is None:
        return Features(bags={}, numbers={}, vectors={})
    source = f"the table of {which} of {sequences.name}"
    if columns is not None:
        names = listed(columns, map(str, table.columns), source)
        table = table.iloc[:, [number for number, name in enumerate(table.columns) if str(name) in names]]
    cells = cells_of(table, raw, source)
    trained = {name: [cell for cell, kept in zip(column, known, strict=True) if kept] for name, column in cells.items()}
    around = {"before": 1, "after": 1} if which == "items" else {"after": 1}
    return Schema.learn(trained, min_count=min_count).encode(cells, **around)
