"""Columns of raw ids become codes, by the same rules in every reader, so that all readers give the same log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqcl.data.arrow import null_mask, values_of
from seqcl.data.columns import Where
from seqcl.errors import UserError

MAX_ID_LENGTH = 256
"""Most characters of an id: ids are kept as fixed-width text, so one long id would widen them all."""


def encode_ids(chunks: Iterable[pa.Array], column: str, where: Where) -> tuple[np.ndarray, np.ndarray]:
    """Encode a column of raw ids: codes (T,) int32, and the sorted distinct ids that they point into.

    Ids are int64 if every one is a plain integer, else text.

    Raises:
        UserError: an id is empty, missing or too long, an integer past 64 bits, a fraction, or of a type that cannot be an id.
    """
    encoded = []
    row = 0
    for chunk in chunks:
        encoded.append(to_dictionary(chunk, column, where, row))
        row += len(chunk)
    if len({array.type for array in encoded}) > 1:  # parts of one log have different types; text holds both
        text = pa.dictionary(pa.int32(), pa.string())
        encoded = [pa.DictionaryArray.from_arrays(a.indices, a.dictionary.cast(pa.string())) for a in encoded]
        assert all(array.type == text for array in encoded)
    unified = pa.chunked_array(encoded).unify_dictionaries().chunks
    codes = np.empty(row, np.int32)
    row = 0
    for array in unified:
        codes[row : row + len(array)] = values_of(array.indices, np.int32)
        row += len(array)
    raw = unified[-1].dictionary

    def refuse(index: int, why: str) -> NoReturn:
        raise UserError(f"{where(int(np.flatnonzero(codes == index)[0]), column)}: {why}")

    used = np.bincount(codes, minlength=len(raw)) > 0  # a categorical column may list values that no row has
    ids, place = np.unique(plain_ids(raw, column, used, refuse), return_inverse=True)
    sparse = np.zeros(len(raw), np.int32)
    sparse[used] = place.reshape(-1)
    return np.take(sparse, codes, out=codes, mode="clip"), ids


class Codes:
    """Codes of raw ids in the order in which they are first seen, over one chunk of a column after the other.

    `sorted_ids` gives in the end what `encode_ids` gives for the whole column. Memory grows with the different ids alone.

    Args:
        column: name of the column, for messages.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.raw: pa.Array | None = None  # the different ids, by code
        self.counts = np.zeros(0, np.int64)  # rows of each

    def add(self, chunk: pa.Array, where: Where) -> np.ndarray:
        """Codes of the ids in a chunk, (T,) int32.

        Raises:
            UserError: as `to_dictionary`.
        """
        coded = to_dictionary(plain_chunk(chunk), self.column, where, 0)
        values = coded.dictionary  # all different, and all used
        if self.raw is None:
            self.raw = values[:0]
        if values.type != self.raw.type:  # parts of one log have different types; text holds both
            values, self.raw = values.cast(pa.string()), self.raw.cast(pa.string())
        codes = pc.index_in(values, value_set=self.raw)
        fresh = codes.is_null()
        found = values_of(codes, np.int32).copy()
        found[null_mask(codes)] = len(self.raw) + np.arange(codes.null_count)
        self.raw = pa.concat_arrays([self.raw, values.filter(fresh)])
        if len(self.raw) > len(self.counts):
            self.counts = np.concatenate((self.counts, np.zeros(2 * len(self.raw) - len(self.counts), np.int64)))
        indices = values_of(coded.indices, np.int32)
        self.counts[found] += np.bincount(indices, minlength=len(found))
        return found[indices]

    def sorted_ids(self, refuse: Callable[[int, str], NoReturn]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The place of each code among the sorted ids, int32; these ids; and the rows of each.

        Args:
            refuse: raises the error about the id with a code.
        """
        assert self.raw is not None
        ids, place = np.unique(
            plain_ids(self.raw, self.column, np.ones(len(self.raw), bool), refuse), return_inverse=True
        )
        place = place.reshape(-1).astype(np.int32)
        counts = np.zeros(len(ids), np.int64)
        np.add.at(counts, place, self.counts[: len(place)])  # " a" and "a" are one id
        return place, ids, counts

    def row_of(self, code: int, chunk: pa.Array, where: Where) -> int | None:
        """The first row of a chunk that has the id with a code; None if none has."""
        assert self.raw is not None
        coded = to_dictionary(plain_chunk(chunk), self.column, where, 0)
        index = pc.index(coded.dictionary.cast(self.raw.type), self.raw[code]).as_py()
        return None if index < 0 else int(np.flatnonzero(values_of(coded.indices, np.int32) == index)[0])


def plain_chunk(chunk: pa.Array) -> pa.Array:
    """A chunk without a dictionary of its own, which might list an id twice, or one that no row has."""
    return chunk.dictionary_decode() if isinstance(chunk, pa.DictionaryArray) else chunk


def to_dictionary(chunk: pa.Array, column: str, where: Where, row: int) -> pa.DictionaryArray:
    """Encode a chunk as a dictionary array: int32 indices into int64 or text values; `row` is the chunk's first row."""
    if isinstance(chunk, pa.DictionaryArray) and (
        chunk.dictionary.null_count or pa.types.is_floating(chunk.dictionary.type)
    ):
        chunk = chunk.dictionary_decode()
    if chunk.null_count:
        missing = int(np.flatnonzero(null_mask(chunk))[0])
        raise UserError(f"{where(row + missing, column)}: the id is missing" + way_out(column, "{0} == {0}"))
    if isinstance(chunk, pa.DictionaryArray):
        indices, values = chunk.indices.cast(pa.int32()), chunk.dictionary
    else:
        indices, values = None, chunk
    kind = values.type
    if pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        number = values_of(values, np.float64)
        bad = ~((number == np.floor(number)) & (np.abs(number) < 2.0**53))
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"{where(row + index, column)}: {number[index]} is not a whole number, so it cannot be an id"
            )
        values = values.cast(pa.int64())
    elif pa.types.is_uint64(kind) or pa.types.is_decimal(kind):
        values = values.cast(pa.string())  # plain_ids turns them into integers, or names the one that does not fit
    elif pa.types.is_integer(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        try:
            values = values.cast(pa.string())
            values.validate(full=True)
        except pa.ArrowInvalid:
            raise UserError(f"{where(row, column)}: this or a later id is not UTF-8 text") from None
    else:
        raise UserError(f"{where(row, column)}: a column of type {kind} cannot hold ids")
    if indices is not None:
        return pa.DictionaryArray.from_arrays(indices, values)
    return values.dictionary_encode()


def way_out(column: str, condition: str) -> str:
    """Say how rows are left out that do not fulfil a condition on a column."""
    name = column if column.isidentifier() else f"`{column}`"
    return f'; leave such rows out with --data.where "{condition.format(name)}"'


def plain_ids(raw: pa.Array, column: str, used: np.ndarray, refuse: Callable[[int, str], NoReturn]) -> np.ndarray:
    """The used values of a dictionary: int64 if all are plain integers without leading zeros, else text."""
    rows = np.flatnonzero(used)
    if len(rows) < len(raw):
        raw = raw.take(pa.array(rows))
    if pa.types.is_integer(raw.type):
        return values_of(raw, np.int64)
    written, raw = raw, pc.utf8_trim_whitespace(raw)
    lengths = values_of(pc.utf8_length(raw), np.int32)
    if lengths.min() == 0:
        empty = int(lengths.argmin())
        refuse(int(rows[empty]), "the id is empty" + way_out(column, f"{{0}} != {written[empty].as_py()!r}"))
    if pc.any(nul := pc.match_substring(raw, "\0")).as_py():  # fixed-width text would lose it and merge two ids
        refuse(int(rows[nul.index(True).as_py()]), "the id holds a NUL character")
    if pc.all(pc.match_substring_regex(raw, r"^(0|-?[1-9][0-9]*)(\.0+)?$")).as_py():
        raw = pc.replace_substring_regex(raw, r"\.0+$", "")  # 7.0 is 7, as in columns of fractions
    else:
        if lengths.max() > MAX_ID_LENGTH:
            refuse(int(rows[lengths.argmax()]), f"the id is {lengths.max():,} characters long; at most {MAX_ID_LENGTH}")
        return np.array(raw.to_pylist(), np.str_)
    try:
        return values_of(raw.cast(pa.int64()), np.int64)
    except pa.ArrowInvalid:
        texts = [str(text) for text in raw.to_pylist()]
        huge = next(i for i, text in enumerate(texts) if len(text) > 20 or not -(2**63) <= int(text) < 2**63)
        refuse(int(rows[huge]), f"the id {texts[huge][:40]} does not fit 64 bits; put a letter in front of such ids")
