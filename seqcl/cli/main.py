"""The console command: `seqcl train|evaluate|compare|export|recommend|data`, thin over `seqcl.experiment`."""

from __future__ import annotations

import argparse
import codecs
import csv
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from seqcl.cli.compare import add_compare, compare
from seqcl.errors import UserError, brief, unknown
from seqcl.version import VERSION

if TYPE_CHECKING:
    from seqcl.data.columns import ReadOptions

COMMANDS = ("train", "evaluate", "compare", "recommend", "export", "data")


READ_OPTIONS = {
    "format": "atomic, csv, json, parquet, text or tsv, if not found by itself",
    "columns": "columns of a file without a header, such as user,item,_,time",
    "user": "column of the users, if not found by itself",
    "item": "column of the items, if not found by itself",
    "time": "column of the times, if not found by itself",
    "order": "time, or file: the rows are in time order as they stand (default: time)",
    "where": "keep rows for which this holds, such as \"event == 'buy'\"",
    "min_rating": "keep rows with at least this rating",
}
"""Options of `seqcl data` that say how a file is read; the same as in --data."""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose mistakes are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 after a user's mistake, 130 when it was interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        print_anything(stream)
    try:
        if words and words[0] == "train":
            if (
                "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1
            ):  # torchrun sends SIGTERM where another process has ended
                signal.signal(signal.SIGTERM, ended_early)
            from seqcl.cli.train import train

            return train(words[1:])
        return other(words)
    except UserError as error:
        print(f"seqcl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"seqcl: {brief(error.filename or 'writing')}: {brief(error.strerror or error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seqcl: interrupted", file=sys.stderr)
        return 130


def ended_early(number: int, frame: FrameType | None) -> NoReturn:
    """End one of several processes that has not met the others yet; one of those on this machine says so."""
    names = (os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"))
    with suppress(OSError):
        os.close(os.open(Path(tempfile.gettempdir()) / "-".join(["seqcl-ended", *names]), os.O_CREAT | os.O_EXCL))
        os.write(2, b"seqcl: stopped by SIGTERM before the run began: another of the processes has ended\n")
    os._exit(1)


def print_anything(stream: Any) -> None:
    """Let a stream take every letter: a file or pipe as UTF-8, a terminal that lacks a letter by its escape."""
    if isinstance(stream, TextIOWrapper):
        if stream.encoding.lower().replace("-", "") == "utf8":
            stream.reconfigure(errors="seqcl.raw")
        elif stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors="seqcl.raw")


def raw_or_escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write the bytes of a name that is no UTF-8, and any other letter that UTF-8 lacks by its escape."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("seqcl.raw", raw_or_escaped)


def other(words: list[str]) -> int:
    """Run the commands with few options."""
    parser = Parser(prog="seqcl", description="Contrastive learning for sequential recommendation.")
    parser.add_argument("--version", action="version", version=f"seqcl {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    commands.add_parser("train", help="train and evaluate a model, the same as run.py (seqcl train --help)")
    command = commands.add_parser("evaluate", help="rank again with a run's best weights")
    command.add_argument("run", help="run folder")
    add_plugin(command)
    command.add_argument("--part", choices=("valid", "test"), default="test", help="split to rank (default: test)")
    command.add_argument("--slices", action="store_true", help="also by history length and target popularity")
    command.add_argument(
        "--index",
        help="also through this index: flat, ivf, hnsw, ivfpq, or all of them at several widths of search, with a plot",
    )
    add_compare(commands)
    command = commands.add_parser("export", help="write a folder that recommends without the log")
    command.add_argument("run", help="run folder")
    command.add_argument("folder", help="new folder")
    add_plugin(command)
    command.add_argument("--index", default="hnsw", help="index of the items: flat, ivf, hnsw or ivfpq (default: hnsw)")
    command.add_argument("--onnx", action="store_true", help="the query encoder as an ONNX graph too")
    command = commands.add_parser("recommend", help="the best items for a user or a history")
    command.add_argument("run", help="run folder, or one that was exported")
    add_plugin(command)
    command.add_argument("--user", help="raw id of a user in the log")
    command.add_argument(
        "--items",
        action="append",
        help="raw ids of a history, oldest first, separated by commas; an id with a comma in it is quoted, as in CSV: "
        """'"Paris, Texas",Alien'; may be given several times""",
    )
    command.add_argument("--k", type=int, default=10, help="items to recommend (default: 10)")
    command.add_argument(
        "--filter",
        choices=("seen", "none"),
        default="seen",
        help="items of the history are left out, or kept (default: seen)",
    )
    command = commands.add_parser("data", help="look at, convert or download data sets")
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    actions.add_parser("list", help="data sets known by name")
    for name, text in (
        ("stats", "size, sparsity and lengths; or what a run folder holds"),
        ("convert", "write another format"),
        ("download", "fetch"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("dataset", help="name or path")
        for option, about in READ_OPTIONS.items() if name != "download" else ():
            kind = float if option == "min_rating" else str
            action.add_argument(f"--{option}", type=kind, help=about, default="time" if option == "order" else None)
        if name == "convert":
            action.add_argument("target", help="file to write: .csv, .tsv, .parquet, .inter or .txt")
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise unknown("command", words[0], COMMANDS)
    chosen = parser.parse_args(words)
    does = {"evaluate": evaluate, "compare": compare, "export": export, "recommend": recommend, "data": data}
    return does[chosen.command](chosen)


def add_plugin(command: argparse.ArgumentParser) -> None:
    """Give a command the option --plugin."""
    command.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="a .py file or a module with parts that the run needs",
    )


def evaluate(chosen: argparse.Namespace) -> int:
    """`seqcl evaluate RUN`: one JSON object."""
    from seqcl.experiment import load
    from seqcl.retrieval import KINDS

    if chosen.index not in (None, "all", *KINDS):
        raise unknown("index", chosen.index, (*KINDS, "all"))
    run = load(chosen.run, plugins=chosen.plugin)
    result = run.evaluate(chosen.part)
    found = {"part": chosen.part, "protocol": result.protocol, "metrics": result.metrics}
    if chosen.slices:
        found["slices"] = run.slices(result, chosen.part)
    if chosen.index:
        every = chosen.index == "all"
        found["index"] = run.compare_indexes(chosen.part) if every else run.evaluate_index(chosen.index, chosen.part)
    print(json.dumps(found, indent=2))
    return 0


def export(chosen: argparse.Namespace) -> int:
    """`seqcl export RUN FOLDER`: the folder."""
    from seqcl.experiment import load

    print(load(chosen.run, plugins=chosen.plugin).export(chosen.folder, index=chosen.index, onnx=chosen.onnx))
    return 0


def recommend(chosen: argparse.Namespace) -> int:
    """`seqcl recommend RUN`: one line an item, raw id and score."""
    items = None if chosen.items is None else [item for text in chosen.items for item in ids_of(text)]
    options = {"k": chosen.k, "exclude_seen": chosen.filter == "seen"}
    if (Path(chosen.run) / "manifest.json").exists():
        from seqcl.retrieval.bundle import Bundle

        if items is None or chosen.user is not None:
            raise UserError(f"{chosen.run} was exported and knows no users: give --items, a history of raw item ids")
        bundle = Bundle(chosen.run, plugins=chosen.plugin)
        check_commas(chosen.items, bundle.item_ids)
        found = bundle.recommend(items, **options)
    else:
        from seqcl.experiment import load

        run = load(chosen.run, plugins=chosen.plugin)
        check_commas(chosen.items or [], run.sequences.item_ids)
        found = run.recommend(user=chosen.user, items=items, **options)
    for item, score in found:
        print(f"{item}\t{score:.6g}")
    return 0


def read_options(chosen: argparse.Namespace) -> ReadOptions:
    """The options that say how a file is read."""
    return {option: getattr(chosen, option) for option in READ_OPTIONS}  # type: ignore[return-value]


def ids_of(text: str) -> list[str]:
    """The ids of a value of --items: a row of CSV, in which an id with a comma is quoted."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UserError(
            f"--items {text}: {error}; an id that begins with a quote is quoted, and its quotes doubled"
        ) from None
    return rows[0] if rows and rows[0] else [text]


def check_commas(values: Sequence[str], known: Any) -> None:
    """Refuse a value of --items that is one known id as it stands, and several as a row.

    Raises:
        UserError: shows how to write the one id.
    """
    for text in values:
        if "," in text and ids_of(text) == text.split(",") and known.dtype.kind != "i" and text in known:
            raise UserError(f"""--items {text}: one item has this whole id, with its comma; write '"{text}"' for it""")


def data(chosen: argparse.Namespace) -> int:
    """`seqcl data list|stats|convert|download`."""
    from seqcl import data as room

    if chosen.action == "list":
        for name, about in room.DATASETS.items():
            print(f"{name:<22}{about.description}")
    elif chosen.action == "stats":
        print(json.dumps(stats(chosen), indent=2))
    elif chosen.action == "convert":
        log = room.load(chosen.dataset, **read_options(chosen))
        if log.reading:
            print(log.told, file=sys.stderr)
        room.write(log, chosen.target)
        print(chosen.target)
    else:
        print(room.download(chosen.dataset))
    return 0


def stats(chosen: argparse.Namespace) -> dict[str, Any]:
    """`seqcl data stats`: what there is to know of a log, or of a run folder."""
    place = Path(chosen.dataset)
    if not all((place / name).is_file() for name in ("config.yaml", "log.txt")):
        from seqcl.data import load_sequences

        sequences = load_sequences(chosen.dataset, **read_options(chosen))
        if sequences.reading:
            print(sequences.told, file=sys.stderr)
        return sequences.stats()
    from seqcl.experiment.holdings import holdings

    default = {option: None for option in READ_OPTIONS} | {"order": "time"}
    if named := [option for option in READ_OPTIONS if getattr(chosen, option) != default[option]]:
        raise UserError(f"--{named[0]}: {place} is a run, and its log was read when it began")
    return holdings(place)
