"""Write the best items of many users as one table. Its parts are kept until it is whole, so a killed job goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from seqcl import disk
from seqcl.errors import UserError, brief, unknown
from seqcl.experiment.answers import Asked
from seqcl.experiment.folder import log
from seqcl.experiment.histories import Histories
from seqcl.training.line import Line, duration
from seqcl.types import PAD

SUFFIXES = {".csv": ",", ".parquet": "", ".tsv": "\t"}
"""What stands between the cells of each format."""

USERS_A_PART = 20_000
ROWS_A_PART = 1_000_000
"""Longest parts, in users and in rows of the table: they set the memory, and the work that a kill can cost."""

ABOUT = "about.json"
"""The file in a folder of parts that says what was asked."""

MADE_FOR = b"seqcl.lists"
"""Key of the same facts in a Parquet file."""

PAUSE_SECONDS = 10.0
"""Time between two lines of progress, where no terminal shows one live."""


def write_lists(
    asked: Asked,
    histories: Histories,
    out: str | Path,
    *,
    k: int = 10,
    exclude_seen: bool = True,
    progress: bool = True,
) -> Path:
    """Write the k best items of every history as a table with a row an item: user_id, rank, item_id, score.

    Raw ids are of their own type, ranks begin with 1. Parts are kept in the folder OUT.parts until OUT is whole. The same call goes
    on after a kill, and gives the same bytes. Memory does not grow with the number of histories.

    Args:
        asked: a run or a bundle, as `of_run` and `of_bundle` in `answers` give it.
        histories: as `of_log` and `of_file` in `histories` give them.
        out: a new file: .parquet, .csv or .tsv. A Parquet file that holds the answer already is left as it is.
        k: length of the lists, in items; a list is shorter where fewer items are left.
        exclude_seen: leave out the items of the history.
        progress: show it on stderr.

    Raises:
        UserError: an unknown suffix, a k below 1, a file or parts of another question are in the way, or nothing can be
            written there; parts that are done are kept.
    """
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise unknown("suffix of --out", out.suffix, SUFFIXES)
    if k < 1:
        raise UserError(f"recommend: k must be 1 or more, not {k}")
    size = max(1, min(USERS_A_PART, ROWS_A_PART // k))
    question = {
        **asked.about,
        "histories": histories.fingerprint,
        "k": str(k),
        "filter": "seen" if exclude_seen else "none",
        "users_a_part": str(size),
    }
    folder = out.with_name(out.name + ".parts")
    if os.path.lexists(out):
        check_made(out, question)
        log.warning("%s is there already and answers this; it is left as it is", out)
        shutil.rmtree(folder, ignore_errors=True)
        return out
    try:
        with parts_folder(folder, question):
            files = []
            for first, last, path, told in parts_of(histories, folder, size, progress):
                files.append(path)
                if new := not path.exists():
                    found = asked.best(histories, first, last, k=k, exclude_seen=exclude_seen)
                    write_part(path, table(found, histories.user_ids, asked.item_ids))
                told.done(last, last - first if new else 0)
            with disk.whole_file(out) as beside, beside.open("wb") as file:
                join(files, file, SUFFIXES[out.suffix.lower()], question)
            shutil.rmtree(folder)
    except OSError as error:
        done = f"; what is done is kept in {folder}, and the same command goes on" if folder.is_dir() else ""
        raise UserError(f"{out}: the lists cannot be written: {error.strerror or brief(error)}{done}") from None
    return out


def parts_of(histories: Histories, folder: Path, size: int, shown: bool) -> Iterator[tuple[int, int, Path, Progress]]:
    """The first and last place of every part, its file, and who is told when it is done."""
    told = Progress(len(histories), shown=shown)
    try:
        for number, first in enumerate(range(0, len(histories), size)):
            yield first, min(first + size, len(histories)), folder / f"{number:06}.parquet", told
    finally:
        told.line.close()


def write_part(path: Path, rows: pa.Table) -> None:
    """Write a part, which appears whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    with (
        disk.whole_file(path) as beside,
        beside.open("wb") as file,
    ):  # Arrow takes no path that is not ASCII under LC_ALL=C
        parquet.write_table(rows, file)


def table(found: tuple[np.ndarray, np.ndarray, np.ndarray], user_ids: np.ndarray, item_ids: np.ndarray) -> pa.Table:
    """The rows of users (n,), scores (n, k) and items (n, k), without empty places."""
    users, scores, items = found
    owner, place = np.nonzero(items != PAD)
    return pa.table(
        {
            "user_id": pa.array(user_ids[users]).take(pa.array(owner)),
            "rank": pa.array((place + 1).astype(np.int32)),
            "item_id": pa.array(item_ids).take(pa.array(items[owner, place] - 1)),
            "score": pa.array(scores[owner, place]),
        }
    )


@contextmanager
def parts_folder(folder: Path, question: dict[str, str]) -> Iterator[None]:
    """Inside, the folder of parts is there and this process alone fills it.

    Raises:
        UserError: the parts are of another question, or another process fills it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(disk.locked(folder))
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process fills it; let it end, or end it, or give another --out"
            ) from None
        disk.sweep_own(folder)
        if (about := folder / ABOUT).exists():
            check_same(disk.read_json(about, dict), question, f"{folder} holds parts")
        elif any(folder.iterdir()):
            raise UserError(f"{folder}: no parts of lists are in it; remove it, or give another --out")
        else:
            disk.write_text(about, json.dumps(question, indent=1) + "\n")
        yield


def check_made(out: Path, question: dict[str, str]) -> None:
    """Refuse to touch a file that is there, unless it answers the question already.

    Raises:
        UserError: says how to go on.
    """
    made: Any = None
    if out.is_file() and out.suffix.lower() == ".parquet":
        try:
            with out.open("rb") as file:
                made = json.loads((parquet.read_schema(file).metadata or {}).get(MADE_FOR, b"null"))
        except (pa.ArrowException, ValueError, OSError):
            made = None
    if not isinstance(made, dict):
        raise UserError(
            f"{out} is there already, and nothing in it says that it answers this; remove it, or give another --out"
        )
    check_same(made, question, f"{out} is there already and holds lists")


def check_same(made: dict[str, Any], question: dict[str, str], what: str) -> None:
    """Refuse lists of another question.

    Raises:
        UserError: names the first difference.
    """
    for name in dict.fromkeys([*question, *made]):
        if (old := made.get(name)) != (new := question.get(name)):
            raise UserError(
                f"{what} of another question: {name} is {brief(old, 12)} there, {brief(new, 12)} now; "
                "remove it, or give another --out"
            )


def join(files: list[Path], target: IO[bytes], delimiter: str, question: dict[str, str]) -> None:
    """Write the parts one after the other as Parquet, or as text with a delimiter, one in memory at a time.

    Raises:
        UserError: a part is damaged.
    """
    with ExitStack() as held:
        writer: Any = None
        for path in files:
            try:
                with path.open("rb") as file:
                    rows = parquet.read_table(file)
            except (pa.ArrowException, OSError) as error:
                raise UserError(
                    f"{path}: it is not the part that was written ({brief(error, 60)}); remove it, and ask again"
                ) from None
            if not delimiter:
                rows = rows.replace_schema_metadata({MADE_FOR: json.dumps(question)})
            if writer is None:
                options = csv.WriteOptions(delimiter=delimiter or ",", quoting_style="needed")
                new = csv.CSVWriter if delimiter else parquet.ParquetWriter
                more = {"write_options": options} if delimiter else {}
                writer = held.enter_context(new(target, rows.schema, **more))
            writer.write_table(rows)


class Progress:
    """Says how many users are done, how fast it goes, and how long it takes yet."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self.total, self.line = total, Line(shown=shown)
        self.began = self.said = time.monotonic()
        self.fresh = 0

    def done(self, count: int, fresh: int) -> None:
        """Note that `count` users are done in all, `fresh` of them now."""
        self.fresh += fresh
        now = time.monotonic()
        text = f"{count:,} of {self.total:,} users ({count / self.total:.0%})"
        if found := count - self.fresh:
            text += f", {found:,} of them done before"
        if self.fresh:
            rate = self.fresh / max(now - self.began, 1e-9)
            text += f"  {rate:,.0f} users/s  about {duration((self.total - count) / rate)} left"
        if self.line.live:
            self.line.refresh(text)
        if count == self.total or (not self.line.live and now - self.said >= PAUSE_SECONDS):
            self.line.epoch(text)
            self.said = now
