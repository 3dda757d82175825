"""The checkpoints of a run: `last`, to go on from, and `best`, to use."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqcl import processes
from seqcl.disk import sweep_own
from seqcl.errors import UserError, brief
from seqcl.training.average import kept_weights
from seqcl.training.checkpoint import (
    PREVIOUS,
    CheckpointError,
    load_checkpoint,
    load_weights,
    not_as_written,
    put_weights,
    save_checkpoint,
    with_prefix,
    with_todays_names,
    without_prefix,
)
from seqcl.training.clock import Clock
from seqcl.training.learner import Learner
from seqcl.training.meter import raise_if_diverged
from seqcl.training.random_states import random_states, set_random_states
from seqcl.training.result import Interrupted
from seqcl.training.state import State


def last_checkpoint(folder: Path) -> Path:
    """The file from which a run in `folder` goes on."""
    return folder / "checkpoints" / "last.safetensors"


class Saver:
    """Saves a run to folder/checkpoints/{last,best}.safetensors and brings it back; without a folder, best in memory.

    The checkpoint before `last` is kept as previous.safetensors, for the day on which a bit of `last` has flipped.

    `last` is written before `best`, and names the step of the best. So `best` never comes from a future that a crash
    lost, and a `best` that a crash prevented is written on resumption.

    Args:
        folder: run folder, or None.
        learner: the model and everything that changes with it.
        identity: facts that a checkpoint must match to be resumed, such as the data's fingerprint.
        clock: time of the run.
        minutes: wall time between two checkpoints.
    """

    def __init__(
        self,
        folder: Path | None,
        learner: Learner,
        *,
        identity: Mapping[str, Any],
        clock: Clock,
        minutes: float,
    ) -> None:
        self.folder = folder
        self.last = last_checkpoint(folder) if folder else None
        self.best = folder / "checkpoints" / "best.safetensors" if folder else None
        self.learner, self.identity, self.clock, self.minutes = learner, dict(identity), clock, minutes
        self._saved = time.monotonic()
        self._best_weights: dict[str, Tensor] | None = None

    def begin(self, *, batches: int, resume: bool) -> State:
        """Start from nothing, or bring everything back, in place, to the moment at which `last` was saved.

        Raises:
            CheckpointError: a new run would overwrite an old one; or there is nothing to resume, or it is of other
                data, another model or other batches.
        """
        if not resume and self.last is not None and self.last.exists():
            raise CheckpointError(f"{self.last} is there already: resume that run, or give another folder")
        if self.last is not None and processes.is_first():
            sweep_own(self.last.parent)  # a killed process leaves gigabytes behind
        return self._resume(batches) if resume else State(batches=batches)

    @property
    def due(self) -> bool:
        """True where the time between two checkpoints has passed."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, state: State) -> None:
        """Write everything that the next step depends on to `last`.

        Raises:
            Diverged: a loss or a weight was not finite; nothing is written.
            CheckpointError: the disk is full.
        """
        raise_if_diverged(self.learner.meter, state, self.last, self.learner.module)
        state.seconds = self.clock.seconds()
        if self.last is not None and processes.is_first():  # the others hold the same
            random, numbers = random_states(self.learner.device)
            tensors = with_prefix(self.learner.module.state_dict(), "model.")
            tensors |= with_prefix(self.learner.optimizer.state(), "optimizer.") | with_prefix(random, "random.")
            if self.learner.average is not None:
                tensors |= with_prefix(self.learner.average.state(), "average.")
            about: dict[str, Any] = {"identity": self.identity, "random": numbers}
            about |= {"meter": self.learner.meter.state(), "threads": torch.get_num_threads()}
            about |= {"processes": processes.count()}
            save_checkpoint(self.last, tensors, asdict(state) | about, self.last.with_name(PREVIOUS))
        self._saved = time.monotonic()

    def save_best(self, state: State) -> None:
        """Save the run, and keep the weights that were just validated."""
        self.save(state)
        self._write_best(state)
        self._saved = time.monotonic()

    def restore_best(self, state: State) -> None:
        """Give the model the weights of the best epoch; without validation, those of the last one."""
        if self._best_weights is not None:
            self.learner.module.load_state_dict(self._best_weights)
        elif state.best is not None and self.best is not None:
            processes.wait()  # the first one may be writing it
            load_weights(self.learner.module, self.best, identity=self.identity)
        elif self.learner.average is not None:
            self.learner.average.adopt()

    def interrupted(self, state: State, signal: str) -> Interrupted:
        """Save the run, and give the error that ends it."""
        self.save(state)
        return Interrupted(
            signal=signal, epoch=state.epoch + 1, step=state.step, folder=self.folder, checkpoint=self.last
        )

    def _write_best(self, state: State) -> None:
        with kept_weights(self.learner.average):
            weights = self.learner.module.state_dict()
            if self.best is None:
                self._best_weights = {name: tensor.clone() for name, tensor in weights.items()}
                return
            if not processes.is_first():
                return
            about = {"epoch": state.best_epoch, "step": state.best_step, "metrics": state.metrics}
            save_checkpoint(self.best, with_prefix(weights, "model."), about | {"identity": self.identity})

    def _resume(self, batches: int) -> State:
        if self.last is None:
            raise CheckpointError("nothing to resume without a folder")
        stored, saved = load_checkpoint(self.last, identity=self.identity)
        tensors = with_todays_names(stored, self.learner.module)
        try:
            self._check_same_run(tensors, saved, batches)
            put_weights(self.learner.module, tensors, self.last)
            self.learner.optimizer.load(without_prefix(tensors, "optimizer."))
            if self.learner.average is not None:
                self.learner.average.load(without_prefix(tensors, "average."))
            self.learner.meter.load(saved["meter"])
            set_random_states(without_prefix(tensors, "random."), saved["random"], self.learner.device)
            state = State.read(saved)
        except UserError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise not_as_written(self.last, brief(error)) from None
        if state.best_step == state.step and self._best_step() != state.step:
            self._write_best(state)
        return state

    def _best_step(self) -> int:
        assert self.best is not None
        if not self.best.exists():
            return -1
        return int(load_checkpoint(self.best, prefix="nothing")[1]["step"])

    def _check_same_run(self, tensors: Mapping[str, Tensor], saved: Mapping[str, Any], batches: int) -> None:
        if saved["batches"] != batches:
            raise CheckpointError(
                f"{self.last} was made with {saved['batches']} batches an epoch, there are {batches} now: "
                "train.batch_size and data.windows must be as they were"
            )
        averaged = any(name.startswith("average.") for name in tensors)
        if averaged != (self.learner.average is not None):
            raise CheckpointError(f"{self.last} was made with train.ema {'on' if averaged else 'off'}, it must stay so")
