"""The console command: `seqcl train|tune|evaluate|compare|benchmark|audit|...`, thin over `seqcl.experiment`."""

from __future__ import annotations

import argparse
import codecs
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from seqcl.cli import stores
from seqcl.cli.audit import add_audit, audit
from seqcl.cli.benchmark import add_benchmark, benchmark
from seqcl.cli.compare import add_compare, compare
from seqcl.cli.completion import add_completion, complete
from seqcl.cli.data import data, data_parsers
from seqcl.cli.diagnose import add_diagnose, diagnose
from seqcl.cli.evaluate import add_evaluate, evaluate
from seqcl.cli.hub import add_hub, hub
from seqcl.cli.lists import add_new_items, refuse_new_items, with_new_items
from seqcl.cli.recommend import add_recommend, recommend
from seqcl.cli.serve import add_serve, serve
from seqcl.errors import UserError, brief, unknown
from seqcl.version import VERSION

GROUPS = {
    "learn": ("train", "distill", "tune"),
    "look at a run": ("evaluate", "audit", "diagnose"),
    "compare": ("compare", "benchmark"),
    "use it": ("recommend", "export", "serve", "hub"),
    "more": ("data", "completion"),
}
"""The commands as `seqcl --help` shows them."""
COMMANDS = tuple(name for names in GROUPS.values() for name in names)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose mistakes are UserErrors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Refuse words that it has no use for, with the option that the first of them may have meant."""
        groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parsers = [self, *(parser for group in groups for parser in group.choices.values())]
        names = {name for parser in parsers for action in parser._actions for name in action.option_strings}
        known = sorted(name for name in names if name.startswith("--"))
        first = words[0].partition("=")[0]
        if first.startswith("-"):
            raise UserError(f"{unknown('option', first, known)}; see {self.prog} --help")
        self.error(f"unrecognized arguments: {' '.join(words)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 after a user's mistake, 130 when it was interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        print_anything(stream)
    try:
        if words and words[0] in ("train", "distill"):
            if (
                "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1
            ):  # torchrun sends SIGTERM where another process has ended
                signal.signal(signal.SIGTERM, ended_early)
            from seqcl.cli.distil import words_of
            from seqcl.cli.train import train

            return train(words[1:] if words[0] == "train" else words_of(words[1:]))
        if words and words[0] == "tune":
            from seqcl.cli.tune import tune

            return tune(words[1:])
        return other(words)
    except UserError as error:
        print(on_terminal(f"seqcl: {error}"), file=sys.stderr)
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


def on_terminal(text: str) -> str:
    """A message as a terminal shows it, without a word that is cut; in files and pipes it stays one line."""
    if not sys.stderr.isatty():
        return text
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def ended_early(number: int, frame: FrameType | None) -> NoReturn:
    """End one of several processes that has not met the others yet; one of those on this machine says so."""
    names = (os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"))
    mark = Path(tempfile.gettempdir()) / "-".join(["seqcl-ended", *names])
    with suppress(OSError):
        if mark.exists() and mark.stat().st_mtime < time.time() - 60:  # of a run with the same name before this one
            mark.unlink()
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
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


def grouped(commands: Any) -> str:
    """The commands by groups, each with its line of help."""
    texts = {action.dest: action.help for action in commands._choices_actions}
    width = min(shutil.get_terminal_size().columns, 100)
    lines = []
    for title, names in GROUPS.items():
        lines += [f"{title}:"]
        for name in names:
            lines += textwrap.wrap(f"{name:<12}{texts[name]}", width, initial_indent="  ", subsequent_indent=" " * 14)
        lines += [""]
    return "\n".join([*lines, "seqcl COMMAND --help shows the options of one."])


def parsers() -> tuple[Parser, Any]:
    """The parser of all commands, and its commands."""
    parser = Parser(
        prog="seqcl",
        usage="seqcl COMMAND ...",
        description="Contrastive learning for sequential recommendation.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"seqcl {VERSION}")
    commands = parser.add_subparsers(
        dest="command", prog="seqcl", metavar="COMMAND", required=True, parser_class=Parser, help=argparse.SUPPRESS
    )
    commands.add_parser("train", help="train and evaluate a model, the same as run.py (seqcl train --help)")
    commands.add_parser("distill", help="train a model that learns from finished runs (seqcl distill --help)")
    commands.add_parser("tune", help="search the options of a model, chosen on validation (seqcl tune --help)")
    add_evaluate(commands, add_plugin)
    add_compare(commands)
    add_benchmark(commands)
    add_audit(commands, add_plugin)
    add_diagnose(commands, add_plugin)
    command = commands.add_parser("export", help="write a folder that recommends without the log")
    command.add_argument("run", help="run folder")
    command.add_argument("folder", nargs="?", help="new folder; with --to, a RUN that was exported needs none")
    add_plugin(command)
    command.add_argument("--index", help="index of the items: flat, ivf, hnsw or ivfpq (default: hnsw)")
    command.add_argument("--recall", type=float, help="share of the exact lists that it finds (default: 0.95)")
    command.add_argument("--onnx", action="store_true", help="the query encoder as an ONNX graph too")
    add_new_items(command)
    for option, about in stores.EXPORT_OPTIONS.items():
        command.add_argument(option, help=about)
    command.add_argument("--replace", action="store_true", help="a collection that is there already gives way")
    add_recommend(commands, add_plugin)
    add_serve(commands, add_plugin)
    data_parsers(commands.add_parser("data", help="look at, convert, pack or download data sets"))
    add_hub(commands)
    add_completion(commands)
    parser.epilog = grouped(commands)
    return parser, commands


def other(words: list[str]) -> int:
    """Run the commands with few options."""
    parser, commands = parsers()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise unknown("command", words[0], COMMANDS)
    chosen, rest = parser.parse_known_args(words)
    if chosen.command == "benchmark":  # what is left are options of its runs
        return benchmark(chosen, rest)
    if rest:
        commands.choices[chosen.command].refuse(rest)
    does = {
        "evaluate": evaluate, "compare": compare, "audit": audit, "diagnose": diagnose, "export": export,
        "recommend": recommend, "serve": serve, "data": data, "hub": hub,
        "completion": lambda chosen: complete(chosen, parser, commands),
    }  # fmt: skip
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


def export(chosen: argparse.Namespace) -> int:
    """`seqcl export RUN FOLDER`: the folder, and the collection if the vectors go to one."""
    exported = chosen.folder is None and chosen.to is not None and (Path(chosen.run) / "manifest.json").exists()
    if chosen.folder is None and not exported:
        raise UserError("export needs a new folder: seqcl export RUN FOLDER")
    if exported:
        refuse_new_items(chosen)
    if exported and chosen.onnx:
        raise UserError(f"--onnx has no use: {chosen.run} was exported already, and only its vectors are sent")
    target = stores.target(chosen)
    if not exported:
        from seqcl.experiment import load

        run = with_new_items(chosen, load(chosen.run, plugins=chosen.plugin))
        print(
            run.export(chosen.folder, index=chosen.index or "hnsw", recall=chosen.recall, onnx=chosen.onnx), flush=True
        )
    if target is not None:
        stores.send(chosen, Path(chosen.run if exported else chosen.folder), target)
        print(target)
    return 0
