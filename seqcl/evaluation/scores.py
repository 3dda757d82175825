"""The face of a model that can be evaluated, and its scores in blocks. Candidate column j is item j + 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from seqcl.blocks import block_buffer
from seqcl.types import SeqBatch


class Scorer(Protocol):
    """A model that scores items, by inner product if it has vectors.

    Where `vectors()` is None only `scores()` is called, else only `queries()`.
    """

    def queries(self, batch: SeqBatch) -> Tensor:
        """The vectors that are compared with those of the items, one a row: (B, D)."""
        ...

    def vectors(self) -> Tensor | None:
        """Vectors of items 1..N: (N, D); None for a model that scores without vectors."""
        ...

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        ...


CHUNK_ROWS = 8192
"""Queries gathered before they are ranked, so that each of many threads finds a block."""


class ScoreBlocks:
    """Scores of a model in blocks of rows that stay in the cache, in float32 whatever the model computes in.

    Raises:
        ValueError: the model has vectors or scores of more or fewer than N items.
    """

    def __init__(self, scorer: Scorer, num_items: int) -> None:
        self.scorer = scorer
        self.num_items = num_items
        vectors = scorer.vectors()
        self.table = None if vectors is None else vectors.float()  # (N, D)
        if self.table is not None:
            check_columns(self.table.shape[0], num_items, "vectors() has rows for")

    def chunks(self, batches: Iterable[tuple[int, SeqBatch]]) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row of a chunk and its queries (rows, D), of many batches, or its scores (B, N), of one."""
        first, waiting = 0, list[Tensor]()
        for start, batch in batches:
            if self.table is None:
                values = self.scorer.scores(batch)  # (B, N)
                check_columns(values.shape[1], self.num_items, "scores() has columns for")
                yield start, values
                continue
            first = first if waiting else start
            waiting.append(self.scorer.queries(batch).float())  # (B, D)
            if start + len(batch.items) - first >= CHUNK_ROWS:
                yield first, torch.cat(waiting)
                waiting = []
        if waiting:
            yield first, torch.cat(waiting)

    def buffer(self, rows: int, device: torch.device) -> Tensor | None:
        """Memory for blocks of inner products (rows, N), used again for each block; None without vectors."""
        return None if self.table is None else block_buffer(rows, self.num_items, device)

    def block(self, rows: Tensor, columns: Tensor | None, buffer: Tensor | None) -> Tensor:
        """Scores of some rows of a chunk, of all columns or of some: (rows, N) or (rows, 1 + n), to be written over."""
        with torch.autocast(rows.device.type, enabled=False):
            if self.table is None:
                chosen = rows.float() if columns is None else rows.gather(1, columns).float()
                return chosen.clone(memory_format=torch.contiguous_format)
            if columns is not None:
                return torch.einsum("bd,bnd->bn", rows, self.table[columns])
            return torch.mm(rows, self.table.T, out=None if buffer is None else buffer[: len(rows)])


def check_columns(found: int, num_items: int, subject: str) -> None:
    """Refuse a model that ranks PAD or MASK too.

    Raises:
        ValueError: the number of columns is not that of the items.
    """
    if found != num_items:
        raise ValueError(
            f"{subject} {found} items, expected {num_items}: column j is item j + 1, PAD and MASK have none"
        )


@contextmanager
def evaluating(scorer: object) -> Iterator[None]:
    """Put a module into evaluation mode for a while; other objects stay as they are."""
    training = isinstance(scorer, nn.Module) and scorer.training
    if training:
        scorer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if training:
            scorer.train()  # type: ignore[attr-defined]
