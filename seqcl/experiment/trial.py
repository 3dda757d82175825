"""One model on one split: built, trained, ranked, written down."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace

from seqcl import config as configuration
from seqcl.data import Loader, Sequences, Split
from seqcl.encoders.spectral import begun_spectrally
from seqcl.errors import unknown
from seqcl.evaluation import Evaluator, Result, by_slice
from seqcl.experiment.folder import log, write_ranks
from seqcl.models import MODELS, Baseline, Pretraining, Recommender
from seqcl.training import Clock, FitResult, Trainer, Validate, last_checkpoint, load_checkpoint
from seqcl.types import Windows

Model = Recommender | Baseline


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model came to."""

    valid: Result
    test: Result
    slices: dict[str, Any]  # of test
    fit: FitResult | None  # None for a model that is counted, not trained
    earlier_seconds: float  # of training in processes before this one
    pretraining: dict[str, Any] | None = None  # epochs, seconds, and what it knew


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model on one split: build, train, rank, write."""

    config: Namespace
    sequences: Sequences
    split: Split
    folder: Path
    device: torch.device

    def run(self, model: Model, *, resume: bool, spent: float, progress: bool) -> Outcome:
        """Train unless the model is counted, then rank validation and test with the best weights."""
        config = self.config
        model = model.to(self.device)
        fit, earlier, stage = None, 0.0, None
        if isinstance(model, Recommender):
            trainer = Trainer(**config.train.as_dict())
            began = time.monotonic()
            stage = self.pretrain(model, trainer, resume=resume, spent=spent, progress=progress)
            before = stage["seconds"] if stage else 0.0
            fit = self.fit(
                model,
                trainer,
                self.folder,
                validate=lambda: self.rank(model, "valid", lists=False).metrics,
                resume=resume,
                spent=spent + before,
                progress=progress,
            )
            earlier = max(0.0, before + fit.seconds - (time.monotonic() - began))
        test = self.rank(model, "test")
        slices = slices_of(test, self.split, "test", config.eval.ks)
        outcome = Outcome(
            valid=self.rank(model, "valid"),
            test=test,
            slices=slices,
            fit=fit,
            earlier_seconds=earlier,
            pretraining=stage,
        )
        write_ranks(outcome.test, self.sequences, self.folder / "ranks.parquet")
        if fit is not None:
            from seqcl.report import plot_curves

            plot_curves(fit.history, self.folder / "curves.png", monitor=config.train.monitor)
        return outcome

    def pretrain(
        self, model: Recommender, trainer: Trainer, *, resume: bool, spent: float, progress: bool
    ) -> dict[str, Any] | None:
        """The stage before training, in a folder of its own: its epochs, its seconds over all resumptions and what it knew."""
        folder = self.folder / "pretrain"
        if resume and last_checkpoint(self.folder).exists():  # training holds its result already
            return about_stage(folder)
        torch.manual_seed(self.config.seed)
        stage = model.pretraining()
        if stage is None:
            return None
        log.info("pre-training for %d epochs, in %s", stage.epochs, folder)
        if progress:
            print(f"pre-training for {stage.epochs} epochs", file=sys.stderr, flush=True)
        # Of the time there is, at most half.
        minutes = trainer.max_minutes and (spent / 60 + trainer.max_minutes) / 2
        shorter = replace(trainer, epochs=stage.epochs, lr=stage.lr, max_minutes=minutes, patience=0, ema=0.0)
        done = self.fit(stage.to(self.device), shorter, folder, resume=resume, spent=spent, progress=progress)
        if done.stopped == "minutes":
            log.warning("pre-training was ended by train.max_minutes after %d of %d epochs", done.epochs, stage.epochs)
        return about_stage(folder)

    def fit(
        self,
        model: Recommender | Pretraining,
        trainer: Trainer,
        folder: Path,
        *,
        resume: bool,
        spent: float,
        progress: bool,
        validate: Validate | None = None,
    ) -> FitResult:
        """Train from the seed of the configuration, or go on with what was begun in the folder."""
        seed, times = self.config.seed, model.objective.times_needed
        torch.manual_seed(seed)
        return trainer.fit(
            model,
            training_batches(self.split, trainer, seed=seed, device=self.device, times=times),
            validate=validate,
            folder=folder,
            identity=identity(self.sequences) | model.identity,
            resume=resume and last_checkpoint(folder).exists(),
            device=self.device,
            clock=Clock(spent=spent),
            progress=progress,
        )

    def rank(self, model: Model, part: Literal["valid", "test"], lists: bool = True) -> Result:
        return rank(model, self.split, part, Evaluator(**self.config.eval.as_dict()), self.device, lists=lists)


def about_stage(folder: Path) -> dict[str, Any] | None:
    """What came of a stage, None if there was none."""
    if not last_checkpoint(folder).exists():
        return None
    _, state = load_checkpoint(last_checkpoint(folder), prefix="nothing")
    return {"epochs": state["epoch"], "seconds": state["seconds"], **state["identity"]}


def training_batches(split: Split, trainer: Trainer, *, seed: int, device: torch.device, times: bool = False) -> Loader:
    """Random rows, not rows of one length, which would weigh a position of a short row more than one of a long row."""
    return Loader(
        split.train, batch_size=trainer.batch_size, device=device, shuffle_seed=seed, bucket=False, times=times
    )


def build(config: Namespace, split: Split, *, fresh: bool = True) -> Model:
    """The model of a configuration, with new weights that its seed decides; not `fresh`: with any, as others will be read."""
    torch.manual_seed(config.seed)
    recipe = MODELS[config.model]
    parts: dict[str, Any] = configuration.build_parts(recipe, config)
    if config.start == "spectral" and fresh and "encoder" in parts:
        parts["encoder"] = begun_spectrally(parts["encoder"], split.train)
    return recipe(split.train, **parts)


@torch.no_grad()
def rank(
    model: Model,
    split: Split,
    part: Literal["valid", "test"],
    evaluator: Evaluator,
    device: torch.device,
    *,
    lists: bool,
) -> Result:
    """Metrics of a model on one part of a split; `lists` adds those that need the recommended items."""
    windows = windows_of(split, part)
    model.eval()
    loader = Loader(windows, batch_size=evaluator.batch_size, device=device, targets="last")
    return evaluator(windows, loader, model, split.train.item_counts(), lists=lists)


def slices_of(result: Result, split: Split, part: str, ks: Sequence[int]) -> dict[str, Any]:
    """Metrics of what `rank` gave for one part of a split, by history length and by target popularity."""
    return by_slice(result, windows_of(split, part), split.train.item_counts(), sorted(set(ks)))


def windows_of(split: Split, part: str) -> Windows:
    parts = {"valid": split.valid, "test": split.test}
    if part not in parts:
        raise unknown("part", part, parts)
    return parts[part]


def full_protocol(result: Result, sequences: Sequences, split: Split, seed: int) -> dict[str, Any]:
    """All that a figure must be quoted with."""
    prepared = {
        "k_core": sequences.k_core,
        "min_length": sequences.min_length,
        "duplicates": sequences.duplicates,
        "data_fingerprint": sequences.fingerprint,
    }
    return {**split.protocol, **prepared, "seed": seed, **result.protocol}


def identity(sequences: Sequences) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    return {"data_fingerprint": sequences.fingerprint, "num_items": sequences.num_items}
