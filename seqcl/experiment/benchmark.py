"""Run the rows of a benchmark: each run is a `seqcl train` of its own, and what is done is not done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from seqcl import disk
from seqcl.errors import UserError, brief
from seqcl.experiment.tasks import ASKED, Task

OUTPUT = "output.txt"
"""The file beside a run that holds what it printed."""

PAUSE = 0.2
"""Seconds between two looks at the runs."""

PATIENCE = 60.0
"""Seconds that a run has to save its state when the benchmark is stopped."""


class Watcher(Protocol):
    """Shows the runs."""

    def show(self, tasks: Sequence[Task], left: float | None) -> None:
        """Show the state of all runs, and the seconds left, if they can be told."""
        ...

    def say(self, task: Task, tasks: Sequence[Task], left: float | None) -> None:
        """Tell of a run that has just begun or ended."""
        ...


def run_all(
    tasks: Sequence[Task],
    watcher: Watcher,
    *,
    jobs: int = 1,
    threads: int = 1,
    done: Callable[[Task], None] = lambda task: None,
) -> None:
    """Run what is not done, so many at a time; a run that fails does not stop the others.

    Two benchmarks may share the folder of runs: neither begins what the other is at.

    Args:
        tasks: the runs.
        watcher: shows them.
        jobs: runs side by side.
        threads: of each run.
        done: is called with each run that is done, before or now.

    Raises:
        UserError: the folder of runs cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; the runs under way were told to save their state, and have ended.
    """
    waiting = [task for task in tasks if task.state != "done"]
    running: list[Task] = []
    with stopped_by_sigterm(), ended(tasks):
        for task in tasks:
            if task.state == "done":
                done(task)
        while waiting or running:
            for task in list(waiting):
                before = task.state
                if len(running) < jobs and begin(task, threads):
                    waiting.remove(task)
                    running += [task] if task.state == "running" else []
                if task.state != before:
                    watcher.say(task, tasks, time_left(tasks, jobs))
                if task.state == "done":
                    done(task)
            for task in [task for task in running if task.process is not None and task.process.poll() is not None]:
                running.remove(task)
                end(task)
                watcher.say(task, tasks, time_left(tasks, jobs))
                if task.state == "done":
                    done(task)
            watcher.show(tasks, time_left(tasks, jobs))
            time.sleep(PAUSE)


def begin(task: Task, threads: int) -> bool:
    """Begin a run, or note that another benchmark has ended it meanwhile; false while another one is at it."""
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        lock = task.folder / "lock"
        lock.touch()
        # The run inherits the lock: if the benchmark is killed, its run goes on and holds it.
        handle = task.held.enter_context(disk.locked(lock))
    except BlockingIOError:
        task.state = "elsewhere"
        return False
    except OSError as error:
        raise UserError(f"--runs {task.folder.parent}: {error.strerror}") from None
    if task.look():
        task.held.close()
        return True
    disk.write_text(task.folder / ASKED, task.experiment.to_yaml())
    task.process = start(task.command(), task.folder / OUTPUT, threads=threads, handle=handle)
    task.state, task.began = "running", time.monotonic()
    return True


def start(words: Sequence[str], output: Path, *, threads: int, handle: int | None) -> subprocess.Popen[bytes]:
    """Start `seqcl WORDS` in a process of its own, which inherits a handle; what it prints goes behind what the file has."""
    with output.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "seqcl", *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            pass_fds=() if handle is None else (handle,),
            start_new_session=True,  # Ctrl-C reaches the benchmark alone, which tells its runs
        )


def end(task: Task) -> None:
    """Note how a run has ended."""
    assert task.process is not None
    task.held.close()
    if task.process.returncode or not task.look():
        task.state = "failed"
        lines = (task.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        task.problem = brief(last or f"it ended with {task.process.returncode}")


def time_left(tasks: Sequence[Task], jobs: int) -> float | None:
    """The seconds that are left, by those of finished runs: of the row, else of the data set, else of any; None before one is."""
    done = [(task.row, float(task.figures["seconds"])) for task in tasks if task.state == "done"]
    if not done:
        return None
    left = 0.0
    open_tasks = [task for task in tasks if task.state not in ("done", "failed")]
    for task in open_tasks:
        of_row = [seconds for row, seconds in done if row is task.row]
        of_data = [seconds for row, seconds in done if row.data == task.row.data]
        known = of_row or of_data or [seconds for _, seconds in done]
        spent = time.monotonic() - task.began if task.state == "running" else 0.0
        left += max(sum(known) / len(known) - spent, 0.0)
    return left / max(min(jobs, len(open_tasks)), 1)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM does what Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ended(tasks: Sequence[Task]) -> Iterator[None]:
    """Leave no run behind: whatever ends the benchmark, those under way are told to save their state."""
    try:
        yield
    finally:
        processes = [task.process for task in tasks if task.process is not None and task.process.poll() is None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for task in tasks:
            task.held.close()
