"""Two towers: a history with the features of its user, and items with their features (Yao et al., arXiv 2007.12865)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from seqcl.encoders.base import Encoder, Exported, TableEncoder
from seqcl.encoders.features import FeatureVectors
from seqcl.encoders.table import at_least_one
from seqcl.errors import UserError, check_choice
from seqcl.types import PAD, Features, SeqBatch

Reads = Literal["ids", "items"]
Hidden = Literal["zero", "learned"]


class TwoTower(Encoder):
    """An encoder whose states use features of the user, and whose item embeddings use features of the item.

    The user tower adds to the state of the history encoder, the item tower to the item's id embedding. Every objective works
    with it as with other encoders.

    Args:
        history: encodes the items of a row; its table holds the items' id embeddings.
        items: features of PAD, the items and MASK, N + 2 rows.
        users: features of the users, U + 1 rows; the last row is an unknown user.
        trained: (N + 2,) bool, items whose id embedding training reaches; the vectors of others leave it out.
        item_id: put the id embedding into an item's vector; without it, the vector is made of features alone.
        reads: the vector of an item that the history reads: its id embedding (ids), or the vector that is searched for
            (items), by which it reads items by their features too, also those that training never met.
        width: width K of one feature's vector.
        hidden: width of the towers' hidden layer.
        forget: chance in training that a row's user, or an item's id, is hidden, so that both towers learn to do without.
        dropout: fraction of the hidden layers dropped in training.
        masked: the vector of a feature that a view hides: zero, or a learned one (Yao et al.).
        sparse: move only the items of a step, which large catalogues need; weight decay and moments of the others stand still.

    Raises:
        UserError: a size below 1, or items without features whose ids are not used either.
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
        masked: Hidden = "zero",
        sparse: bool = False,
    ) -> None:
        if not isinstance(history, TableEncoder):
            raise UserError(
                f"TwoTower: {type(history).__name__} cannot read the history: it is no seqcl.encoders.TableEncoder"
            )
        super().__init__(num_items=history.num_items, max_len=history.max_len, dim=history.dim)
        at_least_one(width=width, hidden=hidden)
        if not 0 <= forget < 1:
            raise UserError(f"towers.forget must be from 0 to below 1, not {forget}")
        if not item_id and not items.columns:
            raise UserError("TwoTower: the items have no features, so towers.item_id must stay true")
        check_choice("towers.reads", reads, Reads)
        check_choice("towers.masked", masked, Hidden)
        if reads == "items" and not items.columns:
            raise UserError("TwoTower: the items have no features, so towers.reads must stay ids")
        self.options = {
            "item_id": item_id, "reads": reads, "width": width, "hidden": hidden, "forget": forget, "dropout": dropout,
            "masked": masked, "sparse": sparse,
        }  # fmt: skip
        table = history.table
        self.history = history
        self.one_pass, self.both_ways = history.one_pass, history.both_ways
        self.register_buffer("trained", torch.from_numpy(trained))  # (N + 2,)
        self.forget, self.sparse = forget, sparse
        table.sparse = sparse
        self.item_id, self.items_known, self.users_known, self.nobody = item_id, items, users, users.rows - 1
        self.item_columns = (["id"] if item_id else []) + items.columns
        learned = masked == "learned"
        self.item_features = FeatureVectors(items, width, learned=learned) if items.columns else None
        self.id_default = nn.Parameter(torch.randn(self.dim) * 0.02) if learned and item_id else None  # (D,)
        self.user_features = FeatureVectors(users, width) if users.columns else None
        if items.columns:
            self.item_tower = tower(len(items.columns) * width, hidden, self.dim, dropout)
        if reads == "items":
            table.read = self.read
        with torch.no_grad():  # an id that training never reaches would keep its first values, which are noise
            unmet = ~self.trained
            unmet[-1] = False
            table.weight[unmet] = 0
        if users.columns:
            self.user_tower = tower(self.dim + len(users.columns) * width, hidden, self.dim, dropout)

    @property
    def causal(self) -> bool:
        """True if the history's states read nothing after them."""
        return self.history.causal

    @causal.setter
    def causal(self, value: bool) -> None:
        self.history.causal = value

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

    @property
    def depth(self) -> int:
        return self.history.depth

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        """States after the newest items, block by block of the history, joined with their user: (B, depth, D)."""
        states = self.history.by_block(batch, overlap=overlap)
        if self.user_features is None:
            return states
        return self.join(states, self.known_of(batch)[:, None].expand(-1, self.depth, -1))

    def join(self, states: Tensor, known: Tensor) -> Tensor:
        """Add to states (..., D) what the user tower makes of the features (..., F * K)."""
        return states + self.user_tower(torch.cat((states, known), -1))

    def read(self, items: Tensor) -> Tensor:
        """The vectors of items, from ids of any shape: (..., D)."""
        distinct, place = items.unique(return_inverse=True)
        return F.embedding(place, self.item_vectors(distinct).masked_fill((distinct == PAD)[:, None], 0))

    def reading_table(self) -> Tensor:
        """The vectors of PAD, the items and MASK that the history reads: (N + 2, D)."""
        return self.of_all(self.history.table)

    def known_of(self, batch: SeqBatch) -> Tensor:
        """Features of the users of a batch: (B, F * K)."""
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
            hidden: (n, F) bool over `item_columns`, the columns to leave out.
            drop: chance to leave out a word of a feature with several.
            generator: source of that chance.
        """
        ids = F.embedding(items, self.history.item_embeddings(), sparse=self.sparse) if self.item_id else None  # (n, D)
        if ids is not None:
            unknown = ~self.trained[items] & (items <= self.num_items)  # MASK is none of the items
            if self.training and hidden is None and self.item_features is not None:
                unknown = unknown | (torch.rand(items.shape, device=items.device) < self.forget)
            ids = ids.masked_fill(unknown[:, None], 0)
        if ids is not None and hidden is not None:
            ids = torch.where(hidden[:, :1], ids.new_zeros(()) if self.id_default is None else self.id_default, ids)
            hidden = hidden[:, 1:]
        if self.item_features is None:
            assert ids is not None
            return ids
        made = self.of_features(items, hidden=hidden, drop=drop, generator=generator)
        return made if ids is None else ids + made

    def of_features(
        self, items: Tensor, *, hidden: Tensor | None = None, drop: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        """Outputs of the item tower for items (n,): (n, D)."""
        assert self.item_features is not None
        return self.item_tower(self.item_features(items, hidden=hidden, drop=drop, generator=generator).flatten(1))

    def item_embeddings(self) -> Tensor:
        """Vectors of PAD, all items and MASK: (N + 2, D)."""
        return self.of_all(self.item_vectors)

    def of_all(self, made: Callable[[Tensor], Tensor]) -> Tensor:
        """Make something of PAD, all items and MASK, 65,536 at a time: (N + 2, D)."""
        parts = torch.arange(self.num_items + 2, device=self.trained.device).split(65536)
        if torch.is_grad_enabled() or len(parts) == 1:
            return torch.cat([made(part) for part in parts])
        table = torch.empty(self.num_items + 2, self.dim, device=self.trained.device)  # cat would need twice the memory
        for part in parts:
            table[part[0] : part[-1] + 1] = made(part)
        return table

    def exported(self) -> Exported:
        """The facts from which a bundle makes this encoder again; the history's table becomes the vectors that it reads."""
        history = self.history.exported()
        weights = self.state_dict() | {"history.table.weight": self.reading_table()}
        towers = {"options": self.options, "users": columns_of(self.users_known)}
        return Exported(weights=weights, longest=history.longest, num_items=history.num_items, towers=towers)


def columns_of(users: Features) -> dict[str, Any]:
    """The columns of features without their values, as JSON: words by column, names of numbers, widths of vectors."""
    return {
        "bags": {name: len(bag.names) for name, bag in users.bags.items()},
        "numbers": list(users.numbers),
        "vectors": {name: values.shape[1] for name, values in users.vectors.items()},
    }


def tower(wide: int, hidden: int, dim: int, dropout: float) -> nn.Module:
    """A network with one hidden layer."""
    return nn.Sequential(nn.Linear(wide, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
