"""Histories to recommend for: of users of a run's own log, or of a file with the interactions of anyone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqcl.data import Sequences
from seqcl.data.packing import time_order
from seqcl.data.raw_ids import lines_of, same_ids, such
from seqcl.data.windows import stretch_positions
from seqcl.disk import read_text
from seqcl.errors import UserError
from seqcl.experiment.folder import log

CHUNK = 1 << 16
"""Users whose histories are looked at together."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Histories:
    """The histories of U users, of which some are asked for; user u owns items[offsets[u]:offsets[u + 1]], oldest first.

    Args:
        items: (T,) numbers of items, as `ids` reads them; may be mapped from disk.
        offsets: (U + 1,) int64.
        user_ids: (U,) raw ids.
        rows: (n,) the users that are asked for, in the order of their lists.
        ids: (M + 1,) the model's id 1..N of each item, 0 for an item that it does not know; None: they are its own.
        own: the users are those of the model's log, so it may know more of them than their items.
        fingerprint: hex digits that change with any of these.
        told: one line about how a file was read; empty where none was.
    """

    items: np.ndarray
    offsets: np.ndarray
    user_ids: np.ndarray
    rows: np.ndarray
    ids: np.ndarray | None = None
    own: bool = False
    fingerprint: str
    told: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The histories of rows[first:last], without items that the model does not know.

        Returns:
            The users (n,), their items one after the other (t,), and where those of each begin and end (n + 1,).
        """
        users = self.rows[first:last]
        where, owner = stretch_positions(self.offsets[users], self.offsets[users + 1])
        items = self.items[where]
        if self.ids is not None:
            items = self.ids[items]
            owner, items = owner[items > 0], items[items > 0]
        sizes = np.bincount(owner, minlength=len(users))
        return users, items, np.concatenate(([0], np.cumsum(sizes)))


def of_log(sequences: Sequences, users: Path | None = None) -> Histories:
    """The whole histories of all users of a log, in the order of their ids, or of those that a file names, in its order.

    Args:
        sequences: the log.
        users: a text file with one raw id a line; ids that are not in the log are counted in a warning.

    Raises:
        UserError: the file cannot be read, or the log has none of its users.
    """
    rows, fingerprint = np.arange(sequences.num_users), sequences.fingerprint
    if users is not None:
        named = lines_of(read_text(users))
        found = same_ids(np.array(named, np.str_), sequences.user_ids)  # (n,)
        rows = found[found >= 0]
        missed = np.flatnonzero(found < 0)
        if not len(rows):
            raise UserError(f"{users}: {sequences.name} has none of its {len(named):,} users{such(named, missed)}")
        if len(missed):
            log.warning(
                "%s: %s has no user for %d of %d ids, which get no list%s",
                *(users, sequences.name, len(missed), len(named), such(named, missed)),
            )
        fingerprint = digest(fingerprint, rows)
    return of_rows(sequences, rows, fingerprint)


def of_rows(sequences: Sequences, rows: np.ndarray, fingerprint: str = "") -> Histories:
    """The whole histories of users (n,) of a log, by their rows in it."""
    return Histories(
        items=sequences.items,
        offsets=sequences.offsets,
        user_ids=sequences.user_ids,
        rows=rows,
        own=True,
        fingerprint=fingerprint,
    )


def of_file(source: Path, item_ids: np.ndarray, **options: Any) -> Histories:
    """The histories in a file of interactions, of any layout, or in a folder with a packed log, which stays on disk.

    Items that the model does not know are left out; these, and users who have no other items, are counted in a warning.

    Args:
        source: the file or folder.
        item_ids: (N,) raw ids of the model's items, sorted.
        options: as in `seqcl.data.read`.

    Raises:
        UserError: the file cannot be read, or the model knows none of its items.
    """
    whole, theirs = packed(source) if (source / "meta.json").is_file() else read_in(source, options)
    ids = np.concatenate(([0], same_ids(theirs, item_ids) + 1))  # (M + 1,)
    whole = replace(whole, ids=ids)
    sizes = np.concatenate(list(known_sizes(whole)))  # (U,)
    if not sizes.any():
        raise UserError(f"{source}: none of its {len(theirs):,} items is known{such(theirs, np.arange(len(theirs)))}")
    missed, total = np.flatnonzero(ids[1:] == 0), len(whole.items)
    if lost := total - int(sizes.sum()):
        text = "%s: %d of %d items are not known, and left out of the histories, %d of %d interactions%s"
        log.warning(text, source, len(missed), len(theirs), lost, total, such(theirs, missed))
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        text = "%s: %d of %d users have no item that is known, and get no list%s"
        log.warning(text, source, len(empty), len(sizes), such(whole.user_ids, empty))
    return replace(whole, rows=np.flatnonzero(sizes))


def packed(place: Path) -> tuple[Histories, np.ndarray]:
    """The histories of a packed log, mapped from disk, and the raw ids of their items.

    Raises:
        UserError: it is not as it was written.
    """
    found = Sequences.load(place)
    whole = Histories(
        items=found.items,
        offsets=found.offsets,
        user_ids=found.user_ids,
        rows=np.arange(found.num_users),
        fingerprint=found.fingerprint,
    )
    return whole, found.item_ids


def read_in(source: Path, options: Mapping[str, Any]) -> tuple[Histories, np.ndarray]:
    """The histories of a file or folder, in memory, and the raw ids of their items.

    Raises:
        UserError: it cannot be read.
    """
    from seqcl.data import read  # imports pyarrow

    found = read(source, short=True, **options)
    order = time_order(found.users, found.times)
    items = (found.items if order is None else found.items[order]) + 1
    sizes = np.bincount(found.users, minlength=len(found.user_ids))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    whole = Histories(
        items=items,
        offsets=offsets,
        user_ids=found.user_ids,
        rows=np.arange(len(sizes)),
        fingerprint=digest(items, offsets, found.user_ids, found.item_ids),
        told=found.told,
    )
    return whole, found.item_ids


def known_sizes(histories: Histories) -> Iterator[np.ndarray]:
    """The number of items that the model knows of each user, chunk by chunk."""
    for first in range(0, len(histories), CHUNK):
        yield np.diff(histories.part(first, first + CHUNK)[2])


def digest(*values: str | np.ndarray) -> str:
    """The sha256, in hex, of texts and arrays."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            found.update(value.encode())
        else:
            found.update(f"{value.dtype.str} {value.shape};".encode())
            found.update(np.ascontiguousarray(value).view(np.uint8).data)
    return found.hexdigest()
