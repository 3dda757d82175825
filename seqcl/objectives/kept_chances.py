"""The largest chances that teachers give to each position of training, taken once and found again by the position's row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from seqcl.errors import UserError
from seqcl.objectives.positions import places_of
from seqcl.objectives.teachers import Logits
from seqcl.types import Batches, SeqBatch

log = logging.getLogger("seqcl")

AT_ONCE = 256
"""Positions whose chances of all items exist at one time."""

Saying = Callable[[SeqBatch, Tensor], Logits]
"""Gives the chances of all items behind some places (T,) of a batch, flattened."""


class KeptChances:
    """Keeps the largest chances of every learned position, as shares of their sum: K * 6 bytes a position.

    A row is known again by its user, its items and how many of its positions are learned. Of two rows of a user that are
    the same in this, the first one's chances are taken for both.

    Args:
        batches: all training rows, with users.
        saying: what teachers say to the users of a group.
        size: K, chances to keep of a position.
        newest: the newest position of each row is the only one that is learned.
        groups: groups of users; a user is in the group of its number modulo this.
    """

    def __init__(
        self, batches: Batches, saying: Callable[[int], Saying], *, size: int, newest: bool, groups: int = 1
    ) -> None:
        self.multipliers = torch.zeros(0, dtype=torch.long)
        hashes, counts = list[Tensor](), list[Tensor]()
        items, shares, self.held = list[Tensor](), list[Tensor](), 0.0
        for group in range(groups):
            say = saying(group)
            for batch in batches:
                own = (cast(Tensor, batch.users) % groups == group).nonzero()[:, 0]
                if len(own):
                    rows = batch.each(lambda column, own=own: column[own])  # type: ignore[misc]
                    places = places_of(rows, newest=newest)
                    counts.append(positions_in(rows, places))
                    hashes.append(self.hashed(rows, counts[-1]))
                    self.take(say(rows, places), len(places), size, items, shares)
            log.info("asked the teachers, group %d of %d", group + 1, groups)
        known = torch.cat(hashes)
        self.hashes, order = known.sort(stable=True)  # (W,)
        sizes = torch.cat(counts)  # (W,)
        self.first = (sizes.cumsum(0) - sizes)[order]  # (W,), of the positions of each row
        self.items, self.shares = torch.cat(items), torch.cat(shares)  # (T, K) int32 and float16
        self.held /= max(len(self.items), 1)

    def take(self, chances: Logits, number: int, size: int, items: list[Tensor], shares: list[Tensor]) -> None:
        """Add the largest chances of so many positions to the lists."""
        for start in range(0, number, AT_ONCE):
            given = chances(slice(start, min(start + AT_ONCE, number)))
            best = given.topk(min(size, given.shape[1]))
            total = best.values.sum(1, keepdim=True)
            self.held += float(total.sum())
            items.append(best.indices.int())
            shares.append((best.values / total).half())

    def hashed(self, rows: SeqBatch, counts: Tensor) -> Tensor:
        """A number for each row with so many positions (B,), which another row has by chance once in 2 ** 64: (B,).

        Raises:
            UserError: the rows do not say whose they are.
        """
        if rows.users is None:
            raise UserError(
                "distil.kept needs to know whose each row is, and these rows have no users; leave distil.kept out"
            )
        width = rows.items.shape[1]
        if len(self.multipliers) < width + 3:
            odd = np.random.default_rng(0).integers(-(2**62), 2**62, 2 * width + 3) * 2 + 1
            self.multipliers = torch.from_numpy(odd).to(rows.items.device)
        about = torch.stack((rows.users, rows.lengths, counts), 1)  # (B, 3)
        return (about * self.multipliers[:3]).sum(1) + (rows.items * self.multipliers[3 : width + 3]).sum(1)

    def at(self, rows: SeqBatch, places: Tensor) -> tuple[Tensor, Tensor]:
        """The items, as columns of the table, and their chances at some places (T,) of rows, flattened: (T, K) each.

        Raises:
            UserError: the rows are not those of training as they are, or other positions of them are learned.
        """
        counts = positions_in(rows, places)
        hashes = self.hashed(rows, counts)
        where = torch.searchsorted(self.hashes, hashes).clamp_(max=len(self.hashes) - 1)
        if not ((self.hashes[where] == hashes) | (counts == 0)).all():
            raise UserError(
                "distil.kept: this model learns from other rows than those of its log, so chances that were kept do not fit "
                "them; leave distil.kept out"
            )
        row = places // rows.items.shape[1]
        rank = torch.arange(len(places), device=places.device) - (counts.cumsum(0) - counts)[row]
        index = self.first[where][row] + rank
        return self.items[index].long(), self.shares[index].float()


def positions_in(rows: SeqBatch, places: Tensor) -> Tensor:
    """Count the places (T,) of flattened rows in each row: (B,)."""
    return torch.bincount(places // rows.items.shape[1], minlength=len(rows.lengths))
