"""One model on one split: pre-trained, trained, ranked and written down."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seqcl import processes
from seqcl.config import Experiment, Model
from seqcl.data import Loader, Sequences, Split
from seqcl.evaluation import Result
from seqcl.experiment import blended
from seqcl.experiment.folder import log, write_ranks
from seqcl.experiment.geometry import curves_of
from seqcl.experiment.keeping import state_log
from seqcl.experiment.ranking import Part, identity, rank, slices_of
from seqcl.experiment.teachers import hand_teachers
from seqcl.models import Blend, Pretraining, Recommender
from seqcl.training import (
    Callback,
    Clock,
    FitResult,
    Trainer,
    last_checkpoint,
    load_checkpoint,
    make_trackers,
    telling,
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Results of one model."""

    valid: Result
    test: Result | None  # None where the test part is left alone
    slices: dict[str, Any]  # of test
    fit: FitResult | None  # None for a model that is counted, not trained
    pretraining: dict[str, Any] | None  # epochs, seconds, and the facts that it depended on
    teachers: str | None  # the runs that it learned from, with their hashes

    def metrics(self) -> dict[str, float]:
        """The figures as callbacks are told them."""
        parts = {"best": self.valid, **({} if self.test is None else {"test": self.test})}
        return {f"{part}/{name}": value for part, found in parts.items() for name, value in found.metrics.items()}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model on one split, in a folder of its own.

    Args:
        experiment: the model and how it is trained and ranked.
        sequences: the packed log.
        split: of the log.
        folder: where everything is written.
        device: where the model is.
        clock: the time since the program began, or since this model's turn.
        resume: true to go on with what the folder holds.
        progress: true to show a line of progress.
        callbacks: are told of the run.
    """

    experiment: Experiment
    sequences: Sequences
    split: Split
    folder: Path
    device: torch.device
    clock: Clock
    resume: bool = False
    progress: bool = True
    callbacks: Sequence[Callback] = ()

    def run(self, model: Model) -> Outcome:
        """Train the model unless it is counted, then rank validation and, unless it is left alone, test with the best weights."""
        with telling(self.callbacks, self.folder, self.experiment.flat) as told:
            outcome = self.outcome(model.to(self.device))
            told |= outcome.metrics()
        return outcome

    def outcome(self, model: Model) -> Outcome:
        """Train, rank and write."""
        fit, stage = None, None
        if isinstance(model, Recommender):
            hand_teachers(model, self.sequences, self.split, self.device)
            stage = self.pretrain(model)
            fit = self.fit(
                model,
                self.experiment.train,
                self.folder,
                validate=lambda: self.validate(model),
                callbacks=self.callbacks,
            )
            if isinstance(model, Blend):
                self.settle(model)
        else:
            processes.by_first(lambda: state_log(self.folder, self.sequences))
        test = self.rank(model, "test") if self.experiment.options.test else None
        outcome = Outcome(
            slices=slices_of(test, self.split, "test", self.experiment.eval) if test else {},
            valid=self.rank(model, "valid"),
            test=test,
            fit=fit,
            pretraining=stage,
            teachers=model.identity.get("teachers") if isinstance(model, Recommender) else None,
        )
        processes.by_first(lambda: self.write(outcome))
        return outcome

    def settle(self, model: Blend) -> None:
        """Put beside the trained network what a blend has there, made now or kept in the folder for the same weights."""
        about = identity(self.sequences) | model.identity
        if self.resume and blended.up_to_date(self.folder, self.experiment):
            return blended.restore(model, self.folder, about, self.experiment)
        made = {}
        for name in model.remembered():
            self.say(f"counting {name}")
            made[name] = model.count(name)
        self.say("choosing on validation what stands beside the network")
        chosen = blended.settle(model, made, self.experiment, self.split, self.device)
        self.say("chosen: " + "; ".join(f"{name} {value}" for name, value in chosen.items()))
        processes.by_first(lambda: blended.keep(model, self.folder, chosen, about, self.experiment))

    def say(self, what: str) -> None:
        """Tell what is going on, in the log of the run and beside its progress."""
        log.info(what)
        if self.progress:
            print(what, file=sys.stderr, flush=True)

    def write(self, outcome: Outcome) -> None:
        """Write the ranks of the test targets, and the curves of training."""
        if outcome.test is not None:
            write_ranks(outcome.test, self.sequences, self.folder / "ranks.parquet")
        if outcome.fit is not None:
            from seqcl.report import plot_curves

            plot_curves(outcome.fit.history, self.folder / "curves.png", monitor=self.experiment.train.monitor)

    def pretrain(self, model: Recommender) -> dict[str, Any] | None:
        """Run the stage before training in a folder of its own; give its epochs, seconds and the facts that it depended on."""
        folder, trainer = self.folder / "pretrain", self.experiment.train
        if self.resume and last_checkpoint(self.folder).exists():  # training holds its result already
            done = about_stage(folder)
            self.clock.add(done["seconds"] if done else 0.0)
            return done
        torch.manual_seed(self.experiment.options.seed)
        stage = model.pretraining()
        if stage is None:
            return None
        self.say(f"pre-training for {stage.epochs} epochs, in {folder}")
        minutes = trainer.max_minutes and (self.clock.total() / 60 + trainer.max_minutes) / 2  # half of what is left
        shorter = replace(trainer, epochs=stage.epochs, lr=stage.lr, max_minutes=minutes, patience=0, ema=0.0)
        shorter = replace(shorter, batch_size=stage.batch_size(trainer.batch_size))
        boards = make_trackers(name for name in self.experiment.options.trackers if name == "tensorboard")
        with telling(boards, folder, {}):
            result = self.fit(stage.to(self.device), shorter, folder, callbacks=boards)
        if result.stopped == "minutes":
            log.warning(
                "pre-training was ended by train.max_minutes after %d of %d epochs", result.epochs, stage.epochs
            )
        return about_stage(folder)

    def fit(
        self,
        model: Recommender | Pretraining,
        trainer: Trainer,
        folder: Path,
        *,
        validate: Callable[[], Mapping[str, float]] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> FitResult:
        """Train from the seed of the experiment, or go on with what was begun in the folder."""
        seed = self.experiment.options.seed
        resume = self.resume and last_checkpoint(folder).exists()
        for note in other_machine(last_checkpoint(folder), self.device) if resume else ():
            log.warning(note)  # shown on stderr too
        torch.manual_seed(seed)
        processes.Counts.draws = 0  # so that a baseline learns what it learns alone
        return trainer.fit(
            model,
            training_batches(self.split, trainer, seed=seed, device=self.device, times=model.objective.times_needed),
            validate=validate,
            folder=folder,
            identity=identity(self.sequences) | model.identity,
            resume=resume,
            device=self.device,
            clock=self.clock,
            progress=self.progress,
            callbacks=callbacks,
        )

    def validate(self, model: Recommender) -> dict[str, float]:
        """Metrics of the validation targets, and figures in which a collapse of the vectors shows while it comes."""
        metrics = self.rank(model, "valid", lists=False).metrics
        return metrics | curves_of(model, self.split, self.experiment.eval, self.device)

    def rank(self, model: Model, part: Part, *, lists: bool = True) -> Result:
        """Rank the model on one part of the split."""
        return rank(model, self.split, part, self.experiment.eval, self.device, lists=lists)


def other_machine(checkpoint: Path, device: torch.device) -> Iterator[str]:
    """A line for each number, of threads or of processes, with which a run goes on though it was another one before."""
    state = load_checkpoint(checkpoint, prefix="nothing")[1]
    before, now = state.get("threads", torch.get_num_threads()), torch.get_num_threads()
    if before != now and device.type == "cpu":  # sums in another order have other last bits
        yield (
            f"the run was trained on {before} threads and goes on with {now}: its weights will differ in the last bits from "
            f"those of a run without a break; OMP_NUM_THREADS={before} avoids that"
        )
    before, now = state.get("processes", 1), processes.count()
    if before != now:
        drawn = (
            "its batches stay, but dropout and views are"
            if 1 in (before, now)
            else "its batches and views stay, but dropout is"
        )
        yield (
            f"the run was trained on {before} {'process' if before == 1 else 'processes'} and goes on with {now}: {drawn} "
            "drawn otherwise, so its weights will differ from those of a run without a break"
        )


def about_stage(folder: Path) -> dict[str, Any] | None:
    """Epochs, seconds and facts of a finished stage; None if there was none."""
    if not last_checkpoint(folder).exists():
        return None
    _, state = load_checkpoint(last_checkpoint(folder), prefix="nothing")
    return {"epochs": state["epoch"], "seconds": state["seconds"], **state["identity"]}


def training_batches(split: Split, trainer: Trainer, *, seed: int, device: torch.device, times: bool = False) -> Loader:
    """Batches of random training rows.

    Rows of one length in a batch would weigh a position of a short row more than one of a long row.
    """
    return Loader(
        split.train,
        batch_size=trainer.batch_size,
        device=device,
        shuffle_seed=seed,
        bucket=False,
        times=times,
        fixed=trainer.fixed_on(device),
    )
