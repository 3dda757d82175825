"""Markov chains over items, with known best metrics, and their shuffled control, which leaves only chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seqcl.data.interactions import Interactions
from seqcl.errors import UserError
from seqcl.types import Windows

DAY = 86400.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Markov:
    """A Markov chain and a log drawn from it: the next item depends on the last `order` items.

    Args:
        interactions: the log; the raw id of an item is its state.
        successors: (N ** (order - 1), N, branching) int32: items that may follow, by the older items and the newest one.
        chances: (branching,) probability of each successor, the highest first.
        order: number of newest items that the next one depends on.
    """

    interactions: Interactions
    successors: np.ndarray
    chances: np.ndarray
    order: int

    def ceiling(
        self, windows: Windows, item_ids: np.ndarray, *, ks: Sequence[int] = (5, 10, 20), exclude_seen: bool = False
    ) -> dict[str, float]:
        """Expected recall@k and ndcg@k of a ranking by the true chances, the best possible, over evaluation windows.

        Args:
            windows: evaluation windows, one target each.
            item_ids: raw id of item j at item_ids[j - 1], as in Sequences.
            ks: lengths of the ranked list, in items.
            exclude_seen: do not recommend a user's earlier items; a target among them is then never found.

        Raises:
            UserError: a window is shorter than the chain's order.
        """
        if (windows.stop - windows.offsets[windows.users] < self.order).any():
            raise UserError(f"a chain of order {self.order} needs histories of {self.order} items or more")
        states = np.asarray(item_ids, np.int64)
        recent = [states[windows.items[windows.stop - 1 - back] - 1] for back in range(self.order)]  # newest first
        following = self.successors[context(recent[1:], self.successors.shape[1]), recent[0]]  # (W, branching)
        chances = np.broadcast_to(self.chances, following.shape)
        if exclude_seen:
            seen = np.zeros(following.shape, bool)
            for row, user in enumerate(windows.users):
                history = windows.items[windows.offsets[user] : windows.stop[row]]
                seen[row] = np.isin(following[row], states[history - 1])
            chances = np.where(seen, 0.0, chances)
        ranked = -np.sort(-chances, axis=1).astype(np.float64)  # (W, branching)
        gain = ranked / np.log2(np.arange(ranked.shape[1]) + 2.0)
        best: dict[str, float] = {}
        for k in ks:
            best[f"recall@{k}"] = float(ranked[:, :k].sum(1).mean())
            best[f"ndcg@{k}"] = float(gain[:, :k].sum(1).mean())
        return best


def context(older: Sequence[np.ndarray], items: int) -> np.ndarray | int:
    """One number for the items before the newest one, given newest first."""
    number: np.ndarray | int = 0
    for states in older:
        number = number * items + states
    return number


def markov(
    *, users: int = 2000, items: int = 500, length: int = 20, order: int = 1, branching: int = 4, seed: int = 0
) -> Markov:
    """Draw a log from a Markov chain in which every item is equally frequent, so that popularity gives chance.

    After any `order` items one of `branching` items follows; each is half as likely as the one before it.

    Args:
        users: number of sequences.
        items: number of states of the chain.
        length: mean length of a sequence; drawn uniformly from length - length // 2 to length + length // 2.
        order: number of items that the next one depends on; the chain has items ** order contexts.
        branching: number of items that may follow a context.
        seed: seed of all random draws.

    Raises:
        UserError: the sizes do not fit together.
    """
    if users < 2 or order < 1 or length - length // 2 < 1 or not 1 <= branching <= items:
        raise UserError(
            f"a chain needs users >= 2, length >= 1, order >= 1 and 1 <= branching <= items, not users={users}, "
            f"length={length}, order={order}, branching={branching}, items={items}"
        )
    if items**order * branching > 2**28:
        raise UserError(f"items ** order * branching is {items**order * branching:,}; at most {2**28:,}")
    random = np.random.default_rng(seed)
    successors = draw_successors(random, items, order, branching)
    chances = 0.5 ** np.arange(branching)
    chances /= chances.sum()
    sizes = random.integers(length - length // 2, length + length // 2 + 1, users)
    width = int(sizes.max())
    chain = np.empty((users, width), np.int32)
    bounds = np.cumsum(chances)[:-1]
    for step in range(width):
        if step < order:
            chain[:, step] = random.integers(0, items, users)
            continue
        older = context([chain[:, step - back] for back in range(2, order + 1)], items)
        branch = np.searchsorted(bounds, random.random(users), side="right")
        chain[:, step] = successors[older, chain[:, step - 1], branch]
    real = np.arange(width) < sizes[:, None]
    begin = random.integers(0, 365, users)[:, None] * DAY
    times = begin + np.arange(width) * DAY
    return Markov(
        interactions=Interactions(
            users=np.repeat(np.arange(users, dtype=np.int32), sizes),
            items=chain[real],
            user_ids=np.arange(users, dtype=np.int64),
            item_ids=np.arange(items, dtype=np.int64),
            times=times[real],
            name="markov",
            source="markov",
        ),
        successors=successors,
        chances=chances,
        order=order,
    )


def draw_successors(random: np.random.Generator, items: int, order: int, branching: int) -> np.ndarray:
    """Draw distinct successors of each context; whatever the older items, every item follows equally often: (contexts, N, branching)."""
    contexts = items ** (order - 1)
    shuffle = random.permuted(np.tile(np.arange(items, dtype=np.int32), (contexts, 1)), axis=1)  # (contexts, N)
    shift = random.permutation(items)[:branching]  # distinct shifts of one permutation never meet
    index = (np.arange(items)[:, None] + shift) % items  # (N, branching)
    return shuffle[:, index]


def shuffled(interactions: Interactions, *, seed: int = 0) -> Interactions:
    """The same log with its items shuffled over all rows: counts stay, all order is lost."""
    items = np.random.default_rng(seed).permutation(interactions.items)
    return replace(interactions, items=items, name=f"{interactions.name}-shuffled")
