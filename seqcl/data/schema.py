"""Encode tables of items and users: words as numbers, numbers standardised, vectors as they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqcl.data.cells import Coded, Numeric, all_numbers, distinct, missing, to_bag, words_in
from seqcl.errors import unknown
from seqcl.types import Bag, Features

logger = logging.getLogger("seqcl")

LARGEST = 10.0
"""Distance from the mean, in standard deviations, at which numbers are clipped."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """An encoding of the columns of a table: learned from the rows that training knows, then used for any rows.

    Args:
        words: the known words of each column of words, sorted.
        numbers: mean and standard deviation of each column of numbers.
        vectors: width of each column of vectors.
    """

    words: dict[str, list[str]]
    numbers: dict[str, tuple[float, float]]
    vectors: dict[str, int]

    @classmethod
    def learn(
        cls, columns: Mapping[str, Sequence[Any]], *, min_count: int = 2, kinds: Mapping[str, str] | None = None
    ) -> Schema:
        """Learn a schema from columns of cells.

        A column becomes numbers if its cells are numbers; vectors if it is an array (R, M) or its cells are lists of fractions
        of one length; else words. Text is split at blanks, a list is not.

        Args:
            columns: the cells of each column.
            min_count: drop words that fewer rows have.
            kinds: read a column as words or numbers, whatever its cells are.
        """
        words, numbers, vectors = {}, {}, {}
        for name, column in columns.items():
            kind, different = (kinds or {}).get(name), column.cells if isinstance(column, Coded) else column
            if isinstance(column, np.ndarray) or (kind is None and vector_width(different)):
                vectors[name] = vector_width(column)
            elif kind == "numbers" or (kind is None and all_numbers(different)):
                values = to_numbers(column)
                if not np.isnan(values).all():
                    mean, deviation = float(np.nanmean(values)), float(np.nanstd(values))
                    numbers[name] = (mean, deviation if deviation > 1e-6 * max(1.0, abs(mean)) else 1.0)
            else:
                codes, cells = distinct(column)
                count: Counter[str] = Counter()
                for cell, rows in zip(cells, np.bincount(codes, minlength=len(cells)).tolist(), strict=True):
                    for word in set(words_in(cell)):
                        count[word] += rows
                words[name] = sorted(word for word, rows in count.items() if rows >= min_count)
        return cls(words={name: kept for name, kept in words.items() if kept}, numbers=numbers, vectors=vectors)

    def encode(self, columns: Mapping[str, Sequence[Any]], *, before: int = 0, after: int = 0) -> Features:
        """Encode columns of cells; a log line counts what is missing in each column.

        Values that are missing, do not fit, or are words unknown to the schema are left out.

        Args:
            columns: the cells of each column; columns that the schema does not have are ignored.
            before: rows without values to put before the encoded ones.
            after: rows without values to put after them.

        Raises:
            UserError: a column of the schema is missing; the nearest are named.
        """
        for name in (*self.words, *self.numbers, *self.vectors):
            if name not in columns:
                raise unknown("column", name, columns)
        bags = {name: encode_words(name, columns[name], known, before, after) for name, known in self.words.items()}
        numbers, vectors = {}, {}
        for name, (mean, deviation) in self.numbers.items():
            values = np.clip((to_numbers(columns[name]) - mean) / deviation, -LARGEST, LARGEST)
            numbers[name] = np.pad(values, (before, after), constant_values=np.nan).astype(np.float32)
            logger.info("feature %s: a number; %d of %d rows have none", name, int(np.isnan(values).sum()), len(values))
        for name, width in self.vectors.items():
            found = to_vectors(columns[name], width)
            vectors[name] = np.pad(found, ((before, after), (0, 0)), constant_values=np.nan)
            empty = int(np.isnan(found[:, 0]).sum())
            logger.info("feature %s: a vector of %d numbers; %d of %d rows have none", name, width, empty, len(found))
        return Features(bags=bags, numbers=numbers, vectors=vectors)


def encode_words(name: str, column: Sequence[Any], known: list[str], before: int, after: int) -> Bag:
    """The known words of each cell of a column, between rows without words."""
    number = {word: place for place, word in enumerate(known)}
    codes, cells = distinct(column)
    sets = [set(words_in(cell)) for cell in cells]
    rows = [sorted(number[word] for word in cell if word in number) for cell in sets]
    around = [np.full(count, len(rows)) for count in (before, after)]  # the row after the last one has no words
    encoded = to_bag([*rows, []], known).take(np.concatenate((around[0], codes, around[1])))
    strange = np.array([len(cell - number.keys()) for cell in sets])[codes].sum()
    empty = np.array([not row for row in rows])[codes].sum()
    message = "feature %s: %d words, %d others left out; %d of %d rows have none"
    logger.info(message, name, len(known), strange, empty, len(codes))
    return encoded


def vector_width(cells: Sequence[Any]) -> int:
    """The length that all vectors in a column have; 0 for cells that are no vectors, or of different lengths."""
    if isinstance(cells, np.ndarray):
        return int(cells.shape[1])
    if isinstance(cells, Numeric):
        return 0
    widths = {len(cell) if is_vector(cell) else 0 for cell in cells if not missing(cell)}
    return widths.pop() if len(widths) == 1 else 0


def is_vector(cell: Any) -> bool:
    """True for a non-empty list of fractions."""
    if isinstance(cell, np.ndarray) and cell.dtype.kind == "f":
        return cell.ndim == 1 and len(cell) > 0
    return isinstance(cell, list | tuple | np.ndarray) and len(cell) > 0 and all(isinstance(x, float) for x in cell)


def to_vectors(cells: Sequence[Any], width: int) -> np.ndarray:
    """Turn cells into (R, M) float32; a vector that is missing, of another width or not finite becomes all NaN."""
    if isinstance(cells, np.ndarray):
        found = cells.astype(np.float32)
    else:
        none = np.full(width, np.nan, np.float32)
        found = np.stack(
            [np.asarray(cell, np.float32) if is_vector(cell) and len(cell) == width else none for cell in cells]
        )
    return np.where(np.isfinite(found).all(1, keepdims=True), found, np.nan).astype(np.float32)


def to_numbers(cells: Sequence[Any]) -> np.ndarray:
    """Turn cells into (R,) float64; one that is missing, infinite or no number becomes NaN."""

    if isinstance(cells, Coded):
        return np.append(to_numbers(cells.cells), np.nan)[cells.codes]
    if isinstance(cells, Numeric):
        known = np.where(cells.there, cells.values, np.nan).astype(np.float64, copy=False)
        return np.where(np.isfinite(known), known, np.nan)

    def number(cell: Any) -> float:
        try:
            return np.nan if missing(cell) else float(cell)
        except (TypeError, ValueError):
            return np.nan

    values = np.array([number(cell) for cell in cells])
    return np.where(np.isfinite(values), values, np.nan)
