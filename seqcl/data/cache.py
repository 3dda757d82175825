"""A cache of packed logs on disk, keyed by the content of their source, so that a second start only maps them.

Work goes on without it: an entry that cannot be written or read back is reported, and the log is packed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqcl.data.files import data_folder
from seqcl.data.sequences import LAYOUT, Sequences
from seqcl.disk import write_text
from seqcl.errors import UserError

logger = logging.getLogger("seqcl")

SETTLED_SECONDS = 2.0
"""A file that changed more recently may change again within one tick of its clock, so its hash is not remembered."""


def cached(
    sources: Sequence[Path],
    options: dict[str, Any],
    build: Callable[[], Sequences],
    *,
    name: str,
    folder: Path | None,
    write: Callable[[Path], None] | None = None,
) -> Sequences:
    """Build a packed log, or map it from the cache if the same content was packed with the same options before.

    Args:
        sources: the files that `build` reads, at least one.
        options: everything else that its result depends on, as JSON values.
        build: reads and packs the log.
        name: name of the data set in results.
        folder: folder of the cache; None: `cache` in the data folder.
        write: writes the packed log to a new folder, in the place of `build`, where the log is too large for memory.

    Raises:
        UserError: as `build` and `write`.
    """
    folder = data_folder() / "cache" if folder is None else folder
    content = [content_hash(path, folder / "hashes.json") for path in sources]
    key = hashlib.sha256(json.dumps([LAYOUT, content, options], sort_keys=True).encode()).hexdigest()[:24]
    place = folder / f"{name}-{key}"
    if place.is_dir():
        try:
            found = Sequences.load(place)
            if found.place is not None:
                return found
            problem = f"{place}: version 0.1.0 wrote it without hashes"
        except UserError as error:
            problem = str(error)
        logger.warning("the cache cannot be used, packing the log again: %s", problem)
        shutil.rmtree(place, ignore_errors=True)
    if write is not None:
        write(place)
        return Sequences.load(place)
    sequences = replace(build(), name=name)
    try:
        sequences.save(place)
        return Sequences.load(place)
    except UserError as error:
        logger.warning("going on without a cache: %s", error)
        return sequences


def content_hash(path: Path, memory: Path) -> str:
    """The sha256 of a file in hex; a large file is not read at every start.

    The hash is remembered in the file `memory`, by the path, size, times and inode of the hashed file.
    """
    state = path.stat()
    mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    known = remembered(memory)
    entry = known.get(str(path.resolve()))
    if isinstance(entry, list) and entry[:-1] == mark:
        return str(entry[-1])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if time.time() - max(state.st_mtime, state.st_ctime) > SETTLED_SECONDS:
        known[str(path.resolve())] = [*mark, digest.hexdigest()]
        with contextlib.suppress(OSError):  # the next start hashes again; `cached` reports a folder it cannot write
            write_text(memory, json.dumps(known, indent=1))
    return digest.hexdigest()


def remembered(memory: Path) -> dict[str, Any]:
    """The hashes in the file `memory`; none if it is missing or damaged."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
