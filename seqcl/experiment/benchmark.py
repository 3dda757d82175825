"""Run the rows of a benchmark: each run is a `seqcl train` of its own, and what is done is not done again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import yaml

from seqcl import config, disk, plugins
from seqcl.config import Experiment
from seqcl.data import Sequences
from seqcl.disk import read_json
from seqcl.errors import UserError, brief
from seqcl.experiment.grid import Row, figures_of
from seqcl.experiment.keeping import PACKED, kept_file, named_files
from seqcl.experiment.keys import code_version, data_version, hash_of, key_of

OUTPUT = "output.txt"
"""The file beside a run that holds what it printed."""

ASKED = "asked.yaml"
"""The file beside a run that holds the configuration that it was begun with."""

PAUSE = 0.2
"""Seconds between two looks at the runs."""

PATIENCE = 60.0
"""Seconds that a run has to save its state when the benchmark is stopped."""


class Watcher(Protocol):
    """What shows the runs."""

    def show(self, tasks: Sequence[Task], left: float | None) -> None:
        """Show the state of all runs, and the seconds left, if they can be told."""
        ...

    def say(self, task: Task, tasks: Sequence[Task], left: float | None) -> None:
        """Tell of a run that has just begun or ended."""
        ...


@dataclass(eq=False, kw_only=True)
class Task:
    """One run of a row, and how far it is."""

    row: Row
    seed: int
    experiment: Experiment
    folder: Path  # of its key: the run lies in it
    log: str  # the version of its data
    state: str = "waiting"  # then running, or elsewhere: another benchmark runs it; at last done or failed
    run: Path | None = None  # once it is done
    figures: dict[str, Any] = field(default_factory=dict)  # its metrics.json
    older: bool = False  # made by older code
    problem: str = ""  # the last line of a failed run
    began: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def title(self) -> str:
        """Model, data set and seed."""
        return f"{self.row.name} on {self.row.data}, seed {self.seed}"

    def epochs(self) -> int:
        """Number of epochs that the run has ended."""
        found = newest(self.folder, "*/history.csv")
        with suppress(OSError):
            return max(found.read_bytes().count(b"\n") - 1, 0) if found else 0
        return 0

    def command(self) -> list[str]:
        """The words that begin the run, or go on with what was begun."""
        begun = newest(self.folder, "*/config.yaml")
        words = ["--resume", str(begun.parent)] if begun else ["--config", str(self.folder / ASKED)]
        words += [] if begun else ["--runs", str(self.folder)]
        return ["train", *words, *plugins.words_for(self.experiment.needs()).split()]

    def look(self) -> bool:
        """True if a finished run is there, which is noted."""
        found = newest(self.folder, "*/metrics.json")
        if found is not None:
            self.take(found.parent)
        return found is not None

    def take(self, run: Path) -> None:
        """Take a finished run as the result."""
        self.run, self.state, self.figures = run, "done", read_json(run / "metrics.json", dict)


def tasks_of(rows: Sequence[Row], runs: Path, *, accept_older: bool = False) -> list[Task]:
    """The runs of all rows, those that are done already being marked; all rows of a seed before those of the next.

    Args:
        rows: of the grid.
        runs: folder of all runs.
        accept_older: also take runs of the same configuration and data that other code made.

    Raises:
        UserError: a data set that cannot be read.
    """
    logs: dict[Any, tuple[str, str]] = {}
    code = code_version()
    found = []
    for seed in dict.fromkeys(seed for row in rows for seed in row.seeds):
        for row in rows:
            if seed not in row.seeds:
                continue
            experiment = replace(row.experiment, options=replace(row.experiment.options, seed=seed))
            place = (experiment.options.dataset, experiment.data)
            if place not in logs:
                try:
                    sequences = experiment.data.sequences(experiment.options.dataset)
                except UserError as error:
                    raise UserError(f"{row.place}: {error}") from None
                logs[place] = sequences.name, data_version(sequences)
            data, log = logs[place]
            name = re.sub(r"[^\w.-]+", "-", f"{experiment.options.model}-{data}-seed{seed}")
            folder = runs / f"{name}-{key_of(experiment, log, code)}"
            task = Task(row=row, seed=seed, experiment=experiment, folder=folder, log=log)
            if not task.look():
                older = older_run(task, runs, name)
                task.older = older is not None
                if older is not None and accept_older:
                    task.take(older)
            found.append(task)
    return found


def older_run(task: Task, runs: Path, name: str) -> Path | None:
    """The newest finished run of the same configuration, data and files that other code made."""
    for file in sorted(runs.glob(f"{name}-*/*/metrics.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(UserError, OSError, ValueError, LookupError, yaml.YAMLError):  # one that cannot be read is none
            if same_but_for_code(task, file.parent):
                return file.parent
    return None


def same_but_for_code(task: Task, run: Path) -> bool:
    """True if a finished run has the configuration, the log and the files of a task; newer options count with their defaults."""
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    if figures_of(config.experiment(values, stored=True)) != figures_of(task.experiment):
        return False
    files = [value for _, _, value in named_files(task.experiment)]
    return data_version(Sequences.load(run / PACKED)) == task.log and all(
        hash_of(kept_file(run, value)) == hash_of(Path(value).expanduser()) for value in files
    )


def newest(folder: Path, pattern: str) -> Path | None:
    """The file of the newest run in a folder."""
    return max(folder.glob(pattern), key=lambda file: file.parent.name, default=None)


def run_all(tasks: Sequence[Task], watcher: Watcher, *, jobs: int = 1, threads: int = 1) -> None:
    """Run what is not done, so many at a time; a run that fails does not stop the others.

    Two benchmarks may share the folder of runs: neither begins what the other is at.

    Args:
        tasks: the runs.
        watcher: shows them.
        jobs: runs side by side.
        threads: of each run.

    Raises:
        UserError: the folder of runs cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; the runs under way were told to save their state, and have ended.
    """
    waiting = [task for task in tasks if task.state != "done"]
    running: list[Task] = []
    with stopped_by_sigterm(), ended(running):
        while waiting or running:
            for task in list(waiting):
                before = task.state
                if len(running) < jobs and begin(task, threads):
                    waiting.remove(task)
                    running += [task] if task.state == "running" else []
                if task.state != before:
                    watcher.say(task, tasks, time_left(tasks, jobs))
            for task in [task for task in running if task.process is not None and task.process.poll() is not None]:
                running.remove(task)
                end(task)
                watcher.say(task, tasks, time_left(tasks, jobs))
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
def ended(running: Sequence[Task]) -> Iterator[None]:
    """Leave no run behind: whatever ends the benchmark, those under way are told to save their state."""
    try:
        yield
    finally:
        processes = [task.process for task in running if task.process is not None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for task in running:
            task.held.close()
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
