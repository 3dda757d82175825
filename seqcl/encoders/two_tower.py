"""Two towers: a history with what is known of its user, and items with what is known of them (Yao et al., arXiv 2007.12865)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from seqcl.encoders.features import FeatureVectors
from seqcl.encoders.table import ItemTable, at_least_one
from seqcl.errors import UserError, check_choice
from seqcl.types import PAD, Encoder, Features, SeqBatch

Reads = Literal["ids", "items"]


class TwoTower(nn.Module):
    """An encoder whose states know the user and whose item embeddings know the item: with it every objective works as with others.

    Both towers add to what the history encoder gives (its state, its row of the item table) what a network makes of the features.

    Args:
        history: encodes the items of a row; its table is the items' id embedding.
        items: N + 2 rows of what is known of PAD, the items and MASK.
        users: U + 1 rows of what is known of the users and, last, of somebody unknown.
        trained: (N + 2,) bool, items whose id embedding training reaches; that of others is left out of their vectors.
        item_id: whether an item's vector has its id embedding in it; without, it is made of features alone.
        reads: what the history reads of an item: its id embedding (ids), or the vector that is searched for (items), so that it
            knows items by their features too, and those that training never met.
        width: width K of one feature's vector.
        hidden: width of the towers' hidden layer.
        forget: chance in training that a row's user, or an item's id, is not known, so that both towers meet what they do not know.
        dropout: share of the hidden layers dropped in training.
        sparse: whether a step moves only the items in it, which large catalogues need; weight decay and moments of the
            others then stand still.

    Raises:
        UserError: a size below 1, or items that nothing is known of and whose ids are not used either.
    """

    trained: Tensor

    def __init__(
        self,
        history: Encoder,
        *,
        items: Features,
        users: Features,
        trained: np.ndarray,
        item_id: bool = True,
        reads: Reads = "ids",
        width: int = 16,
        hidden: int = 128,
        forget: float = 0.1,
        dropout: float = 0.1,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        at_least_one(width=width, hidden=hidden)
        if not 0 <= forget < 1:
            raise UserError(f"towers.forget must be from 0 to below 1, not {forget}")
        if not item_id and not items.columns:
            raise UserError("TwoTower: nothing is known of the items but their ids, so towers.item_id must stay true")
        check_choice("towers.reads", reads, Reads)
        if reads == "items" and not items.columns:
            raise UserError("TwoTower: nothing is known of the items but their ids, so towers.reads must stay ids")
        table = getattr(history, "table", None)
        if not isinstance(table, ItemTable):
            raise UserError(
                f"TwoTower: {type(history).__name__} cannot read the history: its items are not in a table of ours"
            )
        self.history = history
        self.num_items, self.dim, self.max_len = history.num_items, history.dim, getattr(history, "max_len", None)
        self.one_pass = getattr(history, "one_pass", True)
        self.register_buffer("trained", torch.from_numpy(trained))  # (N + 2,)
        self.forget, self.sparse = forget, sparse
        table.sparse = sparse
        self.item_id, self.items_known, self.users_known, self.nobody = item_id, items, users, users.rows - 1
        self.item_columns = (["id"] if item_id else []) + items.columns
        self.item_features = FeatureVectors(items, width) if items.columns else None
        self.user_features = FeatureVectors(users, width) if users.columns else None
        if items.columns:
            self.item_tower = tower(len(items.columns) * width, hidden, self.dim, dropout)
        if reads == "items":
            table.read = self.read
        with torch.no_grad():  # the noise that an id begins with says nothing where training never reaches it
            unmet = ~self.trained
            unmet[-1] = False
            table.weight[unmet] = 0
        if users.columns:
            self.user_tower = tower(self.dim + len(users.columns) * width, hidden, self.dim, dropout)

    @property
    def causal(self) -> bool:
        """Whether the history's states read nothing that comes after them; not there where the history does not tell."""
        return self.history.causal  # type: ignore[attr-defined]

    @causal.setter
    def causal(self, value: bool) -> None:
        self.history.causal = value  # type: ignore[attr-defined]

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position, joined with their user: (B, L, D)."""
        states = self.history(batch)  # (B, L, D)
        if self.user_features is None:
            return states
        return self.join(states, self.known_of(batch)[:, None].expand(-1, states.shape[1], -1))

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items, joined with their user: (B, D)."""
        states = self.history.last(batch)  # (B, D)
        if self.user_features is None:
            return states
        return self.join(states, self.known_of(batch))

    def join(self, states: Tensor, known: Tensor) -> Tensor:
        """States (..., D) with what is known of their users (..., F * K)."""
        return states + self.user_tower(torch.cat((states, known), -1))

    def read(self, items: Tensor) -> Tensor:
        """The vectors of items, from ids of any shape: (..., D)."""
        distinct, place = items.unique(return_inverse=True)
        return F.embedding(place, self.item_vectors(distinct).masked_fill((distinct == PAD)[:, None], 0))

    def reading_table(self) -> Tensor:
        """What the history reads of PAD, the items and MASK, as a table: (N + 2, D)."""
        items = torch.arange(self.num_items + 2, device=self.trained.device)
        return torch.cat([self.history.table(part) for part in items.split(65536)])  # type: ignore[attr-defined]

    def known_of(self, batch: SeqBatch) -> Tensor:
        """What is known of the users of a batch: (B, F * K)."""
        assert self.user_features is not None
        rows = torch.full_like(batch.lengths, -1) if batch.users is None else batch.users
        unknown = rows < 0
        if self.training:
            unknown = unknown | (torch.rand(rows.shape, device=rows.device) < self.forget)
        return self.user_features(torch.where(unknown, self.nobody, rows)).flatten(1)

    def item_vectors(
        self, items: Tensor, *, hidden: Tensor | None = None, drop: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        """Vectors of items (n,): (n, D).

        Args:
            items: ids.
            hidden: (n, F) bool over `item_columns`, what is to be left out.
            drop: chance that a word of a feature with several is left out.
            generator: what that is drawn from.
        """
        ids = F.embedding(items, self.history.item_embeddings(), sparse=self.sparse) if self.item_id else None  # (n, D)
        if ids is not None:
            unknown = ~self.trained[items] & (items <= self.num_items)  # MASK is none of the items
            if self.training and hidden is None and self.item_features is not None:
                unknown = unknown | (torch.rand(items.shape, device=items.device) < self.forget)
            ids = ids.masked_fill(unknown[:, None], 0)
        if ids is not None and hidden is not None:
            ids, hidden = ids.masked_fill(hidden[:, :1], 0), hidden[:, 1:]
        if self.item_features is None:
            assert ids is not None
            return ids
        made = self.of_features(items, hidden=hidden, drop=drop, generator=generator)
        return made if ids is None else ids + made

    def of_features(
        self, items: Tensor, *, hidden: Tensor | None = None, drop: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        """What the item tower makes of the features of items (n,): (n, D)."""
        assert self.item_features is not None
        return self.item_tower(self.item_features(items, hidden=hidden, drop=drop, generator=generator).flatten(1))

    def item_embeddings(self) -> Tensor:
        """Vectors of PAD, all items and MASK: (N + 2, D)."""
        items = torch.arange(self.num_items + 2, device=self.history.item_embeddings().device)
        return torch.cat([self.item_vectors(part) for part in items.split(65536)])


def tower(wide: int, hidden: int, dim: int, dropout: float) -> nn.Module:
    """A network with one hidden layer."""
    return nn.Sequential(nn.Linear(wide, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
