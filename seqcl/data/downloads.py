"""Download a data set, checked against its hash."""

from __future__ import annotations

import csv
import logging
import re
import zipfile
from pathlib import Path

from seqcl.data.catalog import DATASETS, DataSet
from seqcl.data.files import ATTRIBUTES, data_folder
from seqcl.disk import whole_folder
from seqcl.errors import UserError, brief, unknown

logger = logging.getLogger("seqcl")


def download(name: str) -> Path:
    """Fetch a data set into the data folder, checked against its hash.

    Raises:
        UserError: the name is unknown, or the file cannot be fetched or has another content; the message says what to do by hand.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    known = DATASETS[name]
    if not known.url:
        raise UserError(f"data set {name!r} is made on the spot; there is nothing to download")
    target = data_folder() / Path(known.url).name
    try:
        fetched = fetch(known.url, known.hash, target)
        if known.attributes:
            fetch_attributes(name, known, target)
        return unpack_movielens(fetched, target.with_name(name)) if target.suffix == ".zip" else fetched
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        wheel = " or pip install recbole==1.2.1, which brings it;" if name == "ml-100k" else ""
        raise UserError(
            f"data set {name!r} is not here and could not be fetched ({brief(error, 120)}). Without a connection: put "
            f"{known.url} at {target},{wheel} or take --dataset markov, which is made on the spot"
        ) from None


def fetch(url: str, known_hash: str, target: Path) -> Path:
    """Download a file, unless it is there with the right hash.

    Raises:
        OSError: no connection, or no space.
        ValueError: another hash.
    """
    import pooch

    with Bar(target.name) as bar:
        fetcher = pooch.HTTPDownloader(progressbar=bar)
        return Path(
            pooch.retrieve(url, known_hash=known_hash, fname=target.name, path=target.parent, downloader=fetcher)
        )


class Bar:
    """A bar on stderr with the bytes that came, the size of the file, and the time left; pooch fills it.

    Args:
        name: of the file.
    """

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(name, total=None, start=False)
        self.total = 0  # bytes, as the server says; pooch sets it

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, size: int) -> None:
        """Note that so many bytes came."""
        if not self.progress.live.is_started:
            self.progress.start()
            self.progress.start_task(self.task)
        self.progress.update(self.task, advance=size, total=self.total or None)

    def reset(self) -> None:
        """Begin at 0 again, which pooch does before it counts the whole file."""
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        """Leave the line as it is."""
        self.progress.stop()


def fetch_attributes(name: str, known: DataSet, target: Path) -> None:
    """Download the file of item attributes beside a data set; log a warning if that fails, since most models do without."""
    near = target.with_name(target.stem + ATTRIBUTES)
    url = known.url.replace(target.name, near.name)
    try:
        fetch(url, known.attributes, near)
    except (OSError, ValueError) as error:
        logger.warning("the item attributes of %s could not be fetched (%s); if a model needs them, put %s at %s", name, error, url, near)  # fmt: skip


def unpack_movielens(archive: Path, target: Path) -> Path:
    """Turn the files of MovieLens 100K into atomic ones: the log in its own order, users and items with their features."""
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
    with whole_folder(target) as folder:
        for kind, head in heads.items():
            with (folder / f"{target.name}.{kind}").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
                writer.writerows([head.split(), *rows[kind]])
    return target
