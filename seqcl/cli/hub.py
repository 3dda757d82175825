"""`seqcl hub push|pull`: bundles on a hub of models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_hub(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("hub", help="push a bundle to a hub of models with its card, or pull one")
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(command))
    action = actions.add_parser("push", help="send an exported run, with a card of its figures")
    action.add_argument("bundle", type=Path, help="folder that seqcl export wrote")
    action.add_argument("name", help="OWNER/NAME on the hub that HF_ENDPOINT names; HF_TOKEN is the key")
    action.add_argument("--private", action="store_true", help="for its owner alone, where it is new")
    action.add_argument("--revision", help="branch (default: main)")
    action = actions.add_parser("pull", help="fetch one, compared with its hashes")
    action.add_argument("name", help="OWNER/NAME")
    action.add_argument("folder", type=Path, help="new folder")
    action.add_argument("--revision", help="branch, tag or commit (default: main)")


def hub(chosen: argparse.Namespace) -> int:
    """Push or pull, and print where it is."""
    from seqcl.retrieval.hub import pull, push

    if chosen.action == "push":
        print(push(chosen.bundle, chosen.name, private=chosen.private, revision=chosen.revision))
    else:
        print(pull(chosen.name, chosen.folder, revision=chosen.revision))
    return 0
