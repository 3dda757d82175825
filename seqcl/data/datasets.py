"""Data sets by name or path: found on this machine, downloaded, or made on the spot."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl.data.cache import cached, content_hash
from seqcl.data.catalog import DATASETS
from seqcl.data.columns import ReadOptions, Wanted
from seqcl.data.downloads import download
from seqcl.data.files import (
    archive_of,
    attribute_file,
    data_folder,
    feature_files,
    log_files,
    log_name,
    part_files,
    real_file,
)
from seqcl.data.interactions import Interactions
from seqcl.data.packed import LARGE, is_packed, open_packed, refuse_packed, uncompressed
from seqcl.data.packing import pack
from seqcl.data.sequences import Sequences
from seqcl.data.synthetic import markov, shuffled
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    from typing import Unpack  # of Python 3.11

READING = 3
"""Version of the rules by which files are read; another version makes other cache entries."""
logger = logging.getLogger("seqcl")

MADE: dict[str, Callable[[], Interactions]] = {
    "markov": lambda: markov().interactions,
    "markov-shuffled": lambda: shuffled(markov().interactions),
}
"""Functions that make the synthetic data sets, by name."""


def load(source: str | Path = "ml-100k", **options: Unpack[ReadOptions]) -> Interactions:
    """Read the log of a data set, in the order of its source.

    Args:
        source: a file, a folder, a member of an archive (ARCHIVE.zip/MEMBER), or a name from `DATASETS`.
        options: as in `read`.

    Raises:
        UserError: no such data set (the nearest are named), or a fault in a file (its line and column are named).
    """
    place = resolve(source)
    if isinstance(place, Interactions):
        return place
    refuse_packed(place)
    from seqcl.data.readers import read  # imports pyarrow, which a start from the cache does not need

    return read(place, **options)


def load_sequences(
    source: str | Path | Interactions = "ml-100k",
    *,
    k_core: int = 0,
    duplicates: str = "keep",
    min_length: int = 1,
    cache: str | Path | bool = True,
    **options: Unpack[ReadOptions],
) -> Sequences:
    """A packed data set. Files are read and packed once; after that the packed log is mapped from the cache.

    Large Parquet files are packed in passes, without the log in memory.

    Args:
        source: a file, a folder, also one that `pack_to` wrote, a name from `DATASETS`, or interactions already read (these
            are not cached).
        k_core: as in `pack`.
        duplicates: as in `pack`.
        min_length: as in `pack`.
        cache: true: keep the packed log in `cache` in the data folder; a path: in this folder; false: nowhere.
        options: as in `read`.

    Raises:
        UserError: as `load` and `pack`.
    """
    wanted = asdict(Wanted(**options))
    place = source if isinstance(source, Interactions) else resolve(source)
    if isinstance(place, Interactions):
        return pack(place, k_core=k_core, duplicates=duplicates, min_length=min_length)
    packing: dict[str, Any] = {"k_core": k_core, "duplicates": duplicates, "min_length": min_length}
    if is_packed(place):
        return open_packed(place, wanted, packing)

    def build() -> Sequences:
        return pack(load(place, **options), **packing)

    def write(target: Path) -> None:
        pack_to(place, target, **packing, **options)

    if cache is False:
        return build()
    own = part_files(place).values() if wanted["given"] and not wanted["split_column"] else ()
    files = [
        near for file in list(own) or log_files(place) for near in (real_file(file), *feature_files(file).values())
    ]
    near = attribute_file(place)
    files += [near] if near else []
    folder = None if cache is True else Path(cache)
    return cached(
        files,
        {"read": READING, "place": member_of(place), **wanted, **packing},
        build,
        name=log_name(place),
        folder=folder,
        write=write if not own and uncompressed(files) > LARGE else None,
    )


def pack_to(
    source: str | Path,
    place: Path,
    *,
    k_core: int = 0,
    duplicates: str = "keep",
    min_length: int = 1,
    **options: Unpack[ReadOptions],
) -> None:
    """Pack a data set into a new folder, which can be given in its place; Parquet in passes, without the log in memory.

    Args:
        source: a file, a folder, or a name from `DATASETS`.
        place: the folder.
        k_core: as in `pack`.
        duplicates: as in `pack`.
        min_length: as in `pack`.
        options: as in `read`.

    Raises:
        UserError: as `load` and `pack`; the folder is there already, lies in that of the log, or cannot be written.
    """
    from seqcl.data.passes import pack_in_passes  # imports pyarrow, as the next does
    from seqcl.data.readers import is_parquet

    wanted, path = Wanted(**options), resolve(source)
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"{place}: it is there already; name a new folder")
    packing: dict[str, Any] = {"k_core": k_core, "duplicates": duplicates, "min_length": min_length}
    files = []
    if isinstance(path, Path):
        refuse_packed(path)
        if path.resolve() in place.resolve().parents:
            raise UserError(
                f"{place}: it lies in the folder of the log, {path}, and would be read as part of it; name a place elsewhere"
            )
        own = wanted.given and not wanted.split_column and part_files(path)
        files = [] if own else log_files(path)
    if not files or not is_parquet(files[0], wanted):
        log = pack(load(source, **options), **packing)
        replace(log, name=log_name(path) if isinstance(path, Path) else log.name).save(place)
        return
    assert isinstance(path, Path)
    try:
        pack_in_passes(files, wanted, path=path, name=log_name(path), place=place, **packing)
    except OSError as error:
        raise UserError(f"{place}: the packed log cannot be written: {error}") from None


def member_of(place: Path) -> str:
    """The part of a path inside an archive; empty for any other path."""
    archive = archive_of(place)
    return place.relative_to(archive).as_posix() if archive else ""


def resolve(source: str | Path) -> Path | Interactions:
    """The file or folder of a data set, downloaded if it is not here; or the log itself if it is made on the spot.

    A source is taken as a path if the path exists, else as a name.

    Raises:
        UserError: neither a path nor a name; or the download failed: the message says what to do instead.
    """
    path = Path(source).expanduser()
    if path.exists() or archive_of(path):
        return path
    lower = {name.lower(): name for name in DATASETS}
    name = lower.get(str(source).lower())
    if name is None:
        raise UserError(f"{unknown('data set', str(source), DATASETS)}; there is no file or folder of this name either")
    if name in MADE:
        return MADE[name]()
    for place in (data_folder() / name, data_folder() / f"{name}.txt"):
        if place.exists():
            warn_unless_published(name, place)
            return place
    return (in_recbole(name) if name == "ml-100k" else None) or download(name)


def warn_unless_published(name: str, path: Path) -> None:
    """Log a warning where a file that lies under a known name is another one than is published under it."""
    algorithm, _, known = DATASETS[name].hash.partition(":")
    if not path.is_file() or algorithm != "sha256":
        return  # a folder is unpacked or made by hand, and no hash of it is known
    if content_hash(path, data_folder() / "cache" / "hashes.json") != known:
        logger.warning(
            "%s is not the %s that is published (another sha256): its figures are not to be set beside others of %s; remove it, "
            "and the published one is downloaded, or give your file another name and --dataset PATH",
            *(path, name, name),
        )


def in_recbole(name: str) -> Path | None:
    """Find a data set inside RecBole's wheel, without importing RecBole, which takes seconds."""
    spec = importlib.util.find_spec("recbole")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "dataset_example" / name
        if (folder / f"{name}.inter").is_file():
            return folder
    return None
