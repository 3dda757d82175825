"""The options of training, and the only training loop: `Trainer.fit`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from seqcl import processes
from seqcl.errors import UserError, check_choice, unknown
from seqcl.machine import give_back_memory
from seqcl.training.average import kept_weights
from seqcl.training.callbacks import Callback
from seqcl.training.clock import Clock
from seqcl.training.compiled import compiled
from seqcl.training.fabric import Precision
from seqcl.training.history import epoch_row
from seqcl.training.learner import Learner
from seqcl.training.meter import Meter, raise_if_diverged, say_never_given
from seqcl.training.optimizer import clip_gradient
from seqcl.training.protocols import Loader, Trainable, Validate
from seqcl.training.reporter import Reporter
from seqcl.training.result import FitResult
from seqcl.training.saver import Saver
from seqcl.training.schedule import Schedule, learning_rate
from seqcl.training.signals import Signals
from seqcl.training.state import Row, State

Shapes = Literal["auto", "fixed", "packed"]

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
    """Options of training: AdamW, a learning-rate schedule, early stopping on a validation metric, checkpoints.

    Args:
        epochs: largest number of passes over the training windows.
        batch_size: windows in a batch.
        lr: highest learning rate.
        weight_decay: decay of parameters per update, times lr; those of at most one dimension, such as gains of norms, have none.
        warmup: updates over which the rate rises from 0.
        schedule: constant, or cosine: down to 0 at the last of `epochs`.
        clip: largest norm of the whole gradient; 0 for no limit.
        precision: 32, or bf16: autocast, with weights in float32.
        eval_every: epochs from one validation to the next.
        patience: validations without a new best before training stops; 0 for never.
        monitor: validation metric that picks the best epoch; higher is better.
        ema: portion of the old average that an update keeps; the averaged weights are validated and kept; 0 for no average.
        max_minutes: wall time of the run, the last validation included; pre-training has at most half of it; 0 for no limit.
        save_minutes: wall time between two checkpoints; every new best and the end are saved besides.
        shapes: fixed: shapes of a batch come again and no step waits for the device, as a GPU likes it; packed: nothing is
            computed for padding, as a processor likes it; auto: fixed on a GPU or with `compile`, else packed.
        compile: compile the encoder (torch.compile, CUDA graphs on a GPU), which takes a minute at the first steps.

    Raises:
        UserError: an option is out of its range.
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
    shapes: Shapes = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                wanted = f"{low} or more" if high == math.inf else f"from {low} to {high}"
                raise UserError(f"train.{name} is {value}, must be {wanted}")
        check_choice("train.shapes", self.shapes, Shapes)
        if self.compile and self.shapes == "packed":
            raise UserError("train.compile needs shapes that come again: train.shapes auto or fixed, not packed")

    def fixed_on(self, device: str | torch.device) -> bool:
        """True if the shapes of batches are fixed on a device."""
        return self.shapes == "fixed" or (
            self.shapes == "auto" and (self.compile or torch.device(device).type == "cuda")
        )

    def fit(
        self,
        model: Trainable,
        loader: Loader,
        *,
        validate: Validate | None = None,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
        device: str | torch.device = "cpu",
        clock: Clock | None = None,
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> FitResult:
        """Train until `epochs`, `patience` or `max_minutes` is reached; the model then holds its best weights.

        A resumed run has, on a CPU, bit for bit the weights of a run without the break.

        Args:
            model: an nn.Module that gives its losses by name; see `Trainable`.
            loader: batches of training rows.
            validate: gives the metrics; called in evaluation mode, without gradient and in float32.
            folder: run folder, for checkpoints/ and history.csv.
            identity: facts that a checkpoint stores and must match when it is resumed, such as the data's fingerprint.
            resume: go on from the last checkpoint in `folder`.
            device: device of the model and of the batches.
            clock: time of the whole run, if it began before this call; it counts towards `max_minutes`.
            progress: show a line on stderr.
            callbacks: are told of each epoch; what one raises ends the run. Of several processes, those of the first are.

        Raises:
            Diverged: a loss, a weight or a score was NaN or infinite; names the step and the last good checkpoint.
            Interrupted: SIGINT or SIGTERM came; the step under way was finished and saved.
            CheckpointError: nothing to resume, a checkpoint of other data or another model, or a full disk.
            UserError: `monitor` is no metric that `validate` gives, there are no batches, or no batch can give any term.
        """
        if not len(loader):
            raise UserError("there is nothing to train on: the training rows make no batch")
        clock = clock or Clock()
        learner = Learner(
            model,
            device=torch.device(device),
            precision=self.precision,
            weight_decay=self.weight_decay,
            ema=self.ema,
            fixed=self.fixed_on(device),
        )
        saver = Saver(folder, learner, identity=identity or {}, clock=clock, minutes=self.save_minutes)
        state = saver.begin(batches=len(loader), resume=resume)
        state.begin(self.epochs)
        clock.begin(limit=60 * self.max_minutes, earlier=state.seconds)
        reporter = Reporter(
            folder if processes.is_first() else None,
            clock=clock,
            epochs=self.epochs,
            monitor=self.monitor,
            step=state.step,
            shown=progress and processes.is_first(),
            callbacks=callbacks if processes.is_first() else (),
        )
        with Signals() as signals, reporter, compiled(model.encoder) if self.compile else nullcontext():
            stopped = self._train(
                learner, loader, validate, state=state, clock=clock, saver=saver, reporter=reporter, signals=signals
            )
        saver.save(state)
        saver.restore_best(state)
        learner.module.eval()
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

    def _train(
        self,
        learner: Learner,
        loader: Loader,
        validate: Validate | None,
        *,
        state: State,
        clock: Clock,
        saver: Saver,
        reporter: Reporter,
        signals: Signals,
    ) -> str:
        """Train and validate, epoch after epoch, until there is a reason to stop; give the reason."""
        model, encoder, objective, meter = learner.module, learner.encoder, learner.objective, learner.meter
        late = clock.out_of_time()
        while (reason := self._reason_to_stop(state, late)) is None:
            clock.lap()
            if state.batch == 0:
                objective.before_epoch(encoder, loader, epoch=state.epoch, epochs=self.epochs)
            model.train()
            for batch in loader.epoch(state.epoch, start=state.batch):
                lr = self._rate(state)
                total, losses = learner.backward(learner.forward(batch))
                if self.clip:
                    clip_gradient(learner.optimizer.parameters, self.clip)
                learner.optimizer.step(lr)
                state.step += 1
                state.batch += 1
                if learner.average is not None:
                    learner.average.update(state.step)
                objective.after_step(encoder)
                missing = getattr(objective, "missing", None)  # one's own objective may know of none
                meter.add_step(losses, objective.observed, total=total, items=batch.lengths.sum(), missing=missing)
                state.train_seconds += clock.lap()

                if meter.full or reporter.due:
                    raise_if_diverged(meter, state, saver.last)
                if reporter.due:
                    reporter.refresh(state, self._row(state, meter, clock))
                if received := signals.agreed():
                    raise saver.interrupted(state, received)
                if saver.due:
                    saver.save(state)
                    clock.lap()  # the time of saving is not the time of training
                if clock.out_of_time():
                    break
            raise_if_diverged(meter, state, saver.last, model)
            state.train_seconds += clock.lap()  # a GPU may still have been at work on the last steps

            row = self._row(state, meter, clock)
            whole = state.batch >= state.batches
            if whole:  # an epoch that `max_minutes` cut short is validated, but not counted
                say_never_given(meter, state)
                state.end_epoch()
                meter.reset()
            late = clock.out_of_time()
            due = state.epoch % self.eval_every == 0 or state.epoch >= self.epochs or not whole or late
            metrics = self._metrics(validate, learner, clock) if validate is not None and due else {}
            late = late or (due and clock.out_of_time())  # no epoch begins without time for another validation
            self._end(row, metrics, state, clock=clock, saver=saver, reporter=reporter)
            if received := signals.agreed():
                raise saver.interrupted(state, received)
        # A run that goes on may have no time or epochs left.
        if validate is not None and not state.judged(self.monitor):
            row = self._row(state, meter, clock) if state.batch or not state.history else state.history[-1]
            metrics = self._metrics(validate, learner, clock)
            self._end(row, metrics, state, clock=clock, saver=saver, reporter=reporter)
        return reason

    def _end(
        self, row: Row, metrics: dict[str, float], state: State, *, clock: Clock, saver: Saver, reporter: Reporter
    ) -> None:
        """Put the row of an epoch into the history; of a validated one, keep the weights if they are the best."""
        row |= {f"valid_{name}": value for name, value in metrics.items()}
        better = bool(metrics) and state.judge(metrics, monitor=self.monitor, epoch=int(row["epoch"]))
        row["seconds"] = clock.seconds()
        state.put(row)
        if better:
            saver.save_best(state)
        reporter.epoch(state, row)

    def _reason_to_stop(self, state: State, late: bool) -> str | None:
        """Say why no further epoch begins, or None."""
        if state.epoch >= self.epochs:
            return "epochs"
        if self.patience and state.stale >= self.patience:
            return "patience"
        return "minutes" if late and state.step else None  # a first step is always done, and validated

    def _rate(self, state: State) -> float:
        """The learning rate of the next update."""
        total = self.epochs * state.batches
        return learning_rate(state.step, peak=self.lr, warmup=self.warmup, total=total, schedule=self.schedule)

    def _row(self, state: State, meter: Meter, clock: Clock) -> Row:
        """The row of the epoch under way, without validation."""
        return epoch_row(state, meter, lr=self._rate(state), seconds=clock.seconds())

    def _metrics(self, validate: Validate, learner: Learner, clock: Clock) -> dict[str, float]:
        """Validate the weights that would be kept, and note the time that it takes."""
        began = clock.seconds()
        processes.check_common_draws()
        give_back_memory()  # what training left free is in pieces that evaluation has no use for
        learner.module.eval()
        with torch.no_grad(), kept_weights(learner.average):
            metrics = processes.of_first({name: float(value) for name, value in validate().items()})
        clock.reserve = clock.seconds() - began
        if self.monitor not in metrics:
            raise unknown("metric in train.monitor", self.monitor, metrics)
        return metrics
