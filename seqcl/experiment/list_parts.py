"""The parts of a table of lists, and the table that they become: each file is whole or not there, and says what was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from seqcl import disk
from seqcl.data.arrow import opened
from seqcl.errors import UserError, brief
from seqcl.types import PAD

ABOUT = "about.json"
"""The file in a folder of parts that says what was asked."""

MADE_FOR = b"seqcl.lists"
"""Key of the same facts in a Parquet file."""


def write_part(path: Path, rows: pa.Table) -> None:
    """Write a part, which appears whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    with (
        disk.whole_file(path) as beside,
        beside.open("wb") as file,
    ):  # Arrow takes no path that is not ASCII under LC_ALL=C
        parquet.write_table(rows, file)


def table(found: tuple[np.ndarray, np.ndarray, np.ndarray], user_ids: np.ndarray, item_ids: np.ndarray) -> pa.Table:
    """The rows of users (n,), scores (n, k) and items (n, k), without empty places."""
    users, scores, items = found
    owner, place = np.nonzero(items != PAD)
    return pa.table(
        {
            "user_id": pa.array(user_ids[users]).take(pa.array(owner)),
            "rank": pa.array((place + 1).astype(np.int32)),
            "item_id": pa.array(item_ids).take(pa.array(items[owner, place] - 1)),
            "score": pa.array(scores[owner, place]),
        }
    )


@contextmanager
def parts_folder(folder: Path, question: dict[str, str]) -> Iterator[None]:
    """Inside, the folder of parts is there and this process alone fills it.

    Raises:
        UserError: the parts are of another question, or another process fills it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(disk.locked(folder))
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process fills it; let it end, or end it, or give another --out"
            ) from None
        disk.sweep_own(folder)
        if (about := folder / ABOUT).exists():
            check_same(disk.read_json(about, dict), question, f"{folder} holds parts")
        elif any(folder.iterdir()):
            raise UserError(f"{folder}: no parts of lists are in it; remove it, or give another --out")
        else:
            disk.write_text(about, json.dumps(question, indent=1) + "\n")
        yield


def check_made(out: Path, question: dict[str, str]) -> None:
    """Refuse to touch a file that is there, unless it answers the question already.

    Raises:
        UserError: says how to go on.
    """
    made: Any = None
    if out.is_file() and out.suffix.lower() == ".parquet":
        try:
            with opened(out) as file:
                made = json.loads((parquet.read_schema(file).metadata or {}).get(MADE_FOR, b"null"))
        except (pa.ArrowException, ValueError, OSError):
            made = None
    if not isinstance(made, dict):
        raise UserError(
            f"{out} is there already, and nothing in it says that it answers this; remove it, or give another --out"
        )
    check_same(made, question, f"{out} is there already and holds lists")


def check_same(made: dict[str, Any], question: dict[str, str], what: str) -> None:
    """Refuse lists of another question.

    Raises:
        UserError: names the first difference.
    """
    for name in dict.fromkeys([*question, *made]):
        if (old := made.get(name)) != (new := question.get(name)):
            raise UserError(
                f"{what} of another question: {name} is {brief(old, 12)} there, {brief(new, 12)} now; "
                "remove it, or give another --out"
            )


def join(files: list[Path], target: IO[bytes], delimiter: str, question: dict[str, str]) -> None:
    """Write the parts one after the other as Parquet, or as text with a delimiter, one in memory at a time.

    Raises:
        UserError: a part is damaged.
    """
    with ExitStack() as held:
        writer: Any = None
        for path in files:
            try:
                with opened(path) as file:
                    rows = parquet.read_table(file)
            except (pa.ArrowException, OSError) as error:
                raise UserError(
                    f"{path}: it is not the part that was written ({brief(error, 60)}); remove it, and ask again"
                ) from None
            if not delimiter:
                rows = rows.replace_schema_metadata({MADE_FOR: json.dumps(question)})
            if writer is None:
                options = csv.WriteOptions(delimiter=delimiter or ",", quoting_style="needed")
                new = csv.CSVWriter if delimiter else parquet.ParquetWriter
                more = {"write_options": options} if delimiter else {}
                writer = held.enter_context(new(target, rows.schema, **more))
            writer.write_table(rows)
