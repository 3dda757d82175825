"""Write files and folders that appear whole or not at all: beside their place first, then renamed. Text is UTF-8."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

PART = ".part-"
"""Begin of the name of an unfinished file or folder; a killed process leaves it behind, and `sweep` removes it."""

DAY_SECONDS = 86400
"""Age from which an unfinished file or folder is taken as left behind."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write a file to; at the end it is flushed to disk and renamed to `path`.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file stays as it was.
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
    """Give an empty folder to fill; at the end its files are flushed to disk and it is renamed to `place`.

    If another process has made `place` meanwhile, that folder stays, and the new one is dropped: both hold the same.

    Raises:
        OSError: the disk is full, or the parent folder cannot be written; nothing is left behind.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    sweep(place.parent)
    folder = place.with_name(PART + uuid.uuid4().hex)
    folder.mkdir()
    try:
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
        try:
            folder.rename(place)
        except OSError:
            if not place.is_dir():
                raise
        sync_folder(place.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_folder(source: Path, place: Path) -> bool:
    """Make a folder of hard links to the files of another, which must never be written to again.

    Returns false, with nothing made, where that cannot be: on another disk, or where links are not allowed.
    """
    try:
        with whole_folder(place) as folder:
            for file in source.iterdir():
                (folder / file.name).hardlink_to(file)
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove unfinished files and folders that killed processes left in a folder more than a day ago."""
    for left in folder.glob(PART + "*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY_SECONDS:
                left.unlink() if left.is_file() else shutil.rmtree(left)


def sync_folder(folder: Path) -> None:
    """Flush the renames in a folder to disk; on Windows there is no such call, and no need."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
