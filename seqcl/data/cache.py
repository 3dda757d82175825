"""Packed logs kept on disk and found again by what their source holds, so that a second start only maps them.

A cache is a convenience: what cannot be written or read back is said, and the log is packed again.
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

from seqcl.data.files import data_folder, replace_text
from seqcl.data.sequences import LAYOUT, Sequences
from seqcl.errors import UserError

log = logging.getLogger(__name__)

SETTLED_SECONDS = 2.0
"""A file changed less long ago may change again within one tick of its clock, so its hash is not remembered."""


def cached(
    sources: Sequence[Path], options: dict[str, Any], build: Callable[[], Sequences], *, name: str, folder: Path | None
) -> Sequences:
    """What `build` gives, mapped from the cache where the same content was packed with the same options before.

    Args:
        sources: the files `build` reads, at least one.
        options: everything else its result depends on, as JSON values.
        build: packs the log.
        name: what the data set is called in results.
        folder: the cache; None: `cache` in the data folder.
    """
    folder = data_folder() / "cache" if folder is None else folder
    content = [content_hash(path, folder / "hashes.json") for path in sources]
    key = hashlib.sha256(json.dumps([LAYOUT, content, options], sort_keys=True).encode()).hexdigest()[:24]
    place = folder / f"{name}-{key}"
    if place.is_dir():
        try:
            return Sequences.load(place)
        except UserError as error:
            log.warning("the cache is of no use, packing the log again: %s", error)
            shutil.rmtree(place, ignore_errors=True)
    sequences = replace(build(), name=name)
    try:
        sequences.save(place)
        return Sequences.load(place)
    except UserError as error:
        log.warning("going on without a cache: %s", error)
        return sequences


def content_hash(path: Path, memory: Path) -> str:
    """sha256 of a file, remembered by its path, size and times so that a large one is not read at every start."""
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
        with contextlib.suppress(OSError):  # the next start reads the file again, and `cached` has said why
            replace_text(memory, json.dumps(known, indent=1))
    return digest.hexdigest()


def remembered(memory: Path) -> dict[str, Any]:
    """The hashes known so far; none where the file is not there or not whole."""
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
