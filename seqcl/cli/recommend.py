"""`seqcl recommend RUN`: the best items for a user or a history, one line an item, or for many, a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqcl.cli import lists, stores
from seqcl.cli.data import READ_OPTIONS
from seqcl.cli.ids import check_commas, ids_of, listed
from seqcl.errors import UserError


def add_recommend(commands: Any, add_plugin: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("recommend", help="the best items for a user or a history")
    command.add_argument("run", help="run folder, or one that was exported")
    add_plugin(command)
    command.add_argument("--user", help="raw id of a user in the log")
    command.add_argument(
        "--items",
        action="append",
        help="raw ids of a history, oldest first, separated by commas; an id with a comma in it is quoted, as in CSV: "
        """'"Paris, Texas",Alien'; may be given several times; unknown ids are left out and named""",
    )
    command.add_argument(
        "--items-file", metavar="FILE", help='the same as a JSON list, whatever letters an id has: ["Paris, Texas", 7]'
    )
    command.add_argument("--k", type=int, default=10, help="items to recommend (default: 10)")
    command.add_argument(
        "--filter",
        choices=("seen", "none"),
        default="seen",
        help="items of the history are left out, or kept (default: seen)",
    )
    command.add_argument(
        "--allowed",
        metavar="FILE",
        help="recommend no others, such as what is in stock: a raw id a line, or a JSON list",
    )
    lists.add_new_items(command)
    lists.add_options(command, READ_OPTIONS)
    for option, about in stores.RECOMMEND_OPTIONS.items():
        command.add_argument(option, help=about)


def recommend(chosen: argparse.Namespace) -> int:
    """Print one line an item, raw id and score; for many users, write a file."""
    from seqcl.experiment.spoken import warnings_shown

    store = getattr(chosen, "from") or chosen.collection
    if lists.wanted(chosen):
        if store:
            raise UserError("--from and --collection answer one history at a time: give --items, or leave them out")
        return lists.write(chosen)
    if store and chosen.allowed:
        raise UserError("--allowed compares the items of RUN itself: leave --from and --collection out")
    items = None if chosen.items is None else [item for text in chosen.items for item in ids_of(text)]
    if chosen.items_file is not None:
        items = listed(Path(chosen.items_file), "--items-file")
    options = {"k": chosen.k, "exclude_seen": chosen.filter == "seen", "allowed": lists.allowed(chosen)}
    with warnings_shown():
        if (Path(chosen.run) / "manifest.json").exists():
            from seqcl.retrieval.bundle import Bundle

            lists.refuse_new_items(chosen)
            if items is None or chosen.user is not None:
                raise UserError(
                    f"{chosen.run} was exported and knows no users: give --items, a history of raw item ids"
                )
            bundle = Bundle(chosen.run, plugins=chosen.plugin)
            check_commas(chosen.items or [], bundle.item_ids)
            with stores.asked(bundle, chosen):
                found = bundle.recommend(items, **options)
        elif store:
            raise UserError(f"--from and --collection are for a RUN that was exported; {chosen.run} was not")
        else:
            from seqcl.experiment import load

            if (chosen.user is None) == (items is None):
                raise UserError(f"recommend {chosen.run}: give --user or --items, one of the two")
            run = lists.with_new_items(chosen, load(chosen.run, plugins=chosen.plugin))
            check_commas(chosen.items or [], run.sequences.item_ids)
            found = run.recommend(user=chosen.user, items=items, **options)
    for item, score in found:
        print(f"{item}\t{score:.6g}")
    return 0
