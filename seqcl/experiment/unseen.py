"""The check that a run which another goes on from did not learn from what that one holds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqcl.data import Sequences, Split
from seqcl.data.raw_ids import same_ids
from seqcl.errors import UserError

if TYPE_CHECKING:
    from seqcl.experiment.run import Run


def check_unseen(earlier: Run, sequences: Sequences, split: Split) -> None:
    """Refuse a run that learned from interactions which are held out now.

    Raises:
        UserError: counts them, and names one.
    """
    items = np.concatenate(([0], same_ids(np.asarray(earlier.sequences.item_ids), sequences.item_ids) + 1))
    users = same_ids(np.asarray(earlier.sequences.user_ids), sequences.user_ids)
    wide = sequences.num_items + 1

    def counted(who: np.ndarray, what: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = who.astype(np.int64) * wide + what
        return np.unique(pairs[(who >= 0) & (what > 0)], return_counts=True)

    theirs, told = earlier.split.train.known()
    learned, ours = counted(users[theirs], items[told]), counted(*split.train.known())
    everyone = np.repeat(np.arange(sequences.num_users), np.diff(sequences.offsets))
    pairs, counts = counted(everyone, np.asarray(sequences.items))
    known = counts_of(pairs, *ours)
    seen = pairs[(counts > known) & (counts_of(pairs, *learned) > known)]
    if len(seen):
        user, item = sequences.user_ids[seen[0] // wide], sequences.item_ids[seen[0] % wide - 1]
        raise UserError(
            f"it learned from {len(seen):,} interactions that this run holds out, such as that of user {user} with "
            f"item {item}; take a run whose log ended before they came"
        )


def counts_of(keys: np.ndarray, known: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Tell how often each key (n,) was counted among known ones, sorted; 0 for others."""
    place = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[place] == keys, counts[place], 0) if len(known) else np.zeros(len(keys), np.int64)
