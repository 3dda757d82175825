"""Random choices of items, users and interactions that a split is made harder by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqcl.data.sequences import Sequences


def draw_cold_items(num_items: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a fraction of the items at random, the same ones for the same seed: (N + 2,) bool, true for a cold item."""
    cold = np.zeros(num_items + 2, bool)
    cold[1 + np.random.default_rng(seed).choice(num_items, round(fraction * num_items), replace=False)] = True
    return cold


def draw_users(num_users: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a fraction of the users at random, at least one, the same ones for the same seed: (U,) bool, true for those who train.

    Those of a smaller fraction are among those of a larger one.
    """
    trains = np.zeros(num_users, bool)
    trains[np.random.default_rng(seed).permutation(num_users)[: max(1, round(fraction * num_users))]] = True
    return trains


def with_noise(items: np.ndarray, known: np.ndarray, fraction: float, num_items: int, seed: int) -> np.ndarray:
    """Replace a fraction of the known interactions by items drawn uniformly, each by another one than it was.

    Those that a smaller fraction replaces are replaced by a larger one too, by the same items.

    Args:
        items: the packed log, (T,) int32.
        known: true for the interactions that training may know, (T,) bool.
        fraction: fraction of the known interactions.
        num_items: N, 2 or more.
        seed: decides which, and by what.

    Returns:
        (T,) int32, an array of its own.
    """
    random = np.random.default_rng(seed)
    order, steps = random.permutation(len(items)), random.integers(1, num_items, len(items))  # a step leads elsewhere
    places = order[known[order]][: round(fraction * int(known.sum()))]
    noisy = np.array(items)
    noisy[places] = (noisy[places] - 1 + steps[places]) % num_items + 1
    return noisy


def without_items(sequences: Sequences, cold: np.ndarray) -> tuple[Sequences, np.ndarray]:
    """Drop all interactions with the items marked in cold (N + 2,); rows close up where an item was.

    Returns:
        the smaller log, with the ids of the whole one; and (T + 1,) the place in it of each position of the whole log.
    """
    kept = ~cold[sequences.items]  # (T,)
    place = np.concatenate(([0], np.cumsum(kept)))  # (T + 1,)
    rest = replace(
        sequences,
        items=np.ascontiguousarray(sequences.items[kept]),
        offsets=place[sequences.offsets],
        times=None if sequences.times is None else sequences.times[kept],
    )
    return rest, place
