"""Files and folders that appear whole or not at all: written beside their place and renamed. Text is UTF-8 everywhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

PART = ".part-"
"""How the name of an unfinished file or folder begins; a killed process leaves it behind, and a later one removes it."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; what is there at the end is flushed to disk and renamed to `path`.

    Raises:
        OSError: the disk is full, or the folder cannot be written; what stood under `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(PART + uuid.uuid4().hex)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole.

    Raises:
        OSError: as `whole_file`.
    """
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Give a folder to fill; at the end it is flushed to disk and renamed to `place`; nothing stays of one that fails.

    Where another process was first, its folder stays: both hold the same.

    Raises:
        OSError: the disk is full, or the parent folder cannot be written.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    sweep(place.parent)
    folder = place.with_name(PART + uuid.uuid4().hex)
    folder.mkdir()
    try:
        yield folder
        for file in folder.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        try:
            folder.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder more than a day ago."""
    for left in folder.glob(PART + "*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                left.unlink() if left.is_file() else shutil.rmtree(left)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
