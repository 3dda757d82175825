"""Recommend for many histories at once: the k best items of each, as it would be asked alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seqcl.blocks import block_rows, exclude_, top_k
from seqcl.data import Loader
from seqcl.data.batches import tensor
from seqcl.data.raw_ids import check_known, known_places, places_of
from seqcl.data.windows import stretch_positions
from seqcl.errors import ADVICE, Diverged, UserError
from seqcl.retrieval.exact import ExactIndex
from seqcl.types import PAD, SeqBatch, Windows

GATHERED = 8192
"""Queries that are searched together, so that each of many threads finds a block."""

Recommended = list[tuple[Any, float]]
"""The raw id and the score of each recommended item, best first."""


class Searcher(Protocol):
    """Finds items for the rows that a model makes of histories."""

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the k best items of each row, as `ExactIndex` does."""
        ...


class Scored:
    """Finds the items with the highest scores, for a model without vectors: its rows are scores of all items.

    Args:
        allowed: (A,) the items that may be found; None: all.
    """

    def __init__(self, allowed: Tensor | None = None) -> None:
        self.allowed = allowed

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the k best items of each row of scores (B, N): scores and item ids (B, k), best first, PAD where fewer are left.

        Raises:
            Diverged: a score is NaN.
        """
        device = queries.device
        rows, columns = (torch.zeros(0, dtype=torch.long, device=device),) * 2
        if exclude is not None:
            rows, columns = exclude[0], exclude[1] - 1
        bounds = torch.searchsorted(rows, torch.arange(len(queries) + 1, device=device)).tolist()
        step, found = block_rows(queries.shape[1], device), list[tuple[Tensor, Tensor]]()
        for start in range(0, len(queries), step):
            block = queries[start : start + step].float().clone(memory_format=torch.contiguous_format)
            own = slice(bounds[start], bounds[start + len(block)])
            exclude_(block, rows[own] - start, columns[own])
            if self.allowed is not None:
                barred = torch.ones(block.shape[1], dtype=torch.bool, device=device)
                block.masked_fill_(barred.index_fill_(0, self.allowed.to(device) - 1, False), -torch.inf)
            found.append(top_k(block, k))
        scores, items = (torch.cat(parts) for parts in zip(*found, strict=True))  # (B, k) each
        if bool(scores[:, 0].isnan().any()):
            raise Diverged(f"the model gives scores that are no numbers: it has diverged. {ADVICE}")
        return scores, (items + 1).masked_fill(scores.isneginf(), PAD)


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """A model that can be asked for many lists.

    Args:
        name: of the model, for messages.
        rows: what is searched with, of a batch: queries (B, D), or scores of all items (B, N).
        searcher: finds the items.
        item_ids: (N,) raw ids.
        max_len: number of items of a history that are read, the newest ones.
        batch_size: histories encoded at once.
        device: where batches are made.
        about: facts, as text, that change with its answers.
        gathered: rows that are searched together.
    """

    name: str
    rows: Callable[[SeqBatch], Tensor]
    searcher: Searcher
    item_ids: np.ndarray
    max_len: int
    batch_size: int
    device: torch.device
    about: dict[str, str] = field(default_factory=dict)
    gathered: int | None = None

    @torch.no_grad()
    def lists(
        self, items: np.ndarray, offsets: np.ndarray, users: np.ndarray | None = None, *, k: int, exclude_seen: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The lists of n histories.

        Args:
            items: (t,) ids 1..N, one history after the other, each oldest first.
            offsets: (n + 1,) where each history begins and ends; none is empty.
            users: (n,) rows of the users in the model's log; None: nobody that it knows.
            k: length of the lists.
            exclude_seen: leave out the items of the history.

        Returns:
            Scores (n, k) float32 and items (n, k), best first; PAD where fewer are left.
        """
        k = min(k, len(self.item_ids))
        loader = Loader(self.windows(items, offsets), batch_size=self.batch_size, device=self.device, targets="none")
        numbers = None if users is None else tensor(users, self.device)
        order = np.argsort(loader.lengths, kind="stable")  # little padding
        scores, found = np.empty((len(order), k), np.float32), np.empty((len(order), k), np.int64)
        gathered = self.gathered or GATHERED
        for start in range(0, len(order), gathered):
            rows = order[start : start + gathered]
            made = torch.cat([self.rows(self.batch(loader, part, numbers)) for part in self.batches(rows)])
            exclude = None
            if exclude_seen:
                where, owner = stretch_positions(offsets[rows], offsets[rows + 1])
                exclude = tensor(owner, self.device), tensor(items[where].astype(np.int64), self.device)
            best = self.searcher.search(made, k, exclude)
            scores[rows], found[rows] = (part.cpu().numpy() for part in best)
        return scores, found

    def batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Cut rows into batches."""
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def batch(self, loader: Loader, rows: np.ndarray, users: Tensor | None) -> SeqBatch:
        """The batch of some windows; its users are those of the log, or nobody that the model knows."""
        batch = loader.gather(rows)
        return batch._replace(users=None if users is None else users[batch.users])

    def windows(self, items: np.ndarray, offsets: np.ndarray) -> Windows:
        """A window over the newest items of each history."""
        end = offsets[1:]
        return Windows(
            items=items,
            offsets=offsets,
            ends=end,
            users=np.arange(len(end)),
            start=np.maximum(offsets[:-1], end - self.max_len),
            stop=end,
            first=end,
            num_items=len(self.item_ids),
            max_len=self.max_len,
        )

    def of_items(self, histories: Sequence[Sequence[Any]], *, k: int, exclude_seen: bool) -> list[Recommended]:
        """Recommend for histories of raw item ids, oldest first, of users whom the model need not know.

        Items that it does not know are left out, and a warning names them; a history of such items alone gets an empty list.

        Raises:
            UserError: a history is no list of ids, no item of any is known or given, or k is below 1.
        """
        check_length(k)
        for history in histories:
            if isinstance(history, str | bytes):
                raise UserError(f"recommend: items must be a list of raw ids, not the text {history!r}")
            if not hasattr(history, "__len__"):
                raise UserError(f"recommend: each history must be a list of raw ids, not {history!r}")
        raws = [raw for history in histories for raw in history]
        places = places_of(raws, self.item_ids)
        check_known(places, raws, self.item_ids, "item", self.name)
        owner = np.repeat(np.arange(len(histories)), [len(history) for history in histories])[places >= 0]
        sizes = np.bincount(owner, minlength=len(histories))
        there = np.flatnonzero(sizes)
        offsets = np.concatenate(([0], np.cumsum(sizes[there])))
        scores, found = self.lists(places[places >= 0] + 1, offsets, k=k, exclude_seen=exclude_seen)
        lists = dict(zip(there.tolist(), self.named(scores, found), strict=True))
        return [lists.get(number, []) for number in range(len(histories))]

    def named(self, scores: np.ndarray, found: np.ndarray) -> list[Recommended]:
        """Lists (n, k) of items as raw ids with their scores, without what stands where fewer are left."""
        raws = self.item_ids[np.maximum(found - 1, 0)].tolist()
        rows = zip(raws, scores.tolist(), (found != PAD).sum(1).tolist(), strict=True)
        return [list(zip(ids[:size], values[:size], strict=True)) for ids, values, size in rows]


def check_length(k: int) -> None:
    """Refuse lists of no items.

    Raises:
        UserError: k is no whole number, or below 1.
    """
    if not isinstance(k, Integral):
        raise UserError(f"recommend: k must be a whole number, not {k!r}")
    if k < 1:
        raise UserError(f"recommend: k must be 1 or more, not {k}")


def allowed_items(allowed: Sequence[Any] | None, item_ids: np.ndarray, name: str) -> Tensor | None:
    """The items (A,), each once, that the raw ids of `allowed` name; None: all may be recommended.

    Raises:
        UserError: it is a text and no list of ids, it is empty, or none of its items is known.
    """
    if allowed is None:
        return None
    if isinstance(allowed, str | bytes):
        raise UserError(f"recommend: allowed must be a list of raw ids, not the text {allowed!r}")
    if not isinstance(allowed, Iterable):
        raise UserError(f"recommend: allowed must be a list of raw ids, not {allowed!r}")
    allowed = list(allowed)
    if not allowed:
        raise UserError("recommend: allowed is empty, so nothing may be recommended; leave it out to allow all items")
    places = np.unique(known_places(allowed, item_ids, "item", name))
    return torch.from_numpy(places.astype(np.int64)) + 1


def exact_index(vectors: Tensor | None, allowed: Tensor | None) -> Searcher:
    """Compare with the vectors (N, D) of all items, or of those that are allowed; without vectors rows are scores."""
    if vectors is None:
        return Scored(allowed)
    if allowed is None:
        return ExactIndex(vectors)
    allowed = allowed.to(vectors.device)
    return ExactIndex(vectors[allowed - 1], allowed)


def about_allowed(allowed: Tensor | None) -> dict[str, str]:
    """The facts about which items are allowed, as text."""
    return {} if allowed is None else {"allowed": hashlib.sha256(allowed.numpy().tobytes()).hexdigest()}
