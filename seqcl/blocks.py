"""Blocks of scores: cut them, share them out over threads, exclude places, find the k best columns.

Ranking and retrieval use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

CPU_BLOCK_BYTES = 3 << 20
"""Size of a block on a CPU. It is read some five times; at this size it stays in the nearer caches of two cores."""
CPU_LARGEST_BYTES = 1 << 30
"""Most that a block on a CPU may take, of which each thread has one; it counts from 4 million columns on."""
GPU_BLOCK_BYTES = 256 << 20
ALIGN = 32
"""Columns between the starts of two rows of scores or logits, or a multiple of it.

Products are 1.2 to 1.9 times as fast when each row begins on a cache line.
"""


def block_rows(columns: int, device: torch.device) -> int:
    """Rows of float32 scores to hold at once: 64 to 1024 on a CPU, as fewer would read the item table too often.

    They are fewer only where 64 take more than `CPU_LARGEST_BYTES`.
    """
    if device.type == "cpu":
        wide = 4 * max(columns, 1)
        return min(max(CPU_BLOCK_BYTES // wide, 64), 1024, max(CPU_LARGEST_BYTES // wide, 1))
    return min(max(GPU_BLOCK_BYTES // (4 * max(columns, 1)), 64), 8192)


def block_buffer(rows: int, columns: int, device: torch.device) -> Tensor:
    """Memory for blocks of scores (rows, columns), used again for each; its rows begin on cache lines."""
    return torch.empty(rows, -(-columns // ALIGN) * ALIGN, device=device)[:, :columns]


def exclude_(scores: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Write minus infinity at the places `rows` (P,) and `columns` (P,) of scores (B, N), whose rows may lie apart."""
    apart = scores.stride(0)
    flat = scores.as_strided(((len(scores) - 1) * apart + scores.shape[1] if len(scores) else 0,), (1,))
    flat.index_fill_(0, rows * apart + columns, -torch.inf)


def over_blocks(work: Callable[[Iterator[int]], None], size: int, step: int, device: torch.device) -> None:
    """Call `work` with an iterator over the block starts 0, step, ... below size; on a CPU, threads share the starts.

    A block takes a dozen small operations. If each of them were split over the threads, these would wait for one
    another thousands of times a second. On a busy machine that took minutes instead of seconds.

    Args:
        work: handles each block that it draws; two blocks must not write to the same place.
        size: number of rows.
        step: rows of a block.
        device: device of the blocks.
    """
    starts = iter(range(0, size, step))
    threads = torch.get_num_threads()
    if device.type != "cpu" or min(threads, len(range(0, size, step))) < 2:
        work(starts)
        return
    inference = torch.is_inference_mode_enabled()

    def alone() -> None:
        with torch.inference_mode(inference), torch.no_grad():  # each thread has its own; the first sets the second
            work(starts)

    torch.set_num_threads(1)  # a new thread takes over this setting
    try:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(alone) for _ in range(threads)]:
                done.result()
    finally:
        torch.set_num_threads(threads)


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The min(k, N) largest scores of each row, largest first, and their columns.

    NaN counts as largest; the order among ties is free. On a CPU the columns are dealt into groups. Only the k groups
    with the largest maxima can hold one of the k largest, so the costly selection sees about N / size + size k columns
    instead of N. Measured at N = 12,101 and k = 20, groups of 6 to 8 took half the time of `torch.topk`. Larger groups
    lose more in the maxima than they save in the selection.

    Args:
        scores: (B, N).
        k: number of columns of each row.
    """
    k = min(k, scores.shape[1])
    size = round((scores.shape[1] / max(k, 1)) ** (1 / 3))  # members of a group
    if size < 3 or scores.device.type != "cpu":
        return tuple(scores.topk(k))  # type: ignore[return-value]
    width = scores.shape[1] // size  # groups; column c < size * width is in group c % width
    best = scores[:, : size * width].unflatten(1, (size, width)).amax(1)  # (B, width)
    groups = best.topk(k, sorted=False).indices  # (B, k)
    members = torch.arange(0, size * width, width)  # (size,)
    tail = torch.arange(size * width, scores.shape[1]).expand(len(scores), -1)  # columns in no group
    columns = torch.cat([(groups[:, :, None] + members).flatten(1), tail], 1)  # (B, k * size + tail)
    top = scores.gather(1, columns).topk(k)
    return top.values, columns.gather(1, top.indices)


def contains(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """True where an element of `keys`, of any shape, stands in `sorted_keys`."""
    if len(sorted_keys) == 0:
        return np.zeros(keys.shape, dtype=bool)
    place = np.searchsorted(sorted_keys, keys).clip(max=len(sorted_keys) - 1)
    return sorted_keys[place] == keys
