"""Columns of numbers in files of a folder: written and read a stretch at a time, so that none is ever whole in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

BLOCK = 1 << 22
"""Values of a long array that are looked at together."""


class Spill:
    """Columns of one length in raw files.

    Args:
        folder: where the files are; a file is named after its column.
        kinds: the dtype of each column.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, kinds: Mapping[str, np.dtype]) -> None:
        folder.mkdir(parents=True)
        self.kinds = dict(kinds)
        self.paths = {name: folder / name for name in kinds}
        self.files = {name: path.open("wb") for name, path in self.paths.items()}

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write further rows after the last ones."""
        for name, kind in self.kinds.items():
            self.files[name].write(np.ascontiguousarray(columns[name], kind).data)

    def put(self, columns: Mapping[str, np.ndarray], place: int) -> None:
        """Write rows from the row `place` on."""
        for name, kind in self.kinds.items():
            self.files[name].seek(place * kind.itemsize)
            self.files[name].write(np.ascontiguousarray(columns[name], kind).data)

    def close(self) -> None:
        """End writing; what was written can be read then."""
        for file in self.files.values():
            file.close()

    def take(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """The rows from `begin` to before `end` of every column."""
        return {
            name: np.fromfile(self.paths[name], kind, end - begin, offset=begin * kind.itemsize)
            for name, kind in self.kinds.items()
        }

    def remove(self) -> None:
        """Remove the files."""
        self.close()
        for path in self.paths.values():
            path.unlink()


def blocks(length: int, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Begin and end of each block of an array."""
    for begin in range(0, length, size):
        yield begin, min(begin + size, length)


def let_go(array: np.ndarray) -> None:
    """Take the pages of a mapped file out of this process's memory: they are read again when they are needed.

    An array in memory stays as it is.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
