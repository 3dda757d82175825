"""`seqcl benchmark FILE.yaml`: models, data sets and seeds of one file, run where they are missing, and compared."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqcl.experiment.tasks import Task
    from seqcl.experiment.verdicts import Verdict

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


def add_benchmark(commands: Any) -> None:
    """Give the command line the command."""
    command = commands.add_parser("benchmark", help="models, data sets and seeds of one file, run and compared")
    command.add_argument("file", type=Path, metavar="FILE.yaml", help="the grid: see docs/benchmark.md")
    command.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    command.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each run (default: 1)")
    command.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/benchmark"),
        metavar="DIR",
        help="folder of all runs, which may be that of other benchmarks (default: runs/benchmark)",
    )
    command.add_argument(
        "--only", action="append", default=[], metavar="MODEL", help="this model of the file, and its baseline; may be given several times"
    )  # fmt: skip
    command.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1 in the place of those of the file")
    command.add_argument(
        "--accept-older", action="store_true", help="take finished runs of older code too, and say which they are"
    )
    command.add_argument(
        "--keep", type=Path, metavar="DIR", help="write the results of each run to a small file there; those that are there count as runs"
    )  # fmt: skip
    command.add_argument("--plan", action="store_true", help="say what would be run, and run nothing")
    for option, what in (("html", "write one page"), ("csv", "write all rows as CSV"), ("json", "write all as JSON")):
        command.add_argument(f"--{option}", type=Path, metavar="FILE", help=what)
    command.add_argument("--plugin", action="append", default=[], metavar="NAME", help="a .py file or a module with parts of your own")  # fmt: skip


def benchmark(chosen: argparse.Namespace, words: Sequence[str]) -> int:
    """`seqcl benchmark FILE.yaml`: the runs, a table for each data set, and the runs that failed."""
    from seqcl import plugins
    from seqcl.config.settings import of_words
    from seqcl.config.shipped import located
    from seqcl.disk import check_place
    from seqcl.errors import positive
    from seqcl.experiment.grid_file import read_grid
    from seqcl.experiment.tasks import tasks_of
    from seqcl.experiment.verdicts import verdicts

    positive("--jobs and --threads", jobs=chosen.jobs, threads=chosen.threads)
    for option in ("html", "csv", "json"):
        check_place(getattr(chosen, option), f"--{option}")
    plugins.load_all(chosen.plugin)
    grid = read_grid(located(str(chosen.file), "benchmark"))
    if chosen.seeds is not None:
        positive("--seeds", seeds=chosen.seeds)
        grid = replace(grid, seeds=range(chosen.seeds))
    hint = "each model has an --only of its own, and " if chosen.only else ""
    rows, tunings = grid.rows(chosen.only, of_words(words, hint)), list[Any]()
    if grid.trials:
        from seqcl.experiment.spoken import warnings_shown
        from seqcl.experiment.tuned import tuned, tunings_of

        tunings = tunings_of(rows, chosen.runs, grid.trials)
        if chosen.plan and any(one.state != "done" for one in tunings):
            print_plan(tunings)
            return 0
        if interrupted(tunings, chosen, grid.metric):
            return INTERRUPTED
        with warnings_shown():
            rows = tuned(rows, tunings)
        if not any(row.baseline for row in rows):
            tell_failed(tunings)
            print(f"seqcl: there is no comparison: {grid.baseline}, the baseline, could not be tuned", file=sys.stderr)
            return 1
    tasks = tasks_of(rows, chosen.runs, kept_in=chosen.keep, accept_older=chosen.accept_older, metric=grid.metric)
    say_older(tasks, accepted=chosen.accept_older)
    if chosen.plan:
        print_plan(tasks)
        return 0
    keeper = Keeper(chosen.keep)
    if interrupted(tasks, chosen, grid.metric, keeper):
        return INTERRUPTED
    found = verdicts(tasks, baseline=grid.baseline, metric=grid.metric)
    show(found, grid.metric)
    failed = tell_failed([*tunings, *tasks])  # before what may not be written
    write(chosen, found, tasks, grid.metric)
    return int(failed or keeper.failed or any(one.compared is None for one in found))


class Keeper:
    """Writes the results of each finished run to a folder, if there is one; a write that fails stops nothing.

    Raises:
        UserError: the folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path | None) -> None:
        from seqcl.errors import UserError

        self.folder, self.failed = folder, False
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(f"--keep {folder}: {error.strerror}") from None

    def __call__(self, task: Task) -> None:
        from seqcl.experiment.tasks import keep

        try:
            if self.folder is not None:
                keep(task, self.folder)
        except OSError as error:
            self.failed = True
            print(f"seqcl: --keep {self.folder}: {task.title} is not kept: {error.strerror}", file=sys.stderr)


def interrupted(
    tasks: Sequence[Task], chosen: argparse.Namespace, metric: str, done: Callable[[Task], None] = lambda task: None
) -> bool:
    """Run what is missing, and call `done` with each run that is; true if Ctrl-C or SIGTERM came."""
    from seqcl.experiment.benchmark import run_all

    screen = Screen(metric)
    try:
        run_all(tasks, screen, jobs=chosen.jobs, threads=chosen.threads, done=done)
    except KeyboardInterrupt:
        screen.board.close()
        ended = sum(task.state == "done" for task in tasks)
        print(f"seqcl: stopped; {ended} of {len(tasks)} runs are done, the same command goes on", file=sys.stderr)
        return True
    finally:
        screen.board.close()
    return False


def print_plan(tasks: Sequence[Task]) -> None:
    """Say what would be run."""
    for task in tasks:
        print(f"{task.title}: {task.state}{f', {task.run}' if task.run else ''}")


def tell_failed(tasks: Sequence[Task]) -> bool:
    """Name the runs that failed; true if there are any."""
    failed = [task for task in tasks if task.state == "failed"]
    for task in failed:
        print(f"seqcl: {task.title} failed: {task.problem} (all of it: {task.folder / 'output.txt'})", file=sys.stderr)
    return bool(failed)


def say_older(tasks: Sequence[Task], *, accepted: bool) -> None:
    """Say which runs are there of older code."""
    older = [task.title for task in tasks if task.older]
    if older:
        does = "are taken, though other code made them" if accepted else "are there, made by other code, and are run anew; --accept-older takes them"  # fmt: skip
        more = f" and {len(older) - 3} more" if len(older) > 3 else ""
        print(f"seqcl: {len(older)} of {len(tasks)} runs {does}: {'; '.join(older[:3])}{more}", file=sys.stderr)
    if unsaid := sum(task.unsaid for task in tasks):
        print(f"seqcl: {unsaid} of them do not say which tables and files they were made with: these are not compared", file=sys.stderr)  # fmt: skip


class Screen:
    """Shows the runs on the terminal: a live table there, a line for each event elsewhere."""

    def __init__(self, metric: str) -> None:
        from seqcl.report.board import Board

        self.metric = metric
        self.board = Board(("data", "model", "done", "now", f"valid {metric}", "minutes a run"))

    def show(self, tasks: Sequence[Task], left: float | None) -> None:
        """Show the state of all runs, and the time left."""
        if self.board.due:
            rows: dict[tuple[str, str], list[Task]] = {}
            for task in tasks:
                rows.setdefault((task.row.data, task.row.name), []).append(task)
            self.board.show([[*names, *self.cells(of_row)] for names, of_row in rows.items()], told(tasks, left))

    def cells(self, tasks: Sequence[Task]) -> list[str]:
        """The cells of one row."""
        done = [task.figures for task in tasks if task.state == "done"]
        now = [self.state(task) for task in tasks if task.state not in ("done", "waiting")]
        valid = [one["valid"][self.metric] for one in done if self.metric in one["valid"]]
        mean = f"{sum(valid) / len(valid):.4f}" if valid else ""
        minutes = f"{sum(one['seconds'] for one in done) / len(done) / 60:.1f}" if done else ""
        return [f"{len(done)} of {len(tasks)}", ", ".join(now), mean, minutes]

    def state(self, task: Task) -> str:
        """The state of a run in a few words."""
        progress = task.progress() if task.state == "running" else ""
        return f"seed {task.seed}{f': {progress}' if progress else f' {task.state}'}"

    def say(self, task: Task, tasks: Sequence[Task], left: float | None) -> None:
        """Tell of a run that has just begun or ended."""
        from seqcl.training.line import duration

        what = {"running": "begun", "elsewhere": "run by another benchmark", "failed": f"failed: {task.problem}"}
        if task.state == "done":
            valid = task.figures["valid"].get(self.metric)
            figure = "" if valid is None else f", valid {self.metric} {valid:.4f}"
            what["done"] = f"done in {duration(task.figures['seconds'])}{figure}"
        self.board.say(f"{told(tasks, left)}: {task.title} {what.get(task.state, task.state)}")


def told(tasks: Sequence[Task], left: float | None) -> str:
    """Tell the number of runs that are done, and the time that the others take."""
    from seqcl.training.line import duration

    done = sum(task.state == "done" for task in tasks)
    return f"{done} of {len(tasks)} done" + (f", about {duration(left)} left" if left and left >= 1 else "")


def show(found: Sequence[Verdict], metric: str) -> None:
    """Print a table for each data set, and one of contrast."""
    from seqcl.report import print_comparison, print_contrast

    for one in found:
        if one.compared is None:
            print(f"seqcl: there is no comparison on {one.data}: {one.problem}", file=sys.stderr)
            continue
        records = one.compared.records()
        print_comparison(records, metric, data=one.compared.data, protocol=one.compared.protocol)
        if one.contrast:
            print_contrast(one.contrast, metric)


def write(chosen: argparse.Namespace, found: Sequence[Verdict], tasks: Sequence[Task], metric: str) -> None:
    """Write the files that were asked for."""
    from seqcl import disk
    from seqcl.cli.compare import sheet_of
    from seqcl.report import write_page

    compared = [(one, one.compared) for one in found if one.compared is not None]
    if chosen.csv is not None:
        import pandas as pd

        records = [{"data": one.data, **record} for one, rows in compared for record in rows.records()]
        with disk.whole_file(chosen.csv) as beside:
            beside.write_bytes(pd.DataFrame(records).to_csv(index=False).encode())
    if chosen.json is not None:
        about = [
            {"data": rows.data, "protocol": rows.protocol, "baseline": rows.baseline, "rows": rows.records(), "contrast": one.contrast}
            for one, rows in compared
        ]  # fmt: skip
        runs = [
            {"data": task.row.data, "model": task.row.name, "seed": task.seed, "state": task.state, "older code": task.older and task.run is not None,
             "run": task.run and str(task.run), "problem": task.problem}
            for task in tasks
        ]  # fmt: skip
        text = json.dumps({"metric": metric, "comparisons": about, "runs": runs}, indent=2, default=float)
        disk.write_text(chosen.json, text + "\n")
    if chosen.html is not None and compared:
        write_page(chosen.html, [sheet_of(rows, one.contrast) for one, rows in compared])
