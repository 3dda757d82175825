"""Processes of their own that start at once: each is forked from one that has imported torch and seqcl and done nothing else.

What a fresh interpreter would have read of its environment at its start (PYTHONPATH, the locale) needs a real one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["seqcl.cli.main", "seqcl.experiment", "seqcl.retrieval.bundle"])


class Done(NamedTuple):
    """How a process ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


NOWHERE = Path(os.devnull)


def start(
    work: Callable[..., Any], *arguments: Any, cwd: Path, stdout: Path = NOWHERE, stderr: Path = NOWHERE
) -> BaseProcess:
    """Begin `work(*arguments)` in a process of its own, in a folder; its result is the exit code."""
    process = CONTEXT.Process(target=inside, args=(work, arguments, cwd, stdout, stderr))
    process.start()
    return process


def inside(work: Callable[..., Any], arguments: tuple[Any, ...], cwd: Path, stdout: Path, stderr: Path) -> None:
    for number, file in ((1, stdout), (2, stderr)):
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), number)
    os.chdir(cwd)
    sys.exit(work(*arguments))


def run(work: Callable[..., Any], *arguments: Any, cwd: Path) -> Done:
    """Do `work(*arguments)` in a process of its own, in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        process = start(work, *arguments, cwd=cwd, stdout=stdout, stderr=stderr)
        process.join()
        assert process.exitcode is not None
        done = Done(process.exitcode, stdout.read_text(encoding="utf-8"), stderr.read_text(encoding="utf-8"))
        process.close()
    return done


def kill_when(process: BaseProcess, condition: Callable[[], Any]) -> None:
    """Kill a process with signal 9 once the condition holds, which must be before its end."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.exitcode is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


def command(words: list[str]) -> int:
    """What `python -m seqcl WORDS` does."""
    from seqcl.cli.main import main

    return main(words)
