"""What can be evaluated, and its scores in blocks. Candidate column j is item j + 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqcl.topk import block_rows
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


class ScoreBlocks:
    """Scores of a batch in blocks of rows that stay in the cache, in float32 whatever the model computes in."""

    def __init__(self, scorer: Scorer, num_items: int, device: torch.device) -> None:
        self.scorer = scorer
        self.num_items = num_items
        self.rows = block_rows(num_items, device)
        self.table: Tensor | None = None
        if isinstance(scorer, VectorScorer):
            self.table = scorer.candidates().float()  # (N, D)
            self.buffer = torch.empty(self.rows, num_items, device=device)
            check_columns(self.table.shape[0], num_items, "candidates() has rows for")

    def __call__(self, batch: SeqBatch, columns: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row of each block and its scores, (rows, N) or of the given columns, to be written over."""
        if isinstance(self.scorer, VectorScorer):
            values = self.scorer.queries(batch).float()  # (B, D)
        else:
            values = self.scorer.scores(batch)  # (B, N)
            check_columns(values.shape[1], self.num_items, "scores() has columns for")
        for start in range(0, len(values), self.rows):
            rows = values[start : start + self.rows]
            with torch.autocast(rows.device.type, enabled=False):
                scores = self.block(rows, None if columns is None else columns[start : start + self.rows])
            yield start, scores

    def block(self, rows: Tensor, columns: Tensor | None) -> Tensor:
        """Scores of one block, all or of some columns: (rows, N) or (rows, 1 + n)."""
        if self.table is None:
            chosen = rows.float() if columns is None else rows.gather(1, columns.long()).float()
            return chosen.clone(memory_format=torch.contiguous_format)
        if columns is None:
            return torch.mm(rows, self.table.T, out=self.buffer[: len(rows)])
        return torch.einsum("bd,bnd->bn", rows, self.table[columns.long()])


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
