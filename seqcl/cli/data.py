"""`seqcl data list|stats|convert|pack|download`: look at data sets, and write them in other forms."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl.errors import UserError

if TYPE_CHECKING:
    from seqcl.data.columns import ReadOptions

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

PACK_OPTIONS = {
    "k_core": (int, 0, "drop users and items with fewer interactions, again and again (default: 0, keep all)"),
    "min_length": (int, 1, "drop users with fewer interactions (default: 1)"),
    "duplicates": (str, "keep", "a user's repeats of an item: keep, first or last (default: keep)"),
}
"""Options of `seqcl data pack`: kind, default, help; the same as in --data."""


def data_parsers(command: argparse.ArgumentParser) -> None:
    """Give the command `data` its actions."""
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(command))
    actions.add_parser("list", help="data sets known by name")
    for name, text in (
        ("stats", "size, sparsity and lengths; or what a run folder holds"),
        ("convert", "write another format"),
        ("pack", "write the packed log, which --dataset takes; Parquet larger than memory too"),
        ("download", "fetch"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("dataset", help="name or path")
        for option, about in READ_OPTIONS.items() if name != "download" else ():
            kind = float if option == "min_rating" else str
            names = (f"--{option}", f"--data.{option}")  # as `seqcl train` has it, and messages too
            order = "time" if option == "order" else None
            action.add_argument(*names, dest=option, type=kind, help=about, default=order)
        if name == "convert":
            action.add_argument("target", help="file to write: .csv, .tsv, .parquet, .inter or .txt")
        if name == "pack":
            action.add_argument("target", help="new folder")
            action.add_argument("--split_column", help="column with the part of each row: train, valid or test")
            for option, (own, usual, about) in PACK_OPTIONS.items():
                action.add_argument(f"--{option}", type=own, default=usual, help=about)


def read_options(chosen: argparse.Namespace) -> ReadOptions:
    """The options that say how a file is read."""
    return {option: getattr(chosen, option) for option in READ_OPTIONS}  # type: ignore[return-value]


def data(chosen: argparse.Namespace) -> int:
    """`seqcl data list|stats|convert|pack|download`."""
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
    elif chosen.action == "pack":
        packing = {option: getattr(chosen, option) for option in PACK_OPTIONS}
        given = chosen.split_column is not None
        options = read_options(chosen) | {"given": given, "split_column": chosen.split_column}
        room.pack_to(chosen.dataset, Path(chosen.target), **packing, **options)
        sequences = room.Sequences.load(chosen.target)
        if sequences.reading:
            print(sequences.told, file=sys.stderr)
        print(f"{chosen.target}: {sequences}")
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
