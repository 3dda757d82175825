"""Write the best items of many users as one table. Its parts are kept until it is whole, so a killed job goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from seqcl import disk
from seqcl.errors import UserError, brief, unknown
from seqcl.experiment.folder import log
from seqcl.experiment.histories import Histories
from seqcl.experiment.list_parts import ABOUT, check_made, join, parts_folder, table, write_part
from seqcl.retrieval.asked import Asked, check_length
from seqcl.training.line import Line, duration

SUFFIXES = {".csv": ",", ".parquet": "", ".tsv": "\t"}
"""What stands between the cells of each format."""

USERS_A_PART = 20_000
ROWS_A_PART = 1_000_000
"""Longest parts, in users and in rows of the table: they set the memory, and the work that a kill can cost."""

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
    out = check_asked(out, k)
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
        if (folder / ABOUT).is_file() and disk.read_json(
            folder / ABOUT
        ) == question:  # a kill came before they were removed
            shutil.rmtree(folder)
        return out
    try:
        with parts_folder(folder, question):
            files = []
            for first, last, path, told in parts_of(histories, folder, size, progress):
                files.append(path)
                if new := not path.exists():
                    users, items, offsets = histories.part(first, last)
                    own = users if histories.own else None
                    found = asked.lists(items, offsets, own, k=k, exclude_seen=exclude_seen)
                    write_part(path, table((users, *found), histories.user_ids, asked.item_ids))
                told.done(last, last - first if new else 0)
            with disk.whole_file(out) as beside, beside.open("wb") as file:
                join(files, file, SUFFIXES[out.suffix.lower()], question)
            shutil.rmtree(folder)
    except OSError as error:
        done = f"; what is done is kept in {folder}, and the same command goes on" if folder.is_dir() else ""
        raise UserError(f"{out}: the lists cannot be written: {error.strerror or brief(error)}{done}") from None
    return out


def check_asked(out: str | Path, k: int) -> Path:
    """Refuse what no table can hold, before anything is read: the file as a path.

    Raises:
        UserError: an unknown suffix, or a k below 1.
    """
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise unknown("suffix of --out", out.suffix, SUFFIXES)
    check_length(k)
    return out


def parts_of(histories: Histories, folder: Path, size: int, shown: bool) -> Iterator[tuple[int, int, Path, Progress]]:
    """The first and last place of every part, its file, and who is told when it is done."""
    told = Progress(len(histories), shown=shown)
    try:
        for number, first in enumerate(range(0, len(histories), size)):
            yield first, min(first + size, len(histories)), folder / f"{number:06}.parquet", told
    finally:
        told.line.close()


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
