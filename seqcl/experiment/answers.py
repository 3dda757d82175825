"""Recommend for many histories at once, from a run or a bundle: the k best items of each, as it would be asked alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from seqcl.blocks import block_rows, exclude_, top_k
from seqcl.data import Loader
from seqcl.data.batches import tensor
from seqcl.data.sealed import hash_of
from seqcl.data.windows import stretch_positions
from seqcl.errors import ADVICE, Diverged, UserError, check_choice
from seqcl.experiment.histories import Histories
from seqcl.experiment.run import Run
from seqcl.retrieval import ExactIndex
from seqcl.types import PAD, SeqBatch, Windows

if TYPE_CHECKING:
    from seqcl.retrieval.bundle import Bundle

Search = Literal["exact", "index"]

GATHERED = 8192
"""Queries that are searched together, so that each of many threads finds a block."""


class Searcher(Protocol):
    """Finds items for the rows that a model makes of histories."""

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the k best items of each row, as `ExactIndex` does."""
        ...


class Scored:
    """Finds the items with the highest scores, for a model without vectors: its rows are scores of all items."""

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
            found.append(top_k(block, k))
        scores, items = (torch.cat(parts) for parts in zip(*found, strict=True))  # (B, k) each
        if bool(scores[:, 0].isnan().any()):
            raise Diverged(f"the model gives scores that are no numbers: it has diverged. {ADVICE}")
        return scores, (items + 1).masked_fill(scores.isneginf(), PAD)


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """A model that can be asked for many lists.

    Args:
        rows: what is searched with, of a batch: queries (B, D), or scores of all items (B, N).
        searcher: finds the items.
        gathered: rows that are searched together.
        item_ids: (N,) raw ids.
        max_len: number of items of a history that are read, the newest ones.
        batch_size: histories encoded at once.
        device: where batches are made.
        about: facts, as text, that change with its answers.
    """

    rows: Callable[[SeqBatch], Tensor]
    searcher: Searcher
    gathered: int
    item_ids: np.ndarray
    max_len: int
    batch_size: int
    device: torch.device
    about: dict[str, str]

    @torch.no_grad()
    def best(
        self, histories: Histories, first: int, last: int, *, k: int, exclude_seen: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The lists of some of the users asked for, by their places [first, last).

        Returns:
            The users (n,), scores (n, k) float32 and items (n, k), best first; PAD where fewer are left.
        """
        k = min(k, len(self.item_ids))
        users, items, offsets = histories.part(first, last)
        loader = Loader(self.windows(items, offsets), batch_size=self.batch_size, device=self.device, targets="none")
        numbers = tensor(users, self.device) if histories.own else None
        order = np.argsort(loader.lengths, kind="stable")  # little padding
        scores, found = np.empty((len(users), k), np.float32), np.empty((len(users), k), np.int64)
        for start in range(0, len(order), self.gathered):
            rows = order[start : start + self.gathered]
            made = torch.cat([self.rows(self.batch(loader, part, numbers)) for part in self.batches(rows)])
            exclude = None
            if exclude_seen:
                where, owner = stretch_positions(offsets[rows], offsets[rows + 1])
                exclude = tensor(owner, self.device), tensor(items[where].astype(np.int64), self.device)
            best = self.searcher.search(made, k, exclude)
            scores[rows], found[rows] = (part.cpu().numpy() for part in best)
        return users, scores, found

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


def of_run(run: Run) -> Asked:
    """Ask the model of a run; one with vectors is searched exactly."""
    with torch.no_grad():
        vectors = run.model.vectors()
    size = run.experiment.eval.batch_size
    weights = run.folder / "checkpoints" / "best.safetensors"
    files = [path for path in (run.folder / "config.yaml", weights) if path.is_file()]
    return Asked(
        rows=run.model.scores if vectors is None else run.model.queries,
        searcher=Scored() if vectors is None else ExactIndex(vectors),
        gathered=size if vectors is None else GATHERED,
        item_ids=run.sequences.item_ids,
        max_len=run.split.test.max_len,
        batch_size=size,
        device=run.device,
        about={"model": hash_of_files(files, run.sequences.fingerprint), "search": "exact"},
    )


def of_bundle(bundle: Bundle, *, search: str = "exact") -> Asked:
    """Ask a bundle.

    Args:
        bundle: an exported run.
        search: exact: compare with the vectors of all items, as the run does; index: through the bundle's index.

    Raises:
        UserError: an unknown search, or vectors that are not those that were exported.
    """
    check_choice("search", search, Search)
    beside = bundle.memories is not None
    if beside and search == "index":
        raise UserError("--search index: the memories of this bundle score all items; leave that out")
    vectors = ExactIndex(bundle.vectors()) if search == "exact" and not beside else bundle.index
    return Asked(
        rows=bundle.scores if beside else bundle.encode,
        searcher=Scored() if beside else vectors,
        gathered=512 if beside else GATHERED,
        item_ids=bundle.item_ids,
        max_len=bundle.max_len,
        batch_size=512,
        device=torch.device("cpu"),
        about={"model": hash_of_files([bundle.folder / "manifest.json"]), "search": search},
    )


def hash_of_files(files: list[Path], *more: str) -> str:
    """One hash of several files, and of other texts."""
    parts: list[Any] = [hash_of(file) for file in files]
    return hashlib.sha256(json.dumps([*parts, *more]).encode()).hexdigest()
