"""Places of data files: the data folder, and the files that make up one log."""

from __future__ import annotations

import gzip
import io
import os
import re
import zipfile
from pathlib import Path
from typing import IO, Any

from seqcl.data.names import PARTS
from seqcl.errors import UserError, unknown

ATTRIBUTES = "_item2attributes.json"
"""End of the name NAME_item2attributes.json, the file of item attributes beside a log NAME.txt, NAME.csv, ... (S3-Rec's)."""


def data_folder() -> Path:
    """The folder of data sets: $SEQCL_DATA, else `data` in the source tree that seqcl runs from, else in the current folder."""
    if chosen := os.environ.get("SEQCL_DATA"):
        return Path(chosen)
    tree = Path(__file__).resolve().parents[2]
    return (tree if (tree / "setup.cfg").is_file() else Path.cwd()) / "data"


GZIP = b"\x1f\x8b"
"""The first bytes of every gzipped file."""

WORD = re.compile(r"(?:^|[._-])(train|training|valid|validation|val|dev|test)\.[a-z.]+$")
"""The word for a part before the suffix of a file: shop.train.inter, Beauty_test.txt, valid.csv.gz."""

TEXT_ENDS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".dat", ".data")
PARQUET_ENDS = (".parquet", ".pq")


def log_files(path: Path) -> list[Path]:
    """The files that hold one log: the path itself if it is a file, the member of a .zip, or the parts in a folder, sorted.

    A member of an archive has the path ARCHIVE/MEMBER.

    Raises:
        UserError: nothing is there, or a folder or an archive holds no log, or several.
    """
    if path.is_file():
        return [only_member(path)] if path.suffix.lower() == ".zip" else [path]
    if archive_of(path):
        return [named_member(path)]
    if not path.is_dir():
        raise UserError(f"{path}: {'no such file or folder' if not path.exists() else 'neither a file nor a folder'}")
    atomic = sorted(path.glob("*.inter"))
    if atomic:
        own = [file for file in atomic if file.stem == path.name]
        if len(atomic) > 1 and not own:
            raise UserError(f"{path}: several .inter files, name one: {', '.join(file.name for file in atomic)}")
        return own or atomic
    kinds: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*")):  # also in folders such as date=2024-01-31
        if (end := part_end(file)) and file.is_file() and not hidden(file.relative_to(path)):
            kinds.setdefault(end, []).append(file)
    if len(kinds) > 1:
        raise UserError(
            f"{path}: the folder holds files that end in {' and in '.join(sorted(kinds))}; name one file, or keep one kind in a folder"
        )
    if kinds:
        (parts,) = kinds.values()
        if len({file.parent == path for file in parts}) > 1:
            raise UserError(
                f"{path}: files lie in it and in folders below it; name one file, or keep the parts of one log together"
            )
        if part_files(path):
            raise UserError(
                f"{path}: it holds files for training and for the test; add --data.split given, or name one file"
            )
        return parts
    raise UserError(
        f"{path}: the folder holds neither a .inter file nor parts that end in .parquet, .csv, .tsv or .jsonl"
    )


def part_files(path: Path) -> dict[int, Path]:
    """The files of the parts in a folder, by part; none if it is no folder, or has no file of training and one of a test.

    Raises:
        UserError: two files are of one part.
    """
    found: dict[int, Path] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if not file.is_file() or hidden(Path(file.name)) or not (word := WORD.search(file.name.lower())):
            continue
        part = PARTS[word[1]]
        if part in found:
            raise UserError(
                f"{path}: {found[part].name} and {file.name} are both of one part; keep one, or name a file"
            )
        found[part] = file
    return found if 0 in found and 2 in found else {}


def part_end(path: Path) -> str:
    """The end of the name of a part of a log, without .gz; empty for a file that is none."""
    name = path.name.lower().removesuffix(".gz")
    return next((end for end in (*PARQUET_ENDS, *TEXT_ENDS) if name.endswith(end)), "")


def hidden(path: Path) -> bool:
    """True if a name on the way begins with a dot or an underscore, as marks of finished jobs do."""
    return any(part.startswith((".", "_")) for part in path.parts) or path.name.endswith(ATTRIBUTES)


def archive_of(path: Path) -> Path | None:
    """The .zip file on the way to a path; None if there is none."""
    return next((above for above in path.parents if above.suffix.lower() == ".zip" and above.is_file()), None)


def real_file(path: Path) -> Path:
    """The file on disk that holds a file of a log: itself, or the archive that it is a member of."""
    return archive_of(path) or path


def members(archive: Path) -> list[str]:
    """The names of the files in a .zip, sorted.

    Raises:
        UserError: it is no whole archive.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = [one.filename for one in file.infolist() if not one.is_dir()]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{archive}: not a whole .zip file: {error}") from None
    return sorted(name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith("."))


def only_member(archive: Path) -> Path:
    """The path of the only file in a .zip.

    Raises:
        UserError: there are several, or none.
    """
    names = members(archive)
    if len(names) != 1:
        listed = ", ".join(str(archive / name) for name in names[:4]) or "it is empty"
        raise UserError(f"{archive}: {len(names)} files inside, name one: {listed}{', ...' if len(names) > 4 else ''}")
    return archive / names[0]


def named_member(path: Path) -> Path:
    """The path of a file in a .zip, if it is there.

    Raises:
        UserError: it is not there; the nearest are named.
    """
    archive = archive_of(path)
    assert archive is not None
    names, name = members(archive), path.relative_to(archive).as_posix()
    if name not in names:
        raise UserError(f"{archive}: {unknown('member', name, names)}"[:300])
    return path


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file of a log for its bytes: a gzipped one is unpacked, whatever its name is, and so is a member of a .zip.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    archive = archive_of(path)
    if archive is not None:
        member: Any = zipfile.ZipFile(archive).open(path.relative_to(archive).as_posix())  # noqa: SIM115
        if member.peek(2)[:2] != GZIP:
            return member
        with member:
            return io.BytesIO(gzip.decompress(member.read()))
    if not path.is_file():
        raise OSError("no such file, or no regular one")
    return gzip.open(path) if is_packed(path) else path.open("rb")  # type: ignore[return-value]


def is_packed(path: Path) -> bool:
    """True if the bytes of a file must be unpacked first."""
    if archive_of(path):
        return True
    with path.open("rb") as file:
        return file.read(2) == GZIP


def feature_files(path: Path) -> dict[str, Path]:
    """The .user and .item files beside an .inter file, by kind; none beside another file."""
    if path.suffix != ".inter":
        return {}
    stems = (path.stem, re.sub(r"[._-][a-z]+$", "", path.stem) if WORD.search(path.name.lower()) else path.stem)
    near = {kind: [path.with_name(f"{stem}.{kind}") for stem in stems] for kind in ("user", "item")}
    return {kind: file for kind, files in near.items() for file in files[::-1] if file.is_file()}


def attribute_file(place: Path) -> Path | None:
    """The NAME_item2attributes.json beside a log (a file or a folder); None if it is missing or the log has feature files."""
    near = real_file(place).with_name(log_name(place) + ATTRIBUTES)
    return near if near.is_file() and not feature_files(log_files(place)[0]) else None


def log_name(path: Path) -> str:
    """The default name of a log: the name of its file without suffix, or of its folder."""
    return path.resolve().name if path.is_dir() else path.name.removesuffix(".gz").rsplit(".", 1)[0]
