"""What a run leaves on disk, each file whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path

import yaml
from jsonargparse import Namespace

from seqcl.data import Sequences
from seqcl.errors import UserError
from seqcl.evaluation import Result

log = logging.getLogger("seqcl")

PACKED = "sequences"
"""Folder in a run that holds the packed log, where that came as a data frame and cannot be found again."""


def new_folder(parent: Path, name: str) -> Path:
    """A folder that was not there: name and time, with a number if two runs start in one second."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = parent / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
            if not folder.exists():
                folder.mkdir()
                return folder
    except OSError as error:
        raise UserError(f"--runs {parent}: {error.strerror}") from None
    raise UserError(f"--runs {parent}: no free name left for {name}-{stamp}")


def write_text(path: Path, text: str) -> None:
    """All of the text or nothing: written beside and renamed."""
    beside = path.with_name(path.name + ".tmp")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def write_ranks(result: Result, sequences: Sequences, path: Path) -> None:
    """The rank of every test target, with raw ids."""
    import pandas as pd

    columns = {
        "user": sequences.user_ids[result.users],
        "target": sequences.item_ids[result.targets - 1],
        "rank": result.ranks,
    }
    pd.DataFrame(columns).to_parquet(path, index=False)


def to_yaml(config: Namespace) -> str:
    """The resolved configuration, as --config reads it."""
    return yaml.safe_dump(config.as_dict(), sort_keys=False)


@contextmanager
def early_log() -> Iterator[list[logging.LogRecord]]:
    """Inside, what seqcl logs is kept, for a file that is not there yet."""
    handler, level = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def log_file(path: Path, early: Sequence[logging.LogRecord] = ()) -> Iterator[None]:
    """Inside, what seqcl logs is added to the file, after what was kept before."""
    handler = logging.FileHandler(path)
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
