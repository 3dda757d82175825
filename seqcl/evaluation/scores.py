"""What can be evaluated, and its scores in blocks. Candidate column j is item j + 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqcl.blocks import block_buffer
from seqcl.types import SeqBatch


@runtime_checkable
class VectorScorer(Protocol):
    """Scores by inner product; column j of the candidates is item j + 1."""

    def queries(self, batch: SeqBatch) -> Tensor:
        """One vector a row: (B, D)."""
        ...

    def candidates(self) -> Tensor:
        """Vectors of items 1..N: (N, D)."""
        ...


@runtime_checkable
class TableScorer(Protocol):
    """Scores in any way; column j is item j + 1."""

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        ...


Scorer = VectorScorer | TableScorer

CHUNK_ROWS = 8192
"""Queries gathered before they are ranked, so that many threads find a block each."""


class ScoreBlocks:
    """Scores of a model in blocks of rows that stay in the cache, in float32 whatever the model computes in."""

    def __init__(self, scorer: Scorer, num_items: int) -> None:
        self.scorer = scorer
        self.num_items = num_items
        self.table: Tensor | None = None
        if isinstance(scorer, VectorScorer):
            self.table = scorer.candidates().float()  # (N, D)
            check_columns(self.table.shape[0], num_items, "candidates() has rows for")

    def chunks(self, batches: Iterable[tuple[int, SeqBatch]]) -> Iterator[tuple[int, Tensor]]:
        """Yield a first row and what scores are made of: queries (rows, D) of many batches, or scores (B, N) of one."""
        first, waiting = 0, list[Tensor]()
        for start, batch in batches:
            if not isinstance(self.scorer, VectorScorer):
                values = self.scorer.scores(batch)  # (B, N)
                check_columns(values.shape[1], self.num_items, "scores() has columns for")
                yield start, values
                continue
            waiting.append(self.scorer.queries(batch).float())  # (B, D)
            if start + len(batch.items) - first >= CHUNK_ROWS:
                yield first, torch.cat(waiting)
                first, waiting = start + len(batch.items), []
        if waiting:
            yield first, torch.cat(waiting)

    def buffer(self, rows: int, device: torch.device) -> Tensor | None:
        """A place for blocks of inner products (rows, N), used again for each."""
        return None if self.table is None else block_buffer(rows, self.num_items, device)

    def block(self, rows: Tensor, columns: Tensor | None, buffer: Tensor | None) -> Tensor:
        """Scores of some rows of a chunk, for all or for some columns: (rows, N) or (rows, 1 + n), to be written over."""
        with torch.autocast(rows.device.type, enabled=False):
            if self.table is None:
                chosen = rows.float() if columns is None else rows.gather(1, columns).float()
                return chosen.clone(memory_format=torch.contiguous_format)
            if columns is not None:
                return torch.einsum("bd,bnd->bn", rows, self.table[columns])
            return torch.mm(rows, self.table.T, out=None if buffer is None else buffer[: len(rows)])


def check_columns(found: int, num_items: int, what: str) -> None:
    """Refuse a scorer that ranks PAD or MASK along."""
    if found != num_items:
        raise ValueError(f"{what} {found} items, expected {num_items}: column j is item j + 1, PAD and MASK have none")


@contextmanager
def evaluating(scorer: object) -> Iterator[None]:
    """Inside, a module is in evaluation mode; afterwards it is as it was."""
    training = isinstance(scorer, nn.Module) and scorer.training
    if training:
        scorer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if training:
            scorer.train()  # type: ignore[attr-defined]
