"""`seqcl train`, the same as run.py: in one process, or in each of those that torchrun started."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from seqcl import config, experiment, plugins, processes, registry
from seqcl.config.settings import take
from seqcl.errors import UserError
from seqcl.experiment.folder import newest_begun
from seqcl.report import print_results
from seqcl.training import Interrupted


def train(words: list[str]) -> int:
    """Run `seqcl train`; of several processes the first that comes to an end early tells why, and the others keep silent."""
    processes.start()
    if processes.count() == 1:
        return run(words)
    signal.signal(signal.SIGTERM, ended)  # torchrun sends it where another process has ended
    try:
        code = run(words)
        processes.wait()
        processes.end()
        return code
    except processes.Told:
        raise
    except KeyboardInterrupt:  # before the run has a folder
        if speaks():
            print("seqcl: stopped by SIGINT; the run had not begun", file=sys.stderr)
        leave(130)
    except Exception as error:
        if speaks():
            if not isinstance(error, processes.Gone):
                raise
            print(f"seqcl: {error}", file=sys.stderr)
        leave(1)


def speaks() -> bool:
    """True if this process tells how the run ended. From then on it ignores torchrun's SIGTERM."""
    if processes.count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return processes.has_the_word()


def leave(code: int) -> NoReturn:
    """End this process at once: threads of the connection to a process that ended would hold up the exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(number: int, frame: FrameType | None) -> NoReturn:
    """Stop where the loop of training, which would end its step first, is not running."""
    raise Interrupted(signal=signal.Signals(number).name)


def run(words: list[str]) -> int:
    """Run it in this process."""
    words, resumed = take(words, "--resume", "a run folder")
    folder = Path(resumed[-1]) if resumed else None
    for option in ("--config", *registry.CONFIG_FILES) if folder else ():
        if any(word.partition("=")[0] == option for word in words):
            raise UserError(f"{option} with --resume: a run goes on under its own configuration; leave {option} out")
    if folder and not (folder / "config.yaml").exists() and (begun := newest_begun(folder)):
        raise UserError(f"{folder} is no run: it has no config.yaml; did you mean {begun}, which has not ended?")
    printing = "--print_config" in words
    words = [word for word in words if word != "--print_config"]
    chosen = config.resolve(words) if folder is None else config.of_run(folder, words)
    if printing:
        print(chosen.to_yaml() if processes.is_first() else "", end="")
        return 0
    try:
        done = experiment.execute(chosen, resume=folder)
    except Interrupted as stop:
        if speaks():
            again = "the run had not begun"
            if stop.folder is not None:
                again = f"go on with: --resume {stop.folder}{plugins.words_for(chosen.needs())}"
            print(f"seqcl: {stop.where}; {again}", file=sys.stderr)
        if (
            stop.step is None and processes.count() > 1
        ):  # outside the loop: the others are not on their way to this point
            leave(130)
        return 130
    if processes.is_first():
        print_results(done.metrics, done.folder)
    return 0
