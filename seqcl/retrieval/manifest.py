"""The manifest of a bundle, with which its files are compared before they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seqcl.disk import read_json
from seqcl.errors import UserError, brief

FIRST = "seqcl-bundle-1"
"""In it an item's last coordinate is its bias; later it is the bias times the temperature."""
FORMAT = "seqcl-bundle-2"
READABLE = (FIRST, FORMAT)
MANIFEST = "manifest.json"
ANSWERING = ("query.safetensors", "item_ids.npy", "index.json", "index.faiss")
"""The files that every answer depends on: they are always compared with their hashes, before they are read."""


def sha256(path: Path) -> str:
    """Compute the hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle.

    Raises:
        UserError: there is none, or its format cannot be read.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except UserError as error:
        raise UserError(f"{folder} is no bundle: {str(error).removeprefix(f'{folder}{os.sep}')}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found not in READABLE:
        raise UserError(f"{folder} has the format {brief(repr(found), 60)}; this version reads {', '.join(READABLE)}")
    return dict(manifest)


def compare_files(folder: Path, hashes: Mapping[str, str], *, names: Iterable[str]) -> None:
    """Compare the named files of a bundle with the hashes of its manifest.

    Raises:
        UserError: a file is missing, or was changed.
    """
    for name in {**dict.fromkeys(names), **hashes}:
        if name not in hashes or Path(name).name != name:
            raise UserError(f"{MANIFEST} is not as it was written: its files are {', '.join(ANSWERING)} and others")
        if not (folder / name).is_file():
            raise UserError(f"the bundle is not whole: {name} is missing, or is no regular file")
    for name in names:
        if sha256(folder / name) != hashes[name]:
            raise UserError(f"{name} is not the file that was exported: export the run again")


def compare_shapes(wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of another encoder than the manifest describes.

    Raises:
        UserError: names the first that differs.
    """
    for name in sorted(wanted.keys() | weights.keys()):
        there = tuple(weights[name].shape) if name in weights else "missing"
        if wanted.get(name, "unknown") != there:
            raise UserError(f"{MANIFEST} and query.safetensors do not fit: {name} is {wanted.get(name)} and {there}")
