"""The packed log: one int32 array of items with offsets, built once and then mapped into memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.said import sentence
from seqcl.data.sealed import seal, unsealed
from seqcl.data.tables import load_table
from seqcl.disk import whole_folder
from seqcl.errors import UserError
from seqcl.mapped import blocks, let_go, mapped_array, stretches
from seqcl.types import Tables

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 1
"""Version of the packed layout; another version gives other fingerprints and other cache entries."""

ARRAYS = ("items", "offsets", "times", "user_ids", "item_ids", "parts")
OPTIONS = ("k_core", "duplicates", "min_length")
FACTS = ("name", "fingerprint", *OPTIONS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sequences:
    """The items of U users in time order, ids 1..N: user u (0-based) owns items[offsets[u]:offsets[u + 1]].

    Ids follow the sorted raw ids, so the same log gives the same arrays in any format and any order of rows.

    Args:
        items: (T,) int32, 1..N.
        offsets: (U + 1,) int64.
        times: seconds, (T,) float64, or None.
        user_ids: raw id of user u is user_ids[u]; sorted, int64 or fixed-width text.
        item_ids: raw id of item j is item_ids[j - 1]; sorted.
        name: name of the data set in results.
        fingerprint: sha256 over the arrays above and the three options below; it leaves out the feature tables.
        k_core: every user and every item has at least this many interactions.
        duplicates: keep, first or last; see `pack`.
        min_length: every user has at least this many interactions.
        user_table: features of users as a frame indexed by raw id, or the Parquet file that holds it.
        item_table: features of items, in the same form.
        reading: how the source was read, as in `Interactions`.
        parts: 0 for an interaction of training, 1 of validation, 2 of the test, (T,) int8, where the split was made elsewhere.
        place: the folder that the log was loaded from, whose files never change; None for one in memory, or without hashes.
    """

    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    name: str
    fingerprint: str
    k_core: int = 0
    duplicates: str = "keep"
    min_length: int = 1
    user_table: pd.DataFrame | Path | None = None
    item_table: pd.DataFrame | Path | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    parts: np.ndarray | None = None
    place: Path | None = None

    def __str__(self) -> str:
        sizes = f"{self.num_users:,} users, {self.num_items:,} items, {self.num_interactions:,} interactions"
        return f"{self.name} ({sizes})"

    @property
    def told(self) -> str:
        """One line about how the source was read."""
        return sentence(self.reading, self.name)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        return len(self.items)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, in memory or on disk."""
        return sum(array.nbytes for field in ARRAYS if (array := getattr(self, field)) is not None)

    @property
    def tables(self) -> Tables:
        """The feature tables with the raw ids that find their rows, for windows over this log."""
        return Tables(
            name=self.name,
            user_ids=self.user_ids,
            item_ids=self.item_ids,
            users=self.user_table,
            items=self.item_table,
        )

    @cached_property
    def user_features(self) -> pd.DataFrame | None:
        """Features of users indexed by raw id, read at the first use."""
        return load_table(self.user_table)

    @cached_property
    def item_features(self) -> pd.DataFrame | None:
        """Features of items indexed by raw id, read at the first use."""
        return load_table(self.item_table)

    def row(self, user: int) -> np.ndarray:
        """The items of a user (0-based), oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def find_user(self, raw: object) -> int:
        """The 0-based row of the user with a raw id.

        Raises:
            UserError: no user has this id.
        """
        return find(self.user_ids, raw, "user", self.name)

    def find_item(self, raw: object) -> int:
        """The id 1..N of the item with a raw id.

        Raises:
            UserError: no item has this id.
        """
        return find(self.item_ids, raw, "item", self.name) + 1

    def history(self, raw: object) -> np.ndarray:
        """The items (ids 1..N) of the user with a raw id, oldest first.

        Raises:
            UserError: no user has this id.
        """
        return self.row(self.find_user(raw))

    def encode(self, raws: Iterable[object]) -> np.ndarray:
        """The ids 1..N of the items with the given raw ids, (n,) int32.

        Raises:
            UserError: no item has one of the ids, or no id is given.
        """
        ids = [self.find_item(raw) for raw in raws]
        if not ids:
            raise UserError("no items are given")
        return np.array(ids, np.int32)

    def save(self, place: str | Path) -> None:
        """Write a folder of .npy files, features as Parquet and a meta.json with their hashes; it appears whole or not at all.

        Raises:
            UserError: the disk is full, the folder cannot be written, or a feature table cannot be stored.
        """
        place = Path(place)
        try:
            with whole_folder(place) as folder:
                for field in ARRAYS:
                    array = getattr(self, field)
                    if array is not None:
                        np.save(folder / f"{field}.npy", array, allow_pickle=False)
                self.finish(folder)
        except (OSError, ValueError, TypeError) as error:  # Arrow raises the last two for a table that it cannot store
            raise UserError(f"{place}: the packed log cannot be written: {error}") from None

    def finish(self, folder: Path) -> None:
        """Write the features and the meta.json into a folder that holds the arrays.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
            ValueError: a feature table cannot be stored; so does TypeError.
        """
        meta: dict[str, Any] = {"layout": LAYOUT, "arrays": {}, "tables": [], "reading": self.reading}
        meta |= {field: getattr(self, field) for field in FACTS}
        arrays = {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}
        meta["arrays"] = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
        for name, table in (("user_table", self.user_features), ("item_table", self.item_features)):
            if table is not None:  # pandas would open a path of its own
                (folder / f"{name}.parquet").write_bytes(table.to_parquet())
                meta["tables"].append(name)
        seal(folder, meta)

    @classmethod
    def load(cls, place: str | Path) -> Sequences:
        """Open a folder that `save` wrote; arrays are mapped read-only from disk, features are read at their first use.

        Every file is compared with its hash. Version 0.1.0 wrote none: there the arrays are compared with the fingerprint.

        Raises:
            UserError: a file is missing or is not as it was written.
        """
        place = Path(place)
        try:
            meta = unsealed(place)
            if meta["layout"] != LAYOUT:
                raise ValueError(f"it has layout {meta['layout']}, and this version of seqcl reads layout {LAYOUT}")
            values: dict[str, Any] = {field: None for field in ARRAYS} | {field: meta[field] for field in FACTS}
            for field, (kind, shape) in meta["arrays"].items():
                array = mapped_array(place / f"{field}.npy")
                if array.dtype.str != kind or list(array.shape) != shape:
                    raise ValueError(f"{field}.npy is not as it was written")
                values[field] = array
            for field in meta["tables"]:
                values[field] = place / f"{field}.parquet"
                values[field].stat()
            sealed = "files" in meta
            if not sealed and fingerprint(values) != values["fingerprint"]:
                raise ValueError("the arrays are not those of the fingerprint")
            return cls(**values, reading=dict(meta.get("reading", {})), place=place if sealed else None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, OverflowError) as error:
            raise UserError(f"{place}: no packed log to use: {type(error).__name__}: {error}") from None

    def stats(self) -> dict[str, Any]:
        """Sizes, row lengths, sparsity, repeats and the time span (seconds; None without times)."""
        sizes = np.diff(self.offsets)
        counts = np.zeros(self.num_items + 1, np.int64)
        distinct = 0
        for own, begin, end in stretches(self.offsets):
            items = self.items[begin:end]
            counts += np.bincount(items, minlength=self.num_items + 1)
            owner = np.repeat(np.arange(own.stop - own.start), sizes[own])
            distinct += len(np.unique(owner * np.int64(self.num_items + 1) + items))
            let_go(self.items)
        counts = counts[1:]
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "users": self.num_users,
            "items": self.num_items,
            "interactions": self.num_interactions,
            "length_mean": float(sizes.mean()),
            "length_median": float(np.median(sizes)),
            "length_min": int(sizes.min()),
            "length_max": int(sizes.max()),
            "item_count_median": float(np.median(counts)),
            "item_count_max": int(counts.max()),
            "sparsity": 1.0 - distinct / (self.num_users * self.num_items),
            "repeats": 1.0 - distinct / self.num_interactions,
            "first_time": None if self.times is None else float(self.times.min()),
            "last_time": None if self.times is None else float(self.times.max()),
            "k_core": self.k_core,
            "duplicates": self.duplicates,
            "min_length": self.min_length,
        }


def fingerprint(values: Mapping[str, Any]) -> str:
    """The sha256, in hex, of the content of the arrays and of the options of packing."""
    options = {option: values[option] for option in OPTIONS}
    digest = hashlib.sha256(json.dumps([LAYOUT, options], sort_keys=True).encode())
    for name in sorted(ARRAYS):
        array = values[name]
        if array is not None:
            digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
            for begin, end in blocks(len(array)):
                digest.update(np.ascontiguousarray(array[begin:end]).view(np.uint8).data)
                let_go(array)
    return digest.hexdigest()


def find(ids: np.ndarray, raw: object, kind: str, name: str) -> int:
    """Find the place of a raw id among sorted ids; the text "7" finds the integer 7, and the integer 7 finds the text "7".

    Raises:
        UserError: the id is not among them; the first ids are named.
    """
    key: Any = None
    if ids.dtype.kind == "i":
        text = str(raw).strip()
        key = int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else None
    else:
        key = str(raw)
    if key is not None and not (isinstance(key, int) and abs(key) >= 2**63):
        place = int(np.searchsorted(ids, key))
        if place < len(ids) and ids[place] == key:
            return place
    raise UserError(f"{name} has no {kind} {raw!r}; ids are such as {', '.join(str(known) for known in ids[:3])}")
