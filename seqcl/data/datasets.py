"""Data sets by name or path: found on this machine, downloaded once with a checksum, or made on the spot."""

from __future__ import annotations

import csv
import importlib.util
import logging
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqcl.data.cache import cached
from seqcl.data.files import ATTRIBUTES, attribute_file, data_folder, feature_files, fresh_folder, log_files, log_name
from seqcl.data.interactions import Interactions
from seqcl.data.packing import pack
from seqcl.data.sequences import Sequences
from seqcl.data.synthetic import markov, shuffled
from seqcl.errors import UserError, unknown

log = logging.getLogger("seqcl")

S3REC = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/2a81540ae18615d88ef88227b0c066e5b74781e5/data"
ICSREC = "https://raw.githubusercontent.com/QinHsiu/ICSRec/3c8958fa76aa57278778f8e82e8c7f983a4a1346/data"


@dataclass(frozen=True)
class DataSet:
    """What a data set is, where its file is published with which hash (neither where it is made on the spot), and the hash
    of the file beside it that says what its items are.
    """

    description: str
    url: str = ""
    hash: str = ""
    attributes: str = ""


DATASETS = {
    "ml-100k": DataSet(
        "MovieLens 100K, 943 users; GroupLens; not to be passed on",
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        "md5:0e33842e24a9c977be4e0107933c0723",
    ),
    "ml-1m": DataSet(
        "MovieLens 1M, 6,040 users, as SASRec prepared it; GroupLens; not to be passed on",
        f"{ICSREC}/ml-1m.txt",
        "sha256:f939258a859d16e43055e80bf8f7d66aeae3805fa21cb1b999fbafa9c6c5694b",
    ),
    "Beauty": DataSet(
        "Amazon reviews 2014, 5-core, 22,363 users",
        f"{S3REC}/Beauty.txt",
        "sha256:226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "sha256:129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
    ),
    "Sports_and_Outdoors": DataSet(
        "Amazon reviews 2014, 5-core, 35,598 users",
        f"{S3REC}/Sports_and_Outdoors.txt",
        "sha256:2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "sha256:7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
    ),
    "Toys_and_Games": DataSet(
        "Amazon reviews 2014, 5-core, 19,412 users",
        f"{S3REC}/Toys_and_Games.txt",
        "sha256:176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f",
        "sha256:d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0",
    ),
    "Yelp": DataSet(
        "Yelp reviews of 2019, 5-core, 30,431 users",
        f"{S3REC}/Yelp.txt",
        "sha256:724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed",
        "sha256:f25acd5e1e680e0b22fd4e3f4fb6be4b2a7461e9222610616e3e1ee6702dd58d",
    ),
    "LastFM": DataSet(
        "HetRec 2011 listening, 1,090 users",
        f"{S3REC}/LastFM.txt",
        "sha256:9ded486adb5b0fe9dc761950afa0a9a05e93ff018992e0c52bf11afec529f802",
        "sha256:a4ccd678dc9ff6d43fe5073f491db5c9b02eb98dfa4f8c0382913a784be217ef",
    ),
    "markov": DataSet("a synthetic Markov chain with a known best score, made on the spot: 2,000 users, 500 items"),
    "markov-shuffled": DataSet("its control: the same items dealt out at random, so that only chance is left"),
}
"""Data sets by name."""

MADE: dict[str, Callable[[], Interactions]] = {
    "markov": lambda: markov().interactions,
    "markov-shuffled": lambda: shuffled(markov().interactions),
}


def load(
    source: str | Path = "ml-100k",
    *,
    format: str | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
) -> Interactions:
    """The log of a data set, in the order of its source.

    Args:
        source: a file, a folder, or a name out of `DATASETS`.
        format: atomic, csv, tsv, parquet or text; None: by the suffix, else by the first line.
        user: column of the user ids; None: the usual names.
        item: column of the item ids; None: the usual names.
        time: column of the times (seconds, or dates); None: the usual names if there; "-": file order.

    Raises:
        UserError: no such data set (the nearest are named), or a fault in a file (file, line and column are named).
    """
    place = resolve(source)
    if isinstance(place, Interactions):
        return place
    from seqcl.data.readers import read  # brings pyarrow, which a warm cache does without

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
    """A packed data set; what comes from files is read and packed once and mapped from the cache after that.

    Args:
        source: a file, a folder, a name out of `DATASETS`, or interactions already read (these are not cached).
        format: as in `load`, like user, item and time.
        user: column of the user ids.
        item: column of the item ids.
        time: column of the times.
        k_core: drop users and items with fewer interactions until none is left; 0: none is dropped.
        duplicates: a user's repeats of an item: keep, first or last.
        min_length: drop users with fewer interactions.
        cache: keep the packed form in `cache` of the data folder, in a folder given here, or (false) nowhere.

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
    """The file or folder of a data set, downloaded if need be, or the log itself where it is made on the spot.

    An existing path goes before a name.

    Raises:
        UserError: neither a path nor a name; or a download that failed, with what to do instead.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    lower = {name.lower(): name for name in DATASETS}
    name = lower.get(str(source).lower())
    if name is None:
        raise UserError(f"{unknown('data set', str(source), DATASETS)}; nor is it a file or folder here")
    if name in MADE:
        return MADE[name]()
    for place in (data_folder() / name, data_folder() / f"{name}.txt"):
        if place.exists():
            return place
    return (in_recbole(name) if name == "ml-100k" else None) or download(name)


def in_recbole(name: str) -> Path | None:
    """A data set that comes with RecBole's wheel, found without importing RecBole, which takes seconds."""
    spec = importlib.util.find_spec("recbole")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "dataset_example" / name
        if (folder / f"{name}.inter").is_file():
            return folder
    return None


def download(name: str) -> Path:
    """Fetch a data set into the data folder, checked against its hash.

    Raises:
        UserError: an unknown name, no connection, no space or another content; the message says what to do by hand.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    known = DATASETS[name]
    if not known.url:
        raise UserError(f"data set {name!r} is made on the spot; there is nothing to download")
    import pooch

    folder = data_folder()
    target = folder / Path(known.url).name
    try:
        bar = importlib.util.find_spec("tqdm") is not None  # pooch draws with it
        fetched = pooch.retrieve(known.url, known_hash=known.hash, fname=target.name, path=folder, progressbar=bar)
        if known.attributes:
            near = target.with_name(target.stem + ATTRIBUTES)
            url = known.url.replace(target.name, near.name)
            try:
                pooch.retrieve(url, known_hash=known.attributes, fname=near.name, path=folder, progressbar=bar)
            except (OSError, ValueError) as error:
                log.warning("what the items of %s are could not be fetched (%s); where a model needs it, put %s at %s", name, error, url, near)  # fmt: skip
        return unpack_movielens(Path(fetched), folder / name) if target.suffix == ".zip" else Path(fetched)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        wheel = " or pip install recbole==1.2.1, which brings it;" if name == "ml-100k" else ""
        raise UserError(
            f"data set {name!r} is not here and could not be fetched ({error}). Without a connection: put "
            f"{known.url} at {target},{wheel} or take --dataset markov, which is made on the spot"
        ) from None


def unpack_movielens(archive: Path, target: Path) -> Path:
    """MovieLens 100K's own files as atomic ones: the log in its order, users and items with their features."""
    with zipfile.ZipFile(archive) as files:
        tables = {part: files.read(f"ml-100k/u.{part}").decode("latin-1") for part in ("data", "user", "item", "genre")}
    genres = [line.split("|")[0] for line in tables["genre"].splitlines() if line]
    items = []
    for line in filter(None, tables["item"].splitlines()):
        number, title, _, _, _, *flags = line.split("|")
        plain, year = re.fullmatch(r"(.*?)\s*(?:\((\d{4})\))?", title.strip()).groups("")  # type: ignore[union-attr]
        kinds = " ".join(genre for genre, flag in zip(genres, flags, strict=True) if flag == "1")
        items.append([number, plain, year, kinds])
    heads = {
        "inter": "user_id:token item_id:token rating:float timestamp:float",
        "user": "user_id:token age:token gender:token occupation:token zip_code:token",
        "item": "item_id:token movie_title:token_seq release_year:token class:token_seq",
    }
    rows = {
        "inter": [line.split("\t") for line in tables["data"].splitlines() if line],
        "user": [line.split("|") for line in tables["user"].splitlines() if line],
        "item": items,
    }
    with fresh_folder(target) as folder:
        for kind, head in heads.items():
            with (folder / f"{target.name}.{kind}").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
                writer.writerows([head.split(), *rows[kind]])
    return target
