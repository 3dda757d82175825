"""How a model is trained: the options, and the call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqcl.errors import UserError
from seqcl.training.checkpoint import CheckpointError
from seqcl.training.fabric import Precision
from seqcl.training.loop import Loop
from seqcl.training.progress import Signals
from seqcl.training.schedule import Schedule
from seqcl.training.state import FitResult, Loader, Validate

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, math.inf),
    ("batch_size", 1, math.inf),
    ("lr", 0, math.inf),
    ("weight_decay", 0, math.inf),
    ("warmup", 0, math.inf),
    ("clip", 0, math.inf),
    ("eval_every", 1, math.inf),
    ("patience", 0, math.inf),
    ("ema", 0, 0.999999),
    ("max_minutes", 0, math.inf),
    ("save_minutes", 0, math.inf),
)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a model is trained: AdamW, a schedule, early stopping on a validation metric, checkpoints.

    Args:
        epochs: passes over the training windows, at most.
        batch_size: windows in a batch.
        lr: highest learning rate.
        weight_decay: AdamW's, on matrices and tables only, per update and times lr.
        warmup: updates over which the rate rises from 0.
        schedule: "constant", or "cosine" down to 0 at the last of `epochs`.
        clip: largest norm of the whole gradient; 0 for no limit.
        precision: "32", or "bf16" (autocast; weights stay float32).
        eval_every: epochs from one validation to the next.
        patience: validations without a new best before training stops; 0 for never.
        monitor: validation metric that picks the best epoch; higher is better.
        ema: share of the old kept per update in an average of the weights, which is validated and kept; 0 for none.
        max_minutes: wall time after which training stops, the last validation included, and pre-training, which has at most
            half of it; 0 for no limit.
        save_minutes: wall time between two checkpoints, besides the one at every new best and at the end.
    """

    epochs: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    schedule: Schedule = "constant"
    clip: float = 0.0
    precision: Precision = "32"
    eval_every: int = 1
    patience: int = 10
    monitor: str = "ndcg@10"
    ema: float = 0.995
    max_minutes: float = 0.0
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"train.{name} is {value}, must be from {low} to {high}")

    def fit(
        self,
        model: nn.Module,
        loader: Loader,
        *,
        validate: Validate | None = None,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
        device: str | torch.device = "cpu",
        spent: float = 0.0,
        progress: bool = True,
    ) -> FitResult:
        """Train until `epochs`, `patience` or `max_minutes` is reached; the model then holds its best weights.

        `model(batch)` gives {name: weighted loss}; `model.encoder` and `model.objective` are its two halves. `validate`
        is called in evaluation mode, without gradient and in float32. In `folder` come checkpoints/, history.csv and
        tensorboard/; `resume` goes on from there and gives, on a CPU, bit for bit the weights that the run would have
        had without the break: whatever the model changes while it trains must be a parameter or a persistent buffer.
        `identity` (data fingerprint, item count) is stored, and checked on resumption. `spent`, the seconds since the
        program began, counts towards `max_minutes`.

        Raises:
            Diverged: a loss was NaN or infinite; names the step and the last good checkpoint.
            Interrupted: SIGINT or SIGTERM came; the step under way was finished and saved.
            CheckpointError: nothing to resume, a checkpoint of other data or another model, or a full disk.
            UserError: `monitor` is no metric that `validate` gives.
        """
        loop = Loop(
            self,
            model,
            loader,
            validate=validate,
            folder=folder,
            identity=identity or {},
            device=torch.device(device),
            spent=spent,
            progress=progress,
        )
        last = loop.keeper.last
        if not resume and last is not None and last.exists():
            raise CheckpointError(f"{last} is there already: resume that run, or give another folder")
        loop.begin(resume=resume)
        with Signals() as signals, loop.line:
            while (stopped := loop.stopped()) is None:
                loop.train_epoch(signals)
                loop.close_epoch()
                loop.pause(signals)
        loop.end()
        state = loop.state
        return FitResult(
            best=state.best,
            best_epoch=state.best_epoch,
            metrics=state.metrics,
            epochs=state.epoch,
            steps=state.step,
            seconds=state.seconds,
            stopped=stopped,
            history=state.history,
        )
