"""Where the data room's files lie, which belong together, and how they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import seqcl
from seqcl.errors import UserError

PART = ".part-"
"""How what is still being written is called; a killed process leaves it behind, and a later one clears it away."""


ATTRIBUTES = "_item2attributes.json"
"""How the file beside a log NAME.txt, NAME.csv, ... goes on after NAME that says what its items are, as S3-Rec has it."""


def data_folder() -> Path:
    """Where data sets land: $SEQCL_DATA, else `data` in the source tree seqcl runs from, else in the current folder."""
    if chosen := os.environ.get("SEQCL_DATA"):
        return Path(chosen)
    tree = Path(seqcl.__file__).resolve().parents[1]
    return (tree if (tree / "setup.cfg").is_file() else Path.cwd()) / "data"


def log_files(path: Path) -> list[Path]:
    """The files that hold one log: the path itself, or what a folder has of one.

    Raises:
        UserError: nothing is there, or a folder holds no log or several.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    atomic = sorted(path.glob("*.inter"))
    if atomic:
        own = [file for file in atomic if file.stem == path.name]
        if len(atomic) > 1 and not own:
            raise UserError(f"{path}: several .inter files, name one: {', '.join(file.name for file in atomic)}")
        return own or atomic
    found = sorted(path.glob("*.parquet"))
    if not found:
        raise UserError(f"{path}: the folder holds neither a .inter file nor .parquet parts")
    return found


def feature_files(path: Path) -> dict[str, Path]:
    """The .user and .item files beside an atomic log, by kind."""
    if path.suffix != ".inter":
        return {}
    return {kind: near for kind in ("user", "item") if (near := path.with_suffix(f".{kind}")).is_file()}


def attribute_file(place: Path) -> Path | None:
    """The file beside a log (a file or a folder) that says what its items are, if it is there and no .item file can be."""
    near = place.with_name(log_name(place) + ATTRIBUTES)
    return near if near.is_file() and not feature_files(log_files(place)[0]) else None


def log_name(path: Path) -> str:
    """What a log is called by default: its file's name without suffixes, or its folder's name."""
    return path.resolve().name if path.is_dir() else path.name.removesuffix(".gz").rsplit(".", 1)[0]


@contextlib.contextmanager
def fresh_folder(place: Path) -> Iterator[Path]:
    """A folder to fill, flushed to disk and renamed to `place` at the end; nothing stays of one that fails.

    Where another process was first, its folder stays: both hold the same.
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


def replace_text(path: Path, text: str) -> None:
    """Write a small file as a whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(PART + uuid.uuid4().hex)
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left over a day ago."""
    for left in folder.glob(PART + "*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                left.unlink() if left.is_file() else shutil.rmtree(left)
