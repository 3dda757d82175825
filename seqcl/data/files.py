"""Places of data files: the data folder, and the files that make up one log."""

from __future__ import annotations

import os
from pathlib import Path

from seqcl.errors import UserError

ATTRIBUTES = "_item2attributes.json"
"""End of the name NAME_item2attributes.json, the file of item attributes beside a log NAME.txt, NAME.csv, ... (S3-Rec's)."""


def data_folder() -> Path:
    """The folder of data sets: $SEQCL_DATA, else `data` in the source tree that seqcl runs from, else in the current folder."""
    if chosen := os.environ.get("SEQCL_DATA"):
        return Path(chosen)
    tree = Path(__file__).resolve().parents[2]
    return (tree if (tree / "setup.cfg").is_file() else Path.cwd()) / "data"


def log_files(path: Path) -> list[Path]:
    """The files that hold one log: the path itself if it is a file, else the log files in the folder.

    Raises:
        UserError: nothing is there, or a folder holds no log, or several.
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
    """The .user and .item files beside an .inter file, by kind; none beside another file."""
    if path.suffix != ".inter":
        return {}
    return {kind: near for kind in ("user", "item") if (near := path.with_suffix(f".{kind}")).is_file()}


def attribute_file(place: Path) -> Path | None:
    """The NAME_item2attributes.json beside a log (a file or a folder); None if it is missing or the log has feature files."""
    near = place.with_name(log_name(place) + ATTRIBUTES)
    return near if near.is_file() and not feature_files(log_files(place)[0]) else None


def log_name(path: Path) -> str:
    """The default name of a log: the name of its file without suffix, or of its folder."""
    return path.resolve().name if path.is_dir() else path.name.removesuffix(".gz").rsplit(".", 1)[0]
