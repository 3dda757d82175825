"""Cold items: items taken out of training, so that a model knows only their features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqcl.data.sequences import Sequences


def draw_cold_items(num_items: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a fraction of the items at random, the same ones for the same seed: (N + 2,) bool, true for a cold item."""
    cold = np.zeros(num_items + 2, bool)
    cold[1 + np.random.default_rng(seed).choice(num_items, round(fraction * num_items), replace=False)] = True
    return cold


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
