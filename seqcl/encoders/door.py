"""A door into the input of any encoder: vectors in the place of the embeddings of a batch's items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.encoders.base import Encoder
from seqcl.encoders.table import ItemTable
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch


def vectors_read(encoder: Encoder, batch: SeqBatch) -> Tensor:
    """The vectors that an encoder reads of the items of a batch: (B, L, D), zero at padding.

    Raises:
        UserError: the encoder reads its items from no table of ours.
    """
    return _table(encoder)(batch.items)


@contextmanager
def reading(encoder: Encoder, batch: SeqBatch, vectors: Tensor) -> Iterator[SeqBatch]:
    """Inside, the batch that is given stands for `batch`, and the encoder reads `vectors` for its items; no other batch can be encoded.

    Every encoder with an item table of ours can: its items become numbers past those of all items, by which the table
    finds the vectors, wherever the encoder puts them. PAD and MASK are read as ever.

    Args:
        encoder: of any kind, also one whose rows are dealt to several processes.
        batch: the rows.
        vectors: (B, L, D), such as `vectors_read` gives, changed.

    Raises:
        UserError: the encoder reads its items from no table of ours.
    """
    table, count = _table(encoder), encoder.num_items
    special = table(torch.tensor([PAD, count + 1], device=vectors.device))  # (2, D)
    rows = torch.cat((special.to(vectors.dtype), vectors.flatten(0, 1)))  # (2 + B * L, D)
    numbers = torch.arange(count + 2, count + len(rows), device=vectors.device).view_as(batch.items)
    before, table.read = table.read, lambda items: F.embedding((items - count).clamp(min=0), rows)
    try:
        yield batch._replace(items=numbers.masked_fill(batch.items == PAD, PAD))
    finally:
        table.read = before


def _table(encoder: Encoder) -> ItemTable:
    for one in encoder.modules():
        if isinstance(one, ItemTable):
            return one
    raise UserError(f"{type(encoder).__name__} cannot read vectors: its items are in no seqcl.encoders.ItemTable")
