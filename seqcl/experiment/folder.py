"""The files of a run folder, each whole or not at all."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path

from seqcl import disk, processes
from seqcl.data import Sequences
from seqcl.errors import UserError
from seqcl.evaluation import Result
from seqcl.training import last_checkpoint

log = logging.getLogger("seqcl")

LATEST = "latest"
"""Name of the link to the run that has ended last, beside the runs."""


UNENDED = "unended"
"""Name of the file that a run has while it goes on under another configuration than that of its figures."""


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder named after `name` and the time, with a number if two runs start in one second."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = parent / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(f"--runs {parent}: {error.strerror}") from None
    raise UserError(f"--runs {parent}: no free name left for {name}-{stamp}")


def runs_with(folder: Path, pattern: str) -> list[Path]:
    """The files of runs that a pattern finds in a folder, each once: not through the link `latest`."""
    return [file for file in folder.glob(pattern) if not file.parent.is_symlink()]


def newest_begun(parent: Path) -> Path | None:
    """The run in a folder of runs that was begun last and has not ended, if there is one."""
    runs = [file.parent for file in runs_with(parent, "*/config.yaml")]
    begun = [run for run in runs if not (run / "metrics.json").is_file() or (run / UNENDED).exists()]
    return max(begun, key=lambda folder: (folder / "config.yaml").stat().st_mtime, default=None)


def link_latest(folder: Path) -> None:
    """Let `latest`, beside a run that has just ended, lead to it; systems without links, and another file of this name, are left alone."""
    folder = folder.resolve()  # a run may go on through the link
    link, beside = folder.parent / LATEST, folder.parent / f"{disk.PART}{uuid.uuid4().hex}"
    if link.exists() and not link.is_symlink():
        return
    with suppress(OSError):
        beside.symlink_to(folder.name, target_is_directory=True)
        beside.replace(link)
    beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file of the run as a whole.

    Raises:
        UserError: the disk is full, or the folder cannot be written; the old file is as it was.
    """
    try:
        disk.write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def write_config(folder: Path, text: str) -> None:
    """Write the configuration of a run; where it has figures of another one already, they are marked as not its own."""
    file = folder / "config.yaml"
    if (folder / "metrics.json").is_file() and file.is_file() and file.read_text(encoding="utf-8") != text:
        write_text(folder / UNENDED, "metrics.json is of the configuration before this run went on\n")
    write_text(file, text)


def write_figures(folder: Path, text: str) -> None:
    """Write the figures of a run, which are now those of its configuration."""
    write_text(folder / "metrics.json", text)
    (folder / UNENDED).unlink(missing_ok=True)


@contextmanager
def unchanged_if_refused(folder: Path) -> Iterator[None]:
    """Inside, a mistake that comes before the run has gone on leaves its configuration as it was."""
    file, last = folder / "config.yaml", last_checkpoint(folder)
    before = file.read_text(encoding="utf-8") if file.is_file() else None
    saved = last.stat().st_mtime_ns if last.exists() else None
    ended = not (folder / UNENDED).exists()
    try:
        yield
    except UserError:
        if (
            processes.is_first()
            and before is not None
            and saved == (last.stat().st_mtime_ns if last.exists() else None)
        ):
            write_text(file, before)
            if ended:
                (folder / UNENDED).unlink(missing_ok=True)
        raise


def write_ranks(result: Result, sequences: Sequences, path: Path) -> None:
    """Write the rank of every test target, with raw ids."""
    import pandas as pd

    columns = {
        "user": sequences.user_ids[result.users],
        "target": sequences.item_ids[result.targets - 1],
        "rank": result.ranks,
    }
    with disk.whole_file(path) as beside:
        beside.write_bytes(
            pd.DataFrame(columns).to_parquet(index=False)
        )  # pandas takes no path that is not ASCII under LC_ALL=C


@contextmanager
def early_log() -> Iterator[list[logging.LogRecord]]:
    """Inside, keep what seqcl logs, for a file that is not there yet."""
    handler, level = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Inside, no other process can go on with the run; a process that is killed holds it no longer.

    Raises:
        UserError: another process is at it.
    """
    path = folder / "log.txt"  # of the files of a run, this one alone is there from the start and never replaced
    path.touch()
    with ExitStack() as held:
        try:
            held.enter_context(disk.locked(path))
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process trains this run; let it end, or end it, before --resume"
            ) from None
        if disk.fcntl is None:
            log.warning("this system has no locks: take care that no two processes go on with %s", folder)
        disk.sweep_own(folder)
        yield


@contextmanager
def log_file(path: Path, early: Sequence[logging.LogRecord] = ()) -> Iterator[None]:
    """Inside, add what seqcl logs to the file, after what was kept before."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for record in early:
        handler.handle(record)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
