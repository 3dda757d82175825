"""Whole rows."""

from __future__ import annotations

import torch.nn.functional as F

from seqcl.types import PAD, SeqBatch


def whole_rows(batch: SeqBatch) -> SeqBatch:
    """Rows with their last target behind them: items (B, L + 1)."""
    if batch.targets is None:
        raise ValueError("a whole row ends in its last target, and the batch has no targets")
    lengths = batch.lengths[:, None]
    newest = batch.targets.gather(1, lengths - 1)  # (B, 1)
    items = F.pad(batch.items, (0, 1), value=PAD).scatter(1, lengths, newest)  # (B, L + 1)
    return SeqBatch(items, batch.lengths + 1, users=batch.users)
