"""Look at arrays that are mapped from disk a block at a time, so that memory does not grow with their length."""

from __future__ import annotations

import itertools
import mmap
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 22
"""Values of a long array that are looked at together."""


def mapped_array(path: Path) -> np.ndarray:
    """Map the array of an .npy file into memory, to read.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no such file, or a damaged one.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (tokenize.TokenError, SyntaxError) as error:  # numpy reads the header as Python
        raise ValueError(f"{path.name} has a damaged header ({error})") from None


def blocks(length: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each block of an array."""
    for begin in range(0, length, BLOCK):
        yield begin, min(begin + BLOCK, length)


def first_users(offsets: np.ndarray) -> np.ndarray:
    """Cut users into stretches of about `BLOCK` items, whole users each: (S + 1,) the first user of each, and the end.

    Args:
        offsets: user u owns the items from offsets[u] to before offsets[u + 1], (U + 1,).
    """
    number = offsets[:-1] // BLOCK
    return np.concatenate(([0], np.flatnonzero(np.diff(number)) + 1, [len(number)]))


def stretches(offsets: np.ndarray) -> Iterator[tuple[slice, int, int]]:
    """The users of each stretch, and the begin and end of their items; as in `first_users`."""
    users = first_users(offsets).tolist()
    for begin, end in itertools.pairwise(users):
        yield slice(begin, end), int(offsets[begin]), int(offsets[end])


def let_go(*arrays: np.ndarray | None) -> None:
    """Take the pages of mapped files out of this process's memory: they are read again when they are needed.

    An array in memory stays as it is.
    """
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if array is not None and mapped is not None and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def shared(array: np.ndarray) -> Tensor:
    """A tensor on the CPU that shares the memory of an array, so that a mapped file stays mapped; nothing may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))
