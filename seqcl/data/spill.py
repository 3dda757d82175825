"""Columns of numbers in files of a folder: written and read a stretch at a time, so that none is ever whole in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np


class Spill:
    """Columns of one length in raw files.

    Args:
        folder: a new folder for the files; a file is named after its column.
        kinds: the dtype of each column.
        rows: the length, where rows are not appended but put into their places.

    Raises:
        OSError: the disk is full, or the folder cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, kinds: Mapping[str, np.dtype], *, rows: int = 0) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.kinds = dict(kinds)
        for name, kind in kinds.items():
            with (folder / name).open("wb") as file:
                file.truncate(rows * kind.itemsize)

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write further rows after the last ones."""
        for name, kind in self.kinds.items():
            with (self.folder / name).open("ab") as file:
                file.write(np.ascontiguousarray(columns[name], kind).data)

    def put(self, columns: Mapping[str, np.ndarray], stretches: Iterable[tuple[int, int, int]]) -> None:
        """Write stretches of rows: those from `begin` to before `end` to the place `place`, for each (begin, end, place)."""
        stretches = list(stretches)
        for name, kind in self.kinds.items():
            column = np.ascontiguousarray(columns[name], kind)
            with (self.folder / name).open("rb+") as file:
                for begin, end, place in stretches:
                    file.seek(place * kind.itemsize)
                    file.write(column[begin:end].data)

    def take(self, begin: int, end: int, columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The rows from `begin` to before `end` of some columns; None: of all."""
        return {
            name: np.fromfile(self.folder / name, kind, end - begin, offset=begin * kind.itemsize)
            for name, kind in self.kinds.items()
            if columns is None or name in columns
        }

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder)
