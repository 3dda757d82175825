"""A folder whose meta.json has the sha256 of every file in it, and of itself, so that no damage goes unnoticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

META = "meta.json"


def seal(folder: Path, meta: dict[str, Any]) -> None:
    """Write `meta` as the meta.json of a folder, with the hash of every other file in it, and its own.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    files = {file.name: hash_of(file) for file in sorted(folder.iterdir())}
    whole = meta | {"files": files}
    (folder / META).write_text(json.dumps(whole | {"seal": own_hash(whole)}, indent=1), encoding="utf-8")


def unsealed(folder: Path) -> dict[str, Any]:
    """The meta.json of a folder, after every file was compared with its hash; without hashes, it is of version 0.1.0.

    Raises:
        OSError: a file is missing.
        ValueError: a file is not as it was written.
    """
    try:
        meta = json.loads(regular(folder / META).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{META} is nested too deeply") from None
    if not isinstance(meta, dict):
        raise ValueError(f"{META} holds no object")
    mark = meta.pop("seal", None)
    if mark is None and "files" not in meta:
        return meta
    if mark != own_hash(meta):
        raise ValueError(f"{META} is not as it was written")
    for name, digest in meta["files"].items():
        if hash_of(folder / name) != digest:
            raise ValueError(f"{name} is not as it was written")
    return meta


def own_hash(meta: dict[str, Any]) -> str:
    """The sha256 of a meta.json, in hex, whatever its order and spaces."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def hash_of(file: Path) -> str:
    """The sha256 of a file, in hex."""
    with regular(file).open("rb") as handle:
        digest = hashlib.sha256()
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def regular(file: Path) -> Path:
    """The path of a file, if it is one: a pipe would be waited for without an end.

    Raises:
        OSError: it is missing.
        ValueError: it is no regular file.
    """
    if not file.is_file() and file.stat():
        raise ValueError(f"{file.name} is no regular file")
    return file
