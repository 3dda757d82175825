"""The base class of all encoders, and of those with an item table of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqcl.encoders.table import ItemTable, at_least_one
from seqcl.errors import UserError
from seqcl.types import SeqBatch


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The facts from which a bundle makes an encoder again, without the log.

    Args:
        weights: state of the encoder that the bundle builds, by name.
        longest: longest row of the encoder that is built by name, in items.
        num_items: N.
        towers: options and user columns of `TwoTower`, as JSON; None for any other encoder.
        kept: layers of a projection head behind it, as `Extended` has them.
        networks: how many of it stand side by side, as in `Several`.
    """

    weights: dict[str, Tensor]
    longest: int
    num_items: int
    towers: dict[str, Any] | None = None
    kept: int = 0
    networks: int = 1


class Encoder(nn.Module):
    """Turns sequences into states; knows nothing of losses, views or targets.

    A subclass gives `item_embeddings` and `forward`, and `last` where that is cheaper or another state. It changes the
    flags below if the defaults are not true of it.

    Args:
        num_items: N, ids 1..N; the MASK is N + 1.
        max_len: longest row, in items.
        dim: width D of states and item embeddings.
    """

    one_pass: bool = True
    """All positions of a row can learn their next item in one pass."""

    causal: bool = True
    """The state at t reads no item after t."""

    fixed_shapes: bool = False
    """No shape depends on the lengths of the rows while it is compiled, or on a GPU."""

    both_ways: bool = False
    """`causal` may be set to False for a while; states then read the whole row."""

    def __init__(self, *, num_items: int, max_len: int, dim: int) -> None:
        super().__init__()
        self.num_items, self.max_len, self.dim = num_items, max_len, dim

    def item_embeddings(self) -> Tensor:
        """The tied table (N + 2, D): row 0 is PAD, row N + 1 is MASK."""
        raise NotImplementedError(f"{type(self).__name__} needs item_embeddings()")

    def forward(self, batch: SeqBatch) -> Tensor:
        """The state after every position: (B, L, D); the values at padding are undefined."""
        raise NotImplementedError(f"{type(self).__name__} needs forward(batch)")

    def last(self, batch: SeqBatch) -> Tensor:
        """The state that predicts the item after the newest one: (B, D).

        Here it is the forward pass at lengths - 1. For a causal encoder it equals that, and is cheaper where it can be.
        """
        states: Tensor = self(batch)  # (B, L, D)
        return states[torch.arange(states.shape[0], device=states.device), batch.lengths - 1]

    @property
    def depth(self) -> int:
        """Number of blocks whose states `by_block` gives; an encoder without blocks is one."""
        return 1

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        """The state that `last` would give if the encoder ended after each of its blocks: (B, depth, D).

        The gradient of block k reaches blocks k - overlap to k; it reaches the item embeddings from block 1, and where
        k - overlap is below 1.
        """
        return self.last(batch)[:, None]

    def item_vectors(self, items: Tensor) -> Tensor:
        """Embeddings of items (n,): (n, D)."""
        return self.item_embeddings()[items]

    def each(self) -> list[Encoder]:
        """The encoders that learn apart from each other: this one alone."""
        return [self]

    def exported(self) -> Exported:
        """The facts from which a bundle makes this encoder again."""
        return Exported(weights=self.state_dict(), longest=self.max_len, num_items=self.num_items)


class TableEncoder(Encoder):
    """An encoder that reads items from a table of its own, which it ties to the scores."""

    def __init__(self, *, num_items: int, max_len: int, dim: int) -> None:
        at_least_one(dim=dim, max_len=max_len)
        super().__init__(num_items=num_items, max_len=max_len, dim=dim)
        self.table = ItemTable(num_items, dim)

    def item_embeddings(self) -> Tensor:
        """The tied table (N + 2, D)."""
        return self.table.weight

    def check_length(self, batch: SeqBatch) -> None:
        """Refuse rows longer than max_len.

        Raises:
            UserError: names both lengths.
        """
        length = batch.items.shape[1]
        if length > self.max_len:
            raise UserError(f"a row of {length} items is longer than the encoder's max_len={self.max_len}")
