"""Sampled candidates: the few negatives that each target is ranked among, where the ranking is not full."""

from __future__ import annotations

import numpy as np

from seqcl.blocks import contains
from seqcl.errors import UserError
from seqcl.types import Windows

CHUNK_ROWS = 4096


def draw_negatives(
    windows: Windows, count: int, *, weights: np.ndarray, exclude_seen: bool, generator: np.random.Generator
) -> np.ndarray:
    """Draw `count` different columns for each window, one after another in proportion to `weights`: (W, count) int32.

    The target is never drawn, nor an item of the history if `exclude_seen`. The draws depend on the generator, not on
    batches.

    Args:
        windows: one target each.
        count: negatives of each target.
        weights: (N,), not negative; a column of weight zero is never drawn.
        exclude_seen: leave the items of the history out.
        generator: source of all randomness.

    Raises:
        UserError: fewer than `count` columns are left for a window.
    """
    if count > np.count_nonzero(weights):
        raise UserError(f"--eval.sampled {count}: there are {np.count_nonzero(weights)} items; lower --eval.sampled")
    drawn = np.empty((len(windows), count), dtype=np.int32)
    for start in range(0, len(windows), CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, len(windows))
        barred = barred_keys(windows, start, stop, exclude_seen)
        left = np.count_nonzero(weights) - np.bincount(
            barred[weights[barred % len(weights)] > 0] // len(weights), minlength=stop - start
        )
        if left.min() < count:
            user = int(windows.users[start + left.argmin()])
            raise UserError(
                f"--eval.sampled {count}: row {user} of the log has only {left.min()} candidates left; "
                "lower --eval.sampled"
            )
        drawn[start:stop] = draw_rows(barred, stop - start, count, weights, generator)
    return drawn


def barred_keys(windows: Windows, start: int, stop: int, exclude_seen: bool) -> np.ndarray:
    """Keys row * N + column of the columns that must not be drawn, sorted, each once."""
    rows = np.arange(stop - start)
    keys = rows * windows.num_items + windows.items[windows.stop[start:stop]] - 1
    if exclude_seen:
        begin = windows.offsets[windows.users[start:stop]]
        sizes = windows.stop[start:stop] - begin
        seen_rows = np.repeat(rows, sizes)
        where = np.arange(len(seen_rows)) + (begin - np.cumsum(sizes) + sizes)[seen_rows]
        keys = np.concatenate([keys, seen_rows * windows.num_items + windows.items[where] - 1])
    return np.unique(keys)


def draw_rows(
    barred: np.ndarray, rows: int, count: int, weights: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Draw without replacement: draw with it, and keep the columns that are new and allowed: (rows, count)."""
    ladder = np.cumsum(weights, dtype=np.float64)
    last = int(np.flatnonzero(weights)[-1])
    pool = np.empty((rows, 0), dtype=np.int64)
    for _ in range(4):
        steps = generator.random((rows, count + 16)) * ladder[-1]
        pool = np.concatenate([pool, np.searchsorted(ladder, steps, side="right").clip(max=last)], axis=1)
        good = allowed(pool, barred, len(weights))
        if (good.sum(1) >= count).all():
            break
    # Take the first `count` good ones in the order of drawing.
    order = np.argsort(~good, axis=1, kind="stable")[:, :count]
    chosen = np.take_along_axis(pool, order, axis=1)
    for row in np.flatnonzero(good.sum(1) < count):
        chosen[row] = draw_rest(pool[row, good[row]], row, barred, count, weights, generator)
    return chosen


def allowed(pool: np.ndarray, barred: np.ndarray, columns: int) -> np.ndarray:
    """True where a draw is not barred and is the first of its column in the row."""
    order = np.argsort(pool, axis=1, kind="stable")
    ordered = np.take_along_axis(pool, order, axis=1)
    new = np.ones(pool.shape, dtype=bool)
    np.put_along_axis(new, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    keys = pool + np.arange(len(pool))[:, None] * columns
    return new & ~contains(barred, keys)


def draw_rest(
    have: np.ndarray, row: int, barred: np.ndarray, count: int, weights: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Complete one row exactly, by the largest log weight plus Gumbel noise; slow, for rows with few columns left."""
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + generator.gumbel(size=len(weights))
    mine = barred[np.searchsorted(barred, row * len(weights)) : np.searchsorted(barred, (row + 1) * len(weights))]
    keys[mine - row * len(weights)] = -np.inf
    keys[have] = np.inf
    return np.argsort(-keys, kind="stable")[:count]
