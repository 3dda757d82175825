"""`seqcl tune`: search the options of a recipe in one process or several, choose on validation, rank the best on test if asked."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from seqcl import config, disk, plugins
from seqcl.errors import UserError, brief
from seqcl.experiment.folder import new_folder
from seqcl.experiment.spaces import read_space
from seqcl.experiment.study import CONFIG, Study, readable
from seqcl.experiment.tune import rank_test, turn, work
from seqcl.report import print_results
from seqcl.training import Interrupted, Signals


def parser_of() -> argparse.ArgumentParser:
    """The options that are no options of training."""
    from seqcl.cli.main import Parser  # which imports this module

    parser = Parser(
        prog="seqcl tune",
        usage="seqcl tune [--model NAME] [--space FILE] [--trials N] [--jobs N] [--study FOLDER] [--OPTION VALUE ...]",
        description="Search the options of a recipe; what is not searched is as in `seqcl train`, whose options follow below.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--space", action="append", metavar="FILE", help="YAML of options, each with choices or a range; several may be given (default: default)")  # fmt: skip
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="trials in all, the configuration itself the first (default: 50)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--study", type=Path, metavar="FOLDER", help="a new folder, or one of a study to go on with")
    parser.add_argument("--pruner", choices=("median", "none"), help="end trials early that are worse than the median (default: median)")  # fmt: skip
    parser.add_argument("--test", action="store_true", help="rank the best trial on test, once; it ends the study")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one of --jobs
    return parser


def tune(words: list[str]) -> int:
    """Run `seqcl tune`."""
    parser = parser_of()
    chosen, rest = parser.parse_known_args(words)
    if {"-h", "--help"} & {*rest}:
        print(parser.format_help())
        config.resolve(rest)
    for name in ("trials", "jobs"):
        if getattr(chosen, name) < 1:
            raise UserError(f"--{name} must be 1 or more, not {getattr(chosen, name)}")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("seqcl tune starts its processes itself: give --jobs, without torchrun")
    fresh = chosen.study is None or not (chosen.study / CONFIG).exists()
    study = begun(chosen, rest) if fresh else known(chosen, rest)
    again = ["tune", "--study", str(study.folder), "--trials", str(chosen.trials)]
    again += plugins.list_of_words(study.base.needs())
    try:
        with readable(study.folder):
            search(study, chosen, again)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"seqcl: {getattr(stop, 'where', 'stopped')}; go on with: seqcl {shlex.join(again)}", file=sys.stderr)
        return 130
    except UserError:
        if fresh and study.run_of(0) is None:  # nothing was trained
            shutil.rmtree(study.folder)
        raise
    return 0


def search(study: Study, chosen: argparse.Namespace, again: list[str]) -> None:
    """Do the trials, write what they found, and rank the best on test if asked."""
    if chosen.jobs > 1:
        in_processes(study, again, chosen.jobs)
    else:
        for trial in work(study, chosen.trials):
            print(f"seqcl: {study.line(trial)}", file=sys.stderr, flush=True)
    if chosen.worker:
        return
    print(f"{study.line(study.finish())}\n{study.folder} has it as best.yaml, and all trials as study.html")
    if chosen.test:
        run = rank_test(study)
        print_results(run.metrics, run.folder)


def begun(chosen: argparse.Namespace, words: list[str]) -> Study:
    """Begin a study in a new folder.

    Raises:
        UserError: a mistake in the options, the space or the data; or the folder holds something.
    """
    base = config.resolve(words)
    space, left_out = read_space(base, chosen.space or ["default"])
    for option in left_out:
        print(f"seqcl: {option} stays {base.flat[option]}, which is outside the default space", file=sys.stderr)
    log = base.data.sequences(base.options.dataset)
    if chosen.study is None:
        folder = new_folder(Path(base.options.runs), f"tune-{base.recipe.name}-{log.name}")
    else:
        folder = chosen.study
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--study {folder}: it is no folder; give a new one")
        folder.mkdir(parents=True, exist_ok=True)
    with turn(folder):
        if (folder / CONFIG).exists():  # another process has begun it meanwhile
            return known(chosen, words)
        if others := {file.name for file in folder.iterdir()} - Study.BEFORE:
            raise UserError(f"--study {folder}: it is no study and holds {brief(min(others))}; give a new folder")
        for file in folder.iterdir():  # what a kill has left of a study that had not begun
            file.unlink()
        return Study.begin(folder, base, space, log, pruning=chosen.pruner != "none")


def known(chosen: argparse.Namespace, words: list[str]) -> Study:
    """Go on with a study.

    Raises:
        UserError: it has another configuration, space, pruner or log than is given now.
    """
    study = Study.read(chosen.study, words)
    if chosen.space and read_space(study.base, chosen.space)[0] != study.space:
        raise UserError(f"--study {chosen.study}: its space is another one; leave --space out to go on")
    if chosen.pruner and (chosen.pruner != "none") != study.pruning:
        raise UserError(f"--study {chosen.study}: its pruner is another one; leave --pruner out to go on")
    return study


def in_processes(study: Study, words: list[str], count: int) -> None:
    """Work on a study in several processes, each with its share of the threads.

    Raises:
        Interrupted: SIGINT or SIGTERM came; every process has saved its trial.
        UserError: one of the processes ended early; the last line that it wrote is told.
    """
    if disk.fcntl is None:
        raise UserError("--jobs: this system has no locks by which processes could share a study")
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)), **os.environ}
    files = [study.folder / "jobs" / f"{number}.txt" for number in range(1, count + 1)]
    files[0].parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "seqcl", *words, "--worker"]
    with Signals() as signals, ExitStack() as stack:
        jobs = [
            subprocess.Popen(
                command, env=environment, stdout=stack.enter_context(file.open("ab")), stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C comes from here, once
            )
            for file in files
        ]  # fmt: skip
        sent, told = False, {trial.number for trial in study.ended()}
        while any(job.poll() is None for job in jobs):
            if signals.received and not sent:
                sent = True
                for job in jobs:
                    job.terminate()
            time.sleep(0.5)
            for trial in study.ended():
                if trial.number not in told:
                    told.add(trial.number)
                    print(f"seqcl: {study.line(trial)}", file=sys.stderr, flush=True)
    if signals.received:
        raise Interrupted(signal=signals.received)
    for job, file in zip(jobs, files, strict=True):
        if job.returncode:
            last = (file.read_text(encoding="utf-8", errors="replace").splitlines() or ["it said nothing"])[-1]
            raise UserError(f"a process of the study ended early ({file}): {last.removeprefix('seqcl: ')}")
