"""Mutates what seqcl reads: every opening ends in a result or in a UserError. `python tests/fuzz.py --minutes 10` runs it longer.

A table lists what is opened: a name, a file that is right, and a function that opens it once the file is another one.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from safetensors.torch import save_file

import seqcl
from docs.layouts import LAYOUTS
from seqcl import config
from seqcl.data import pack, read
from seqcl.errors import UserError
from seqcl.experiment import execute
from seqcl.retrieval.bundle import Bundle
from seqcl.retrieval.manifest import sha256
from seqcl.training import load_checkpoint

SECONDS = 60
"""The longest that one opening may take."""

TINY: dict[str, Any] = {
    "model": "SASRec",
    "encoder": {"dim": 4, "layers": 1, "heads": 1},
    "data": {"max_len": 4},
    "train": {"epochs": 1, "batch_size": 4096},
}


class Target(NamedTuple):
    """One file and what opens it."""

    name: str
    file: Path
    open: Callable[[], Any]


def stored(folder: Path) -> list[Target]:
    """A tiny run and its bundle: every file of both, with what reads it."""
    run = seqcl.train("markov", progress=False, runs=str(folder / "runs"), **TINY)
    bundle = run.export(folder / "bundle", index="hnsw")
    place = run.folder
    (place / "plugins.json").write_text(json.dumps([{"kind": "encoder", "name": "SASRec", "source": "mine.py"}]))

    def asked() -> None:
        seqcl.load(place).recommend(items=[1, 2], k=3)

    def evaluated() -> None:
        seqcl.load(place).evaluate("valid")

    def resumed() -> None:
        execute(config.of_run(place), resume=place, progress=False)

    def recommended() -> None:
        Bundle(bundle).recommend([1, 2], k=3)

    ways = {"config.yaml": evaluated, "last.safetensors": resumed}
    found = [
        Target(f"run/{file.relative_to(place)}", file, ways.get(file.name, asked))
        for file in sorted(place.rglob("*"))
        if file.is_file() and file.parent.name != "tensorboard"
    ]
    found += [Target(f"bundle/{file.name}", file, recommended) for file in sorted(bundle.iterdir())]
    file = folder / "given.yaml"
    shutil.copy(place / "config.yaml", file)
    return [
        *found,
        *unhashed(folder, place, bundle),
        Target("given.yaml", file, lambda: config.resolve(["--config", str(file)])),
    ]


def unhashed(folder: Path, run: Path, bundle: Path) -> list[Target]:
    """Checkpoints without hashes, as version 0.1.0 wrote them, and a bundle whose manifest is told the new hashes."""
    old, sealed = folder / "old", folder / "sealed"
    shutil.copytree(run, old)
    shutil.copytree(bundle, sealed)
    last, best = (old / "checkpoints" / f"{name}.safetensors" for name in ("last", "best"))
    for file in (last, best):
        tensors, state = load_checkpoint(file)
        save_file(tensors, file, {"format": "seqcl-checkpoint-1", "state": json.dumps(state)})

    def recommended() -> None:
        manifest = json.loads((sealed / "manifest.json").read_text())
        manifest["files"] = {name: sha256(sealed / name) for name in manifest["files"]}
        (sealed / "manifest.json").write_text(json.dumps(manifest))
        Bundle(sealed).recommend([1, 2], k=3)

    found = [
        Target("old/last", last, lambda: execute(config.of_run(old), resume=old, progress=False)),
        Target("old/best", best, lambda: seqcl.load(old).recommend(items=[1, 2], k=3)),
    ]
    return found + [
        Target(f"sealed/{name}", sealed / name, recommended)
        for name in ("item_ids.npy", "index.json", "query.safetensors")
    ]


def logs(folder: Path) -> list[Target]:
    """A log in every layout: those of docs/data.md, Parquet with an item or a list a row, gzipped, and in an archive."""
    contents = {name: text.encode() for name, text in LAYOUTS.items()}
    contents["ratings.dat.gz"] = gzip.compress(contents["ratings.dat"])
    tables = {
        "log.parquet": {"user_id": [1, 1, 2, 2], "item_id": ["a", "b", "a", "c"], "timestamp": [1.0, 2.0, 3.0, 4.0]},
        "lists.parquet": {"user_id": [1, 2], "item_id": [[1, 2], [3, 1]], "timestamp": [[1, 2], [3, 4]]},
    }
    for name, columns in tables.items():
        contents[name] = pd.DataFrame(columns).to_parquet()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ml/ratings.dat", contents["ratings.dat"])
    contents["ratings.zip"] = archive.getvalue()
    found = []
    for name, content in contents.items():
        file = folder / "logs" / name / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        found.append(Target(f"log/{name}", file, partial(packed, file)))
    return found


def packed(file: Path) -> None:
    """Read and pack a log, and describe it."""
    pack(read(file)).stats()


TABLES: list[Callable[[Path], list[Target]]] = [stored, logs]
"""Functions that make targets in a folder."""


Draw = Callable[[int], int]
"""Gives a whole number from 0 to below its argument: of hypothesis, or of a random generator."""

WORDS = [
    *(b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"1e999", b"NaN", b"1e-320", b"9" * 30, b"9" * 5000),
    *(b"NA", b"inf", b",", b"::", b'"', b"2020-13-45", b"11/1/2000", b"0" * 20, b"\x85", b"\x1f", b"1.5", b" "),
    *(b"[" * 3000, b'{"a":' * 3000, b"\0", b"\r", b"\n", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"\\ud800"'),
    *(
        b"!!python/object/apply:os.getcwd []",
        b"!!binary aGk=",
        b"&a [*a]",
        b"<<: *a",
        b"2020-13-45",
        b"1:2",
        b"\t",
        b"---\n",
    ),
]


def mutated(content: bytes, draw: Draw) -> bytes:
    """One to three changes: a bit, a cut, a piece taken out, repeated or moved, a hostile word, another JSON value."""
    for _ in range(1 + draw(3)):
        content = KINDS[draw(len(KINDS))](content, draw)
    return content


def flip(content: bytes, draw: Draw) -> bytes:
    if not content:
        return content
    place = draw(len(content))
    return content[:place] + bytes([content[place] ^ (1 << draw(8))]) + content[place + 1 :]


def cut(content: bytes, draw: Draw) -> bytes:
    return content[: draw(len(content) + 1)]


def drop(content: bytes, draw: Draw) -> bytes:
    place = draw(len(content) + 1)
    return content[:place] + content[place + 1 + draw(64) :]


def repeat(content: bytes, draw: Draw) -> bytes:
    place = draw(len(content) + 1)
    return content[:place] + content[place : place + 1 + draw(64)] * (1 + draw(3)) + content[place:]


def word(content: bytes, draw: Draw) -> bytes:
    """Put a hostile word in the place of one between signs, or anywhere."""
    place, new = draw(len(content) + 1), WORDS[draw(len(WORDS))]
    if draw(2):
        return content[:place] + new + content[place:]
    stop = place
    while stop < len(content) and content[stop] not in b" ,:;\t\n\"'{}[]":
        stop += 1
    return content[:place] + new + content[stop:]


def value(content: bytes, draw: Draw) -> bytes:
    """Put another value in the place of one of a JSON text, also of the one at the head of a safetensors file."""
    size = int.from_bytes(content[:8], "little") if content[8:9] == b"{" else 0
    text, rest = (content[8 : 8 + size], content[8 + size :]) if size else (content, b"")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return flip(content, draw)
    changed = json.dumps(other(tree, draw)).encode()
    return (len(changed).to_bytes(8, "little") if size else b"") + changed + rest


OTHERS: list[Any] = [None, True, -1, 0, 1, 2.5, 10**12, 10**30, float("nan"), "", "x", "\ud800", [], [1], {}, {"a": 1}]


def other(tree: Any, draw: Draw) -> Any:
    """The same tree with one value changed, dropped, or put under another key."""
    if isinstance(tree, str) and tree[:1] in ("{", "[") and draw(2):  # JSON in JSON, as in a checkpoint
        with contextlib.suppress(ValueError, RecursionError):
            return json.dumps(other(json.loads(tree), draw))
    if not isinstance(tree, dict | list) or not tree or not draw(8):
        return OTHERS[draw(len(OTHERS))]
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[draw(len(keys))]
    made = tree.copy()
    if not draw(6):
        del made[key]
    elif not draw(8) and isinstance(made, dict):
        made["x"] = made.pop(key)
    else:
        made[key] = other(tree[key], draw)
    return made


KINDS = [flip, flip, cut, drop, repeat, word, word, value, value, value]


class TooSlow(Exception):
    """An opening took longer than `SECONDS`."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(target: Target, content: bytes) -> None:
    """Open the target with another content, and put the right one back.

    Raises:
        AssertionError: the outcome is neither a result nor a UserError of one line of at most 300 characters.
    """
    folders = {file: file.read_bytes() for file in target.file.parent.iterdir() if file.is_file()}
    target.file.write_bytes(content)
    try:
        with in_time(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            target.open()
    except UserError as error:
        text = str(error).replace(str(target.file.parent), "")
        assert "\n" not in text and len(text) <= 300, f"{target.name}: {len(text)} characters: {text[:400]!r}"
    except Exception as error:
        raise AssertionError(f"{target.name}: {type(error).__name__}: {str(error)[:200]}") from error
    finally:
        for file in target.file.parent.iterdir():
            if file.is_file() and file not in folders:
                file.unlink()
        for file, before in folders.items():
            file.write_bytes(before)


def main() -> int:
    """Mutate the targets in turn until the time is over; print each fault once, with the seed that makes it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutation")
    chosen = parser.parse_args()
    stop, faults, number = time.monotonic() + 60 * chosen.minutes, dict[str, int](), chosen.seed
    with tempfile.TemporaryDirectory() as folder:
        targets = [target for table in TABLES for target in table(Path(folder)) if chosen.only in target.name]
        while time.monotonic() < stop:
            generator, target = random.Random(number), targets[number % len(targets)]
            try:
                check(target, mutated(target.file.read_bytes(), generator.randrange))
            except AssertionError as error:
                fault = f"{target.name}: {error}"
                if fault not in faults:
                    print(f"seed {number}: {fault}", flush=True)
                    traceback.print_exception(error.__cause__, limit=-3)
                faults[fault] = number
            number += 1
    print(f"{number - chosen.seed} mutations of {len(targets)} files, {len(faults)} different faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
