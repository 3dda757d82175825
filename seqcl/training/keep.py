"""What of a run is kept: `last`, to go on from, and `best`, to use."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqcl.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    named,
    part,
    put_weights,
    random_states,
    save_checkpoint,
    set_random_states,
)
from seqcl.training.history import Meter
from seqcl.training.optimizer import AdamW, Average
from seqcl.training.state import State


def last_checkpoint(folder: Path) -> Path:
    """Where a run in `folder` keeps what it goes on from."""
    return folder / "checkpoints" / "last.safetensors"


class Keeper:
    """Saves a run to folder/checkpoints/{last,best}.safetensors and brings it back; without a folder, best in memory.

    `last` is written before `best`, and names the step of the best: so `best` never comes from a future that a crash
    lost, and one that a crash prevented is written on resumption.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: AdamW,
        average: Average | None,
        meter: Meter,
        device: torch.device,
    ) -> None:
        self.last = last_checkpoint(folder) if folder else None
        self.best = folder / "checkpoints" / "best.safetensors" if folder else None
        self.identity = dict(identity)
        self.model, self.optimizer, self.average, self.meter = model, optimizer, average, meter
        self.device = device
        self._best: dict[str, Tensor] | None = None

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are validated and kept: their average, if there is one."""
        return self.average.swapped_in() if self.average is not None else nullcontext()

    def save(self, state: State) -> None:
        """Everything that the next step depends on; the meter must have been flushed."""
        if self.last is None:
            return
        random, numbers = random_states(self.device)
        tensors = named("model.", self.model.state_dict()) | named("optimizer.", self.optimizer.state())
        tensors |= named("random.", random)
        if self.average is not None:
            tensors |= named("average.", self.average.state())
        about = {"identity": self.identity, "random": numbers, "meter": self.meter.state()}
        save_checkpoint(self.last, tensors, asdict(state) | about)

    def save_best(self, state: State) -> None:
        """Keep the weights that were just validated."""
        self.save(state)
        with self.averaged():
            weights = self.model.state_dict()
            if self.best is None:
                self._best = {name: tensor.clone() for name, tensor in weights.items()}
                return
            about = {"epoch": state.best_epoch, "step": state.best_step, "metrics": state.metrics}
            save_checkpoint(self.best, named("model.", weights), about | {"identity": self.identity})

    def resume(self, *, batches: int) -> State:
        """Bring everything back to where `last` was saved, in place.

        Raises:
            CheckpointError: there is none, or it is of other data, another model or other batches.
        """
        if self.last is None:
            raise CheckpointError("nothing to resume without a folder")
        tensors, saved = load_checkpoint(self.last, identity=self.identity)
        self._check(tensors, saved, batches)
        put_weights(self.model, tensors, self.last)
        self.optimizer.load(part(tensors, "optimizer."))
        if self.average is not None:
            self.average.load(part(tensors, "average."))
        self.meter.load(saved.pop("meter"))
        set_random_states(part(tensors, "random."), saved.pop("random"), self.device)
        del saved["identity"]
        state = State(**saved)
        if state.best_step == state.step and self._best_step() != state.step:
            self.save_best(state)
        return state

    def restore_best(self, state: State) -> None:
        """Give the model the weights of the best epoch; without validation, those of the last."""
        if self._best is not None:
            self.model.load_state_dict(self._best)
        elif state.best is not None and self.best is not None:
            load_weights(self.model, self.best, identity=self.identity)
        elif self.average is not None:
            self.average.adopt()

    def _best_step(self) -> int:
        assert self.best is not None
        if not self.best.exists():
            return -1
        return int(load_checkpoint(self.best, prefix="nothing")[1]["step"])

    def _check(self, tensors: Mapping[str, Tensor], saved: Mapping[str, Any], batches: int) -> None:
        if saved["batches"] != batches:
            raise CheckpointError(
                f"{self.last} was made with {saved['batches']} batches an epoch, there are {batches} now: "
                "train.batch_size and data.windows must be as they were"
            )
        averaged = any(name.startswith("average.") for name in tensors)
        if averaged != (self.average is not None):
            raise CheckpointError(f"{self.last} was made with train.ema {'on' if averaged else 'off'}, it must stay so")
