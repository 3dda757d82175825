"""What is known of items and users, encoded: words as numbers, numbers standardised, vectors as they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.cells import bag, cells_of, distinct, listed, missing, numeric, split
from seqcl.data.tables import read_columns
from seqcl.errors import UserError, unknown
from seqcl.types import Features

if TYPE_CHECKING:
    from seqcl.data.sequences import Sequences

log = logging.getLogger("seqcl")

KINDS = ("words", "numbers")
"""What a column may be read as, behind its name."""

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
    def learn(
        cls, columns: Mapping[str, Sequence[Any]], *, min_count: int = 2, kinds: Mapping[str, str] | None = None
    ) -> Schema:
        """The schema of columns of cells; words of fewer than `min_count` rows tell nothing and are not kept.

        Numbers are numbers, arrays (R, M) and lists of fractions of one length are vectors, all else is words: text is split at
        blanks, a list of text is not. `kinds` says of a column that it is words or numbers, whatever its cells are.
        """
        words, numbers, vectors = {}, {}, {}
        for name, column in columns.items():
            kind = (kinds or {}).get(name)
            if isinstance(column, np.ndarray) or (kind is None and vector_width(column)):
                vectors[name] = vector_width(column)
            elif kind == "numbers" or (kind is None and numeric(column)):
                values = to_numbers(column)
                if not np.isnan(values).all():
                    mean, deviation = float(np.nanmean(values)), float(np.nanstd(values))
                    numbers[name] = (mean, deviation if deviation > 1e-6 * max(1.0, abs(mean)) else 1.0)
            else:
                codes, cells = distinct(column)
                count: Counter[str] = Counter()
                for cell, rows in zip(cells, np.bincount(codes, minlength=len(cells)).tolist(), strict=True):
                    for word in set(split(cell)):
                        count[word] += rows
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
        for name, known in self.words.items():
            number = {word: place for place, word in enumerate(known)}
            codes, cells = distinct(columns[name])
            sets = [set(split(cell)) for cell in cells]
            rows = [sorted(number[word] for word in cell if word in number) for cell in sets]
            around = [np.full(count, len(rows)) for count in (before, after)]  # the row behind the last has no words
            bags[name] = bag([*rows, []], known).take(np.concatenate((around[0], codes, around[1])))
            strange = np.array([len(cell - number.keys()) for cell in sets])[codes].sum()
            empty = np.array([not row for row in rows])[codes].sum()
            log.info(
                "feature %s: %d words, %d others left out; %d of %d rows have none",
                name,
                len(known),
                strange,
                empty,
                len(codes),
            )
        for name, (mean, deviation) in self.numbers.items():
            values = np.clip((to_numbers(columns[name]) - mean) / deviation, -LARGEST, LARGEST)
            numbers[name] = np.pad(values, (before, after), constant_values=np.nan).astype(np.float32)
            log.info("feature %s: a number; %d of %d rows have none", name, int(np.isnan(values).sum()), len(values))
        for name, width in self.vectors.items():
            found = to_vectors(columns[name], width)
            vectors[name] = np.pad(found, ((before, after), (0, 0)), constant_values=np.nan)
            empty = int(np.isnan(found[:, 0]).sum())
            log.info("feature %s: %d numbers; %d of %d rows have none", name, width, empty, len(found))
        return Features(bags=bags, numbers=numbers, vectors=vectors)


def vector_width(cells: Sequence[Any]) -> int:
    """How many numbers every cell has that has any; 0 where cells are something else."""
    if isinstance(cells, np.ndarray):
        return int(cells.shape[1])
    widths = {len(cell) if is_vector(cell) else 0 for cell in cells if not missing(cell)}
    return widths.pop() if len(widths) == 1 else 0


def is_vector(cell: Any) -> bool:
    """Whether a cell is a list of fractions."""
    if isinstance(cell, np.ndarray) and cell.dtype.kind == "f":
        return cell.ndim == 1 and len(cell) > 0
    return isinstance(cell, list | tuple | np.ndarray) and len(cell) > 0 and all(isinstance(x, float) for x in cell)


def to_vectors(cells: Sequence[Any], width: int) -> np.ndarray:
    """Cells as (R, M) float32, a row being all NaN where it is missing, of another width or not finite."""
    if isinstance(cells, np.ndarray):
        found = cells.astype(np.float32)
    else:
        none = np.full(width, np.nan, np.float32)
        found = np.stack(
            [np.asarray(cell, np.float32) if is_vector(cell) and len(cell) == width else none for cell in cells]
        )
    return np.where(np.isfinite(found).all(1, keepdims=True), found, np.nan).astype(np.float32)


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
    sequences: Sequences,
    which: str,
    known: np.ndarray,
    columns: str | None = None,
    *,
    table: str | None = None,
    min_count: int = 2,
) -> Features:
    """The features of a packed log's items (PAD, 1..N, MASK) or users (0..U - 1, and somebody unknown).

    Args:
        sequences: the packed log.
        which: items or users.
        known: (N,) or (U,) bool, the items or users that training knows, from which words, means and deviations come.
        columns: names separated by commas, each with :words or :numbers behind it where it is to be read as these; None: all.
        table: a file that says more than the log does, or otherwise where both have a column.
        min_count: rows that must have a word for it to be kept.

    Raises:
        UserError: no such column or file.
    """
    raw, own = {
        "items": (sequences.item_ids, sequences.item_features),
        "users": (sequences.user_ids, sequences.user_features),
    }[which]
    source = f"the table of {which} of {sequences.name}"
    asked = [] if columns is None else [name.strip() for name in columns.split(",")]
    kinds = {name: kind for name, _, kind in (name.rpartition(":") for name in asked) if kind in KINDS and name}
    cells: dict[str, Sequence[Any]] = {} if own is None else dict(cells_of(own, raw, source))
    if table is not None:
        as_words = [name for name, kind in kinds.items() if kind == "words"]
        cells |= read_columns(Path(table).expanduser(), raw, which, as_words)
        source = f"{source} and {table}"
    if columns is not None:
        if not cells:
            raise UserError(f"{source}: there is none, so that it has no column {columns!r}")
        plain = [name.rpartition(":")[0] if name.rpartition(":")[0] in kinds else name for name in asked]
        cells = {name: cells[name] for name in listed(",".join(plain), cells, source)}
    if not cells:
        return Features(bags={}, numbers={}, vectors={})
    rows = np.flatnonzero(known)
    trained = {name: part_of(column, rows) for name, column in cells.items()}
    around = {"before": 1, "after": 1} if which == "items" else {"after": 1}
    schema = Schema.learn(trained, min_count=min_count, kinds=kinds)
    for name in cells.keys() - {*schema.words, *schema.numbers, *schema.vectors}:
        nothing = (
            f"column {name!r} says nothing: no word of it is in {min_count} rows that training knows, and no number"
        )
        if columns is not None:
            raise UserError(f"{source}: {nothing}")
        log.info("%s: %s", source, nothing)
    return schema.encode(cells, **around)


def part_of(column: Sequence[Any], rows: np.ndarray) -> Sequence[Any]:
    """Some rows of a column; of vectors, whose width is all that is learned, the first."""
    return column[rows[:1]] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]
