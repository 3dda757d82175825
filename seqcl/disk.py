"""Write files and folders that appear whole or not at all: beside their place first, then renamed. Text is UTF-8.

What is read back is opened only if it is a regular file, and a fault in it is the user's to hear of in one line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqcl.errors import UserError, brief

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PART = ".part-"
"""Begin of the name of an unfinished file or folder; a killed process leaves it behind, and `sweep` removes it."""

DAY_SECONDS = 86400
"""Age from which an unfinished file or folder is taken as left behind, where no lock can tell."""

FRESH_SECONDS = 600
"""Age up to which an empty unfinished folder may be one whose writer has yet to lock it."""


FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Errors of a file for which there is no room."""


@contextlib.contextmanager
def whole_file(path: Path, *, previous: Path | None = None) -> Iterator[Path]:
    """Give a path beside `path` to write a file to; at the end it is flushed to disk and renamed to `path`.

    The file has the mode that the umask gives, also where a library writes it under another one.

    Args:
        path: the file.
        previous: where the file that stood there before is kept, if the file system has hard links.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file stays as it was.
    """
    if path.exists() and not path.is_file():  # root could rename a file over a device
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(PART + uuid.uuid4().hex)
    try:
        beside.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # the name that the user gave
    mode = beside.stat().st_mode
    beside.unlink()
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if beside.stat().st_mode != mode:
            beside.chmod(mode)
        if previous is not None:
            keep(path, previous)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename is not None or error.errno not in FULL:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # a write that fails names no file
    finally:
        beside.unlink(missing_ok=True)


def check_place(path: Path | None, option: str) -> None:
    """Refuse a place where no file can be written, before any work is done.

    Args:
        path: the file that will be written; None: none will.
        option: the option that names it, for the message.

    Raises:
        UserError: a folder or a device is there, or the folder around it cannot be written.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {path}: {'a folder' if path.is_dir() else 'no regular file'} is there; name a file")
    above = next(one for one in path.absolute().parents if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {above} is no folder that can be written to")


def keep(path: Path, previous: Path) -> None:
    """Give the file at `path` the name `previous` too, in place of what has that name; without hard links, do nothing."""
    beside = path.with_name(PART + uuid.uuid4().hex)
    with contextlib.suppress(OSError):
        os.link(path, beside)
        beside.replace(previous)
    beside.unlink(missing_ok=True)  # two names of one file are not renamed into each other


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole.

    Raises:
        OSError: as `whole_file`.
    """
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def regular(path: Path) -> Path:
    """Give a path back if a regular file is there: opening a pipe in its place would wait for ever.

    Raises:
        UserError: nothing is there, or no file.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'it is not a regular file' if os.path.lexists(path) else 'no such file'}")
    return path


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        UserError: it is no regular file, cannot be read, or is not UTF-8.
    """
    try:
        return regular(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8 text") from None


def read_json(path: Path, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        kind: the type of the whole, such as dict; None: any.

    Raises:
        UserError: as `read_text`; or it is no JSON, is nested too deeply, or is of another kind.
    """
    try:
        found = json.loads(read_text(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits too
        raise UserError(f"{path}: it is not the JSON that was written: {brief(error)}") from None
    if kind is not None and not isinstance(found, kind):
        raise UserError(f"{path}: it is not the JSON that was written: it holds {brief(repr(found), 60)}")
    return found


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
        with locked(folder):
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
    """Remove what killed processes left in a folder: unfinished folders that nobody has locked, files of a day ago."""
    for left in folder.glob(PART + "*"):
        with contextlib.suppress(OSError):
            age = time.time() - left.stat().st_mtime
            if left.is_dir() and fcntl is not None and (any(left.iterdir()) or age > FRESH_SECONDS):
                with locked(left):
                    shutil.rmtree(left)
            elif age > DAY_SECONDS:
                left.unlink() if left.is_file() else shutil.rmtree(left)


def sweep_own(folder: Path) -> None:
    """Remove every unfinished file of a folder that nobody else writes to, those of safetensors too."""
    for left in [*folder.glob(PART + "*"), *folder.glob(".tmp??????")]:
        if left.is_file():
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold a file or folder for this process; the system lets go of it when the process ends, however it ends.

    Gives the handle; a process that inherits it holds the lock too. Where the system has no such locks (Windows), or the
    file system none, nothing is held.

    Raises:
        BlockingIOError: another process holds it.
    """
    if fcntl is None:
        yield None
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                raise
        yield handle
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush the renames in a folder to disk; on Windows there is no such call, and no need."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
