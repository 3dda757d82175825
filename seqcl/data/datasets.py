"""Data sets by name or path: found on this machine, downloaded, or made on the spot."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqcl.data.cache import cached, content_hash
from seqcl.data.catalog import DATASETS
from seqcl.data.downloads import download
from seqcl.data.files import attribute_file, data_folder, feature_files, log_files, log_name
from seqcl.data.interactions import Interactions
from seqcl.data.packing import pack
from seqcl.data.sequences import Sequences
from seqcl.data.synthetic import markov, shuffled
from seqcl.errors import UserError, unknown

logger = logging.getLogger("seqcl")

MADE: dict[str, Callable[[], Interactions]] = {
    "markov": lambda: markov().interactions,
    "markov-shuffled": lambda: shuffled(markov().interactions),
}
"""Functions that make the synthetic data sets, by name."""


def load(
    source: str | Path = "ml-100k",
    *,
    format: str | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
) -> Interactions:
    """Read the log of a data set, in the order of its source.

    Args:
        source: a file, a folder, or a name from `DATASETS`.
        format: atomic, csv, tsv, parquet or text; None: found by the suffix, else by the first line.
        user: column of the user ids; None: found by its usual names.
        item: column of the item ids; None: found by its usual names.
        time: column of the times (seconds or dates); None: found by its usual names, if there; "-": the order of the file.

    Raises:
        UserError: no such data set (the nearest are named), or a fault in a file (its line and column are named).
    """
    place = resolve(source)
    if isinstance(place, Interactions):
        return place
    from seqcl.data.readers import read  # imports pyarrow, which a start from the cache does not need

    return read(place, format=format, user=user, item=item, time=time)


def load_sequences(
    source: str | Path | Interactions = "ml-100k",
    *,
    format: str | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    k_core: int = 0,
    duplicates: str = "keep",
    min_length: int = 1,
    cache: str | Path | bool = True,
) -> Sequences:
    """A packed data set. Files are read and packed once; after that the packed log is mapped from the cache.

    Args:
        source: a file, a folder, a name from `DATASETS`, or interactions already read (these are not cached).
        format: as in `load`.
        user: as in `load`.
        item: as in `load`.
        time: as in `load`.
        k_core: as in `pack`.
        duplicates: as in `pack`.
        min_length: as in `pack`.
        cache: true: keep the packed log in `cache` in the data folder; a path: in this folder; false: nowhere.

    Raises:
        UserError: as `load` and `pack`.
    """
    place = source if isinstance(source, Interactions) else resolve(source)
    if isinstance(place, Interactions):
        return pack(place, k_core=k_core, duplicates=duplicates, min_length=min_length)
    columns: dict[str, Any] = {"format": format, "user": user, "item": item, "time": time}
    options: dict[str, Any] = {"k_core": k_core, "duplicates": duplicates, "min_length": min_length}

    def build() -> Sequences:
        return pack(load(place, **columns), **options)

    if cache is False:
        return build()
    files = [near for file in log_files(place) for near in (file, *feature_files(file).values())]
    near = attribute_file(place)
    files += [near] if near else []
    folder = None if cache is True else Path(cache)
    return cached(files, columns | options, build, name=log_name(place), folder=folder)


def resolve(source: str | Path) -> Path | Interactions:
    """The file or folder of a data set, downloaded if it is not here; or the log itself if it is made on the spot.

    A source is taken as a path if the path exists, else as a name.

    Raises:
        UserError: neither a path nor a name; or the download failed: the message says what to do instead.
    """
    path = Path(source).expanduser()
    if path.exists():
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
