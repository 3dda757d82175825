"""Trials of a study, one after another: optuna proposes and prunes, a run in a folder of its own trains."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl import disk
from seqcl.errors import UserError, brief
from seqcl.experiment.folder import log
from seqcl.experiment.pipeline import execute
from seqcl.experiment.run import Run
from seqcl.experiment.spaces import distributions
from seqcl.experiment.study import Study, optuna
from seqcl.report import read_history
from seqcl.training import Callback, Row

if TYPE_CHECKING:
    from optuna.study import Study as Trials
    from optuna.trial import FrozenTrial, Trial


class Pruning(Callback):
    """Reports a trial's validation to its study, and ends the trial where others were better at that epoch."""

    def __init__(self, trial: Trial, known: FrozenTrial, monitor: str) -> None:
        self.trial, self.known, self.name = trial, set(known.intermediate_values), f"valid_{monitor}"

    def begin(self, folder: Path, options: Mapping[str, Any]) -> None:
        history = folder / "history.csv"
        for row in read_history(history) if history.exists() else ():  # a kill may have come before the report
            self.report(row)

    def epoch(self, row: Row) -> None:
        if self.name in row:
            self.report(row)
            if self.trial.should_prune():
                raise optuna().TrialPruned

    def report(self, row: Row) -> None:
        """Report an epoch once; one that a trial repeats has the same value."""
        if self.name in row and row["epoch"] not in self.known:
            self.known.add(int(row["epoch"]))
            self.trial.report(row[self.name], int(row["epoch"]))


def work(study: Study, count: int) -> Iterator[FrozenTrial]:
    """Do trials until the study has `count`, and give each; those that killed processes left come first.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the trial under way can go on.
        UserError: the first trial cannot be run; or the test part was ranked, which ends a study.
    """
    trials = study.trials()
    while True:
        with ExitStack() as held:
            with turn(study.folder):
                number = next_trial(study, trials, count, held)
            if number is None:
                return
            run_trial(study, trials, number)
        with turn(study.folder):
            tidy(study, trials)
        yield trials.trials[number]


def next_trial(study: Study, trials: Trials, count: int, held: ExitStack) -> int | None:
    """The number of the next trial, which is held: one that a killed process left, or a new one; None if there are enough."""
    states = optuna().trial.TrialState
    begun = [trial for trial in trials.trials if trial.state != states.WAITING]
    for trial in begun:
        if trial.state == states.RUNNING and hold(study.place(trial.number), held):
            return trial.number
    if len(begun) >= count:
        return None
    if "tested" in trials.user_attrs:
        raise UserError(f"{study.folder}: its best trial was ranked on test, which ends a study; begin another one")
    # A seed for each trial: processes that share a seed would propose the same.
    trials.sampler = optuna().samplers.TPESampler(seed=1000 * study.base.options.seed + len(begun))
    number: int = trials.ask(distributions(study.space, study.base)).number
    hold(study.place(number), held)
    return number


def hold(place: Path, held: ExitStack) -> bool:
    """Hold the folder of a trial for this process; false if another one does."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(disk.locked(place))
    except BlockingIOError:
        return False
    return True


def run_trial(study: Study, trials: Trials, number: int) -> None:
    """Train a trial, or go on with it, and tell the study its value; its test part is never ranked."""
    found, states, monitor = trials.trials[number], optuna().trial.TrialState, study.base.train.monitor
    trial = optuna().trial.Trial(trials, found._trial_id)
    try:
        with warnings_written() if number else nullcontext():  # all trials have the same
            run = execute(
                study.experiment(found.params, test=False, baseline="", runs=str(study.place(number))),
                resume=study.run_of(number),
                progress=sys.stderr.isatty(),
                callbacks=[Pruning(trial, found, monitor)],
            )
    except optuna().TrialPruned:
        trials.tell(number, state=states.PRUNED)
    except UserError as error:  # values that do not go together, or a run that diverged
        trial.set_user_attr("error", brief(error))
        trials.tell(number, state=states.FAIL)
        if number == 0:
            raise
    else:
        assert "test" not in run.metrics, "a trial ranked the test part"
        trials.tell(number, run.metrics["valid"][monitor])


def tidy(study: Study, trials: Trials) -> None:
    """Remove the weights of all finished trials but the best one."""
    best = study.best(trials)
    for trial in trials.trials:
        run = study.run_of(trial.number)
        if run is not None and best is not None and trial.number != best.number and trial.state.is_finished():
            for weights in run.glob("**/checkpoints"):  # those of pre-training too
                shutil.rmtree(weights)


def rank_test(study: Study) -> Run:
    """Rank the best trial on the test part, once: it ends the study.

    Raises:
        UserError: no trial was finished.
    """
    with turn(study.folder):
        trials = study.trials()
        best = study.best_of(trials)
        run = study.run_of(best.number)
        if run is None:
            raise UserError(f"{study.place(best.number)}: the run of the best trial is not there any more")
        trials.set_user_attr("tested", run.name)
        found = Run.load(run)
        if "test" in found.metrics:
            return found
        experiment = replace(found.experiment, options=replace(found.experiment.options, test=True))
        return execute(experiment, resume=run, progress=False)


@contextmanager
def warnings_written() -> Iterator[None]:
    """Inside, warnings go to the log of a run, and not to stderr."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.CRITICAL + 1)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Inside, no other process is; one that comes meanwhile waits."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(disk.locked(folder))
                break
            except BlockingIOError:
                time.sleep(0.05)
        yield
