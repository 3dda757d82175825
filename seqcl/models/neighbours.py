"""Rows of training that are most like the row to be continued, and the items that they hold."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from seqcl.data.windows import stretch_positions
from seqcl.errors import UserError, check_choice, not_negative
from seqcl.models.base import Baseline
from seqcl.parts import Part, part
from seqcl.types import PAD, SeqBatch, Similarity, Windows

PAIRS = 1 << 22
"""Pairs of a queried item and a training row that holds it, which are looked at together."""


class NearestRows(nn.Module):
    """Find the training rows most like a queried one, and score items by them (Ludewig and Jannach, arXiv 1803.09587).

    A row of training is the set of its user's items. An item at place p of a queried row of n has the weight (p / n) ** emphasis.
    A neighbour adds to the score of each of its items its similarity times (1 / s) ** fade, if the newest item that the two share
    is the s-th newest of the query; and as much times `idf` log(rows / rows with the item).

    Args:
        train: the training windows.
        k: neighbours of a query.
        recent: rows that share an item with the query are compared with it up to this number, the most recent ones; without
            times, those that stand last in the log. 0 compares all.
        similarity: cosine, or dot: the length of a training row does not count.
        emphasis: 0, all items of a query count alike; 1, by their place.
        fade: 0, all neighbours count alike; 1, those that share only old items count less.
        idf: what rarer items gain.

    Raises:
        UserError: a value out of its range.
    """

    offsets: Tensor
    items: Tensor
    turn: Tensor

    def __init__(
        self,
        train: Windows,
        *,
        k: int = 100,
        recent: int = 1000,
        similarity: Similarity = "cosine",
        emphasis: float = 0.0,
        fade: float = 0.0,
        idf: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("rows.similarity", similarity, Similarity)
        not_negative("rows", recent=recent, emphasis=emphasis, fade=fade, idf=idf)
        if k < 1:
            raise UserError(f"rows: k must be 1 or more, not {k}")
        self.k, self.recent, self.similarity = k, recent, similarity
        self.emphasis, self.fade, self.idf = emphasis, fade, idf
        self.num_items = train.num_items
        users, items = train.known()
        held = sparse.csr_array((np.ones(len(items)), (users, items - 1)), shape=(train.num_users, train.num_items))
        held.sum_duplicates()
        self.register_buffer("offsets", torch.from_numpy(held.indptr.astype(np.int64)))  # (U + 1,)
        self.register_buffer("items", torch.from_numpy(held.indices.astype(np.int64)))  # (E,), column j is item j + 1
        self.register_buffer("turn", torch.from_numpy(turns(train)))  # (U,), 0 is the most recent row

    def forward(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N, sums over the neighbours that hold an item: (B, N)."""
        offsets, items = self.offsets.cpu().numpy(), self.items.cpu().numpy()
        held = sparse.csr_array((np.ones(len(items)), items, offsets), shape=(len(offsets) - 1, self.num_items))
        holders = held.T.tocsr()  # (N, U)
        counts = np.diff(holders.indptr)  # (N,)
        query, column, age, weight = queried(batch, self.emphasis)
        pairs = np.bincount(query, weights=counts[column], minlength=len(batch.lengths))  # (B,)
        found = []
        for rows in np.split(np.arange(len(pairs)), np.flatnonzero(np.diff(np.cumsum(pairs) // PAIRS)) + 1):
            here = (query >= rows[0]) & (query <= rows[-1])
            own = None if batch.users is None else batch.users[rows[0] : rows[-1] + 1].cpu().numpy()
            near = self.nearest(holders, query[here] - rows[0], column[here], age[here], weight[here], own, len(rows))
            found.append((near @ held).toarray())
        rarity = 1 + self.idf * np.log(held.shape[0] / np.maximum(counts, 1))
        return torch.from_numpy(np.concatenate(found) * rarity).float().to(batch.items.device)

    def nearest(
        self,
        holders: sparse.csr_array,
        query: np.ndarray,
        column: np.ndarray,
        age: np.ndarray,
        weight: np.ndarray,
        own: np.ndarray | None,
        size: int,
    ) -> sparse.csr_array:
        """What each neighbour of some queries adds to its items: (size, U).

        Args:
            holders: the rows that hold an item, (N, U).
            query: the query of each queried item, (Q,), the newest of each query first.
            column: the queried items, (Q,), from 0 on.
            age: their ages in items, (Q,).
            weight: their weights, (Q,).
            own: the training row of each query's user, (size,), which is no neighbour; None where nobody knows.
            size: number of queries.
        """
        where, place = stretch_positions(holders.indptr[column], holders.indptr[column + 1])
        near = holders.indices[where]  # (P,) the training row of each pair
        if own is not None:
            other = near != own[query[place]]
            near, place = near[other], place[other]
        pairs, first, pair = np.unique(query[place] * holders.shape[1] + near, return_index=True, return_inverse=True)
        row, near = np.divmod(pairs, holders.shape[1])  # (n,) each
        likeness = np.bincount(pair.reshape(-1), weights=weight[place], minlength=len(pairs))
        fall = (1 / (age[place][first] + 1)) ** self.fade
        turn = self.turn.cpu().numpy()[near]
        if self.similarity == "cosine":
            length = np.sqrt(np.bincount(query, weights=weight**2, minlength=size))
            likeness = likeness / (length[row] * np.sqrt(np.diff(self.offsets.cpu().numpy())[near]))
        kept = np.lexsort((turn, row))
        if self.recent:
            kept = kept[place_in_row(row[kept]) < self.recent]
        kept = kept[np.lexsort((turn[kept], -likeness[kept], row[kept]))]
        kept = kept[place_in_row(row[kept]) < self.k]
        return sparse.csr_array(((likeness * fall)[kept], (row[kept], near[kept])), shape=(size, holders.shape[1]))


def place_in_row(row: np.ndarray) -> np.ndarray:
    """The place of each entry among those of its row, from 0 on, for rows (n,) in order."""
    return np.arange(len(row)) - np.searchsorted(row, row)


def queried(batch: SeqBatch, emphasis: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column, age and weight of each item of a batch, the newest first; of repeats, the newest one: (Q,) each."""
    items, lengths = batch.items.cpu().numpy(), batch.lengths.cpu().numpy()
    time = np.arange(items.shape[1])
    again = ((items[:, :, None] == items[:, None]) & (time > time[:, None])).any(2)  # (B, L), comes later too
    row, place = np.nonzero((time < lengths[:, None]) & (items != PAD) & ~again)
    age = lengths[row] - 1 - place
    newest = np.argsort(age, kind="stable")
    row, place, age = row[newest], place[newest], age[newest]
    return row, items[row, place] - 1, age, ((place + 1) / lengths[row]) ** emphasis


def turns(train: Windows) -> np.ndarray:
    """Number the rows by their last known time, the most recent first; without times, the last row first: (U,)."""
    latest = np.arange(train.num_users, dtype=np.float64)
    if train.times is not None:
        known = train.ends > train.offsets[:-1]
        latest = np.where(known, train.times[np.maximum(train.ends - 1, 0)], -np.inf)
    turn = np.empty(train.num_users, np.int64)
    turn[np.argsort(-latest, kind="stable")] = np.arange(train.num_users)
    return turn


class SessionKNN(Baseline):
    """Scores from the training rows most like the row to be continued."""

    rows = part(NearestRows)

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        self.nearest = self.parts["rows"](train)

    def scores(self, batch: SeqBatch) -> Tensor:
        """Summed similarity of the neighbours: (B, N)."""
        found: Tensor = self.nearest(batch)
        return found
