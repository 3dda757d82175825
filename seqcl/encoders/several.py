"""Several encoders of one kind side by side, whose scores are averaged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders.base import Encoder, Exported
from seqcl.errors import UserError
from seqcl.types import SeqBatch, Similarity


class Several(Encoder):
    """States and items of all members, one after the other: an inner product, or cosine, is the mean of theirs.

    Args:
        members: K encoders of one kind and width, for the same items.
        similarity: how states and items are compared.

    Raises:
        UserError: there are not two or more.
    """

    def __init__(self, members: Iterable[Encoder], *, similarity: Similarity) -> None:
        found = list(members)
        if len(found) < 2:
            raise UserError(f"an ensemble needs two networks or more, not {len(found)}")
        first = found[0]
        super().__init__(num_items=first.num_items, max_len=first.max_len, dim=sum(one.dim for one in found))
        self.members = nn.ModuleList(found)
        self.similarity = similarity
        self.one_pass, self.causal, self.fixed_shapes = first.one_pass, first.causal, first.fixed_shapes

    def each(self) -> list[Encoder]:
        """The members, which learn apart from each other."""
        return cast(list[Encoder], list(self.members))

    def joined(self, parts: Iterable[Tensor]) -> Tensor:
        """Vectors of the members, of unit length where cosines count: K times (..., D) -> (..., K D)."""
        unit = self.similarity == "cosine"
        return torch.cat([F.normalize(one, dim=-1) if unit else one for one in parts], -1)

    def states(self, parts: Iterable[Tensor]) -> Tensor:
        """The same of states; a K-th of each where inner products count."""
        found = self.joined(parts)
        return found if self.similarity == "cosine" else found / len(self.members)

    def item_embeddings(self) -> Tensor:
        """The tables of all members: (N + 2, K D)."""
        return self.joined(one.item_embeddings() for one in self.each())

    def item_vectors(self, items: Tensor) -> Tensor:
        """Embeddings of items (n,): (n, K D)."""
        return self.joined(one.item_vectors(items) for one in self.each())

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, K D)."""
        return self.states(one(batch) for one in self.each())

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, K D)."""
        return self.states(one.last(batch) for one in self.each())

    def exported(self) -> Exported:
        """The facts from which a bundle makes this encoder again."""
        found = [one.exported() for one in self.each()]
        weights = {f"members.{k}.{name}": one for k, own in enumerate(found) for name, one in own.weights.items()}
        return replace(found[0], weights=weights, networks=len(found))
