"""`seqcl recommend RUN --users all --out FILE`: lists for many users at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl.cli.ids import lines_or_list
from seqcl.errors import UserError

if TYPE_CHECKING:
    from seqcl.experiment import Run

DATA = "data."
"""Begin of the options that say how --histories is read, as in run.py."""


def add_options(command: argparse.ArgumentParser, reading: Mapping[str, str]) -> None:
    """Give `seqcl recommend` the options for many users.

    Args:
        command: its parser.
        reading: options that say how a file is read, with their help.
    """
    many = command.add_argument_group("many users at once")
    many.add_argument("--users", metavar="all|FILE", help="all users of the log, or a file with one raw id a line")
    many.add_argument(
        "--histories",
        metavar="FILE",
        help="a file or folder of interactions of any layout, or a packed log; unknown items are left out and counted",
    )
    many.add_argument("--out", metavar="FILE", help="new file for the lists, a row an item: .parquet, .csv or .tsv")
    many.add_argument(
        "--search",
        choices=("exact", "index"),
        help="for an exported run: compare with all items, or go through its index (default: exact)",
    )
    for option, about in reading.items():
        kind = float if option == "min_rating" else str
        many.add_argument(f"--{DATA}{option}", type=kind, help=f"of --histories: {about}")


def wanted(chosen: argparse.Namespace) -> bool:
    """True where lists for many users are asked for.

    Raises:
        UserError: the options do not go together; the first that does not fit is named.
    """
    sources = ("user", "items", "items_file", "users", "histories")
    given = [f"--{name.replace('_', '-')}" for name in sources if getattr(chosen, name) is not None]
    many = {"--users", "--histories"} & set(given)
    if len(given) > 1 and (many or "--items-file" in given):
        raise UserError(f"{' and '.join(given[:2])} ask for different histories; give one of the two")
    if many and chosen.out is None:
        raise UserError(f"{given[0]} needs a file for its lists: add --out lists.parquet")
    if not many and chosen.out is not None:
        raise UserError(f"--out {chosen.out}: say whose lists go there: --users all, --users FILE or --histories FILE")
    reading = [name for name, value in vars(chosen).items() if name.startswith(DATA) and value is not None]
    if reading and chosen.histories is None:
        raise UserError(f"--{reading[0]} says how --histories FILE is read; give that too")
    if chosen.search is not None and not many:
        raise UserError(f"--search {chosen.search} is for --histories FILE")
    return bool(many)


def add_new_items(command: argparse.ArgumentParser) -> None:
    """Give a command the option --new-items."""
    command.add_argument(
        "--new-items",
        nargs="?",
        const="",
        metavar="FILE",
        help="of two towers: items without interactions too, by their features; those of the run's tables, or of FILE",
    )


def with_new_items(chosen: argparse.Namespace, run: Run) -> Run:
    """The run with the items of --new-items; as it is without."""
    return run if chosen.new_items is None else run.with_new_items(chosen.new_items or None)


def refuse_new_items(chosen: argparse.Namespace) -> None:
    """Refuse --new-items for a run that was exported.

    Raises:
        UserError: says where the option belongs.
    """
    if chosen.new_items is not None:
        raise UserError(f"{chosen.run} was exported with its items; seqcl export RUN FOLDER --new-items adds to them")


def allowed(chosen: argparse.Namespace) -> list[Any] | None:
    """The ids in the file of --allowed; None without it."""
    return None if chosen.allowed is None else lines_or_list(Path(chosen.allowed), "--allowed")


def write(chosen: argparse.Namespace) -> int:
    """Write the lists and print the file."""
    from seqcl.experiment import answers, histories, load
    from seqcl.experiment.lists import check_asked, write_lists
    from seqcl.experiment.spoken import warnings_shown

    out = check_asked(chosen.out, chosen.k)
    with warnings_shown():
        if (Path(chosen.run) / "manifest.json").exists():
            from seqcl.retrieval.bundle import Bundle

            refuse_new_items(chosen)
            if chosen.histories is None:
                raise UserError(
                    f"{chosen.run} was exported and knows no users: give --histories, a file of interactions"
                )
            bundle = Bundle(chosen.run, plugins=chosen.plugin)
            asked = answers.of_bundle(bundle, search=chosen.search or "exact", allowed=allowed(chosen))
        elif chosen.search == "index":
            raise UserError(f"--search index: {chosen.run} is a run and has no index; seqcl export makes one")
        else:
            run = with_new_items(chosen, load(chosen.run, plugins=chosen.plugin))
            asked = answers.of_run(run, allowed=allowed(chosen))
        if chosen.histories is None:
            whose = histories.of_log(run.sequences, None if chosen.users == "all" else Path(chosen.users))
        else:
            options = {name.removeprefix(DATA): value for name, value in vars(chosen).items() if name.startswith(DATA)}
            options["order"] = options["order"] or "time"
            whose = histories.of_file(Path(chosen.histories), asked.item_ids, **options)
            if whose.told:
                print(whose.told, file=sys.stderr)
        print(write_lists(asked, whose, out, k=chosen.k, exclude_seen=chosen.filter == "seen"))
    return 0
