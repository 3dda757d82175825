"""`seqcl completion bash|zsh|tcsh`: a script by which the shell completes commands, options and names."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

from seqcl.errors import UserError

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("completion", help="a script that completes commands and options in your shell")
    command.description = (
        "Print a script for a shell. For bash: seqcl completion bash > ~/.local/share/bash-completion/completions/seqcl"
    )
    command.add_argument("shell", choices=SHELLS, help="bash, zsh or tcsh")


def complete(chosen: argparse.Namespace, parser: argparse.ArgumentParser, commands: Any) -> int:
    """Print the script.

    Args:
        chosen: the words of the command.
        parser: of all commands.
        commands: the commands of that parser.

    Raises:
        UserError: shtab, which makes the script, is not installed.
    """
    if find_spec("shtab") is None:
        raise UserError("completion needs shtab: pip install 'seqcl[completion]'")
    import shtab

    commands.help = "the command"  # the help page has groups in its place, and shtab leaves out what is not shown
    options = training_options()
    for name in ("train", "distill", "tune"):
        for word, names in options.items():
            commands.choices[name].add_argument(word, choices=names)
    commands.choices["distill"].add_argument("run", nargs="*")
    for command in commands.choices.values():
        for action in command._actions:
            if action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE
    print(shtab.complete(parser, chosen.shell))
    return 0


def training_options() -> dict[str, list[str] | None]:
    """List the options of all models, each with the names that it takes or None: a few seconds, so asked for once."""
    from seqcl import config
    from seqcl.config.help import HEAD
    from seqcl.models import MODELS
    from seqcl.registry import KIND_OF, TABLES

    words = {f"--{key.removesuffix('.name')}" for model in MODELS for key in config.experiment({"model": model}).flat}
    words |= {word.split()[0] for word in HEAD}
    names = {"--model": sorted(MODELS)} | {f"--{section}": sorted(TABLES[kind]) for section, kind in KIND_OF.items()}
    return {word: names.get(word) for word in sorted(words)}
