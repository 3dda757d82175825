"""Exact search by inner product, in blocks of queries that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from seqcl.blocks import block_buffer, block_rows, exclude_, over_blocks, top_k
from seqcl.errors import ADVICE, Diverged
from seqcl.types import PAD


class ExactIndex:
    """Finds the items with the largest inner product and misses none.

    Args:
        vectors: (N, D), one for each item; kept in float32 on their device.
        ids: (N,) item id of each vector, at least 1 and each once; 1..N if not given.

    Raises:
        ValueError: shapes do not fit, a value is not finite, an id is repeated or PAD.
    """

    name = "exact"

    def __init__(self, vectors: Tensor, ids: Tensor | None = None) -> None:
        self.vectors, self.ids = checked(vectors, ids)
        self.columns = columns_of(self.ids)

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the k best items of each query: scores (B, k) float32 and item ids (B, k), best first.

        Where fewer than k are left, the rest is minus infinity and PAD.

        Args:
            queries: (B, D).
            k: number of items for each query.
            exclude: rows (P,) of queries and item ids (P,) that they must not find; ids without a vector are ignored.

        Raises:
            ValueError: a query holds a value that is not finite, or has another width than the vectors.
        """
        queries = checked_queries(queries, self.vectors.shape[1]).to(self.vectors.device)
        scores = torch.full((len(queries), k), -torch.inf, device=queries.device)
        items = torch.full((len(queries), k), PAD, device=queries.device)
        rows, columns, bounds = self.excluded(len(queries), exclude)
        step = block_rows(len(self.vectors), queries.device)

        def work(starts: Iterator[int]) -> None:
            buffer = block_buffer(min(step, len(queries)), len(self.vectors), queries.device)
            for start in starts:
                block = queries[start : start + step]
                found = torch.mm(block, self.vectors.T, out=buffer[: len(block)])  # (rows, N)
                part = slice(int(bounds[start]), int(bounds[start + len(block)]))
                exclude_(found, rows[part] - start, columns[part])
                best, where = top_k(found, k)
                scores[start : start + step, : best.shape[1]] = best
                items[start : start + step, : best.shape[1]] = self.ids[where].masked_fill(best.isneginf(), PAD)

        over_blocks(work, len(queries), step, queries.device)
        return scores, items

    def excluded(self, size: int, exclude: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns to exclude, sorted by row, and the places where each row's begin: (size + 1,) on the CPU."""
        device = self.vectors.device
        if exclude is None:
            none = torch.zeros(0, dtype=torch.long, device=device)
            return none, none, torch.zeros(size + 1, dtype=torch.long)
        rows, items = (part.to(device) for part in exclude)
        columns = self.columns[items.clamp(0, len(self.columns) - 1)]
        known = (columns >= 0) & (items >= 0) & (items < len(self.columns))
        rows, order = rows[known].sort(stable=True)
        bounds = torch.searchsorted(rows, torch.arange(size + 1, device=device))
        return rows, columns[known][order], bounds.cpu()


def checked(vectors: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Bring vectors to float32 and ids to (N,) int64, on one device.

    Raises:
        ValueError: they cannot be indexed.
    """
    vectors = vectors.detach().float().contiguous()
    if vectors.dim() != 2 or len(vectors) == 0:
        raise ValueError(f"vectors must be (N, D) with at least one row, not {tuple(vectors.shape)}")
    refuse_infinite("vector", vectors)
    if ids is None:
        return vectors, torch.arange(1, len(vectors) + 1, device=vectors.device)
    ids = torch.as_tensor(ids, device=vectors.device).long()
    if ids.shape != (len(vectors),):
        raise ValueError(f"ids must be ({len(vectors)},), one for each vector, not {tuple(ids.shape)}")
    if int(ids.min()) <= PAD or len(ids.unique()) != len(ids):
        raise ValueError("ids must be 1 or more, and each stand once")
    return vectors, ids


def checked_queries(queries: Tensor, dim: int) -> Tensor:
    """Bring queries to float32.

    Raises:
        ValueError: they cannot be compared with vectors of width `dim`.
    """
    queries = queries.detach().float()
    if queries.dim() != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries must be (B, {dim}), not {tuple(queries.shape)}")
    refuse_infinite("query", queries)
    return queries


def refuse_infinite(kind: str, rows: Tensor, *, first: int = 0) -> None:
    """Refuse rows with a value that is infinite or NaN; `first` is the number of the first one, for the message.

    Raises:
        Diverged: a ValueError that names the first of them.
    """
    for start, part in enumerate(rows.split(65536)):  # in pieces: the answers for 10 million vectors take 640 MB
        if not bool(part.isfinite().all()):
            row = first + 65536 * start + int((~part.isfinite()).any(1).nonzero()[0])
            raise Diverged(f"{kind} {row} holds a value that is not finite: the model has diverged. {ADVICE}")


def columns_of(ids: Tensor) -> Tensor:
    """The position of each id in `ids`, -1 where it is not there: (max id + 1,)."""
    columns = torch.full((int(ids.max()) + 1,), -1, device=ids.device)
    columns[ids] = torch.arange(len(ids), device=ids.device)
    return columns
