"""The only training loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqcl.errors import UserError, unknown
from seqcl.machine import give_back_memory
from seqcl.training.fabric import make_fabric
from seqcl.training.history import Events, Meter, Row, put_row, write_csv
from seqcl.training.keep import Keeper
from seqcl.training.optimizer import AdamW, Average, trainable
from seqcl.training.progress import Line, Signals, describe
from seqcl.training.schedule import learning_rate
from seqcl.training.state import Diverged, Interrupted, Loader, State, Validate
from seqcl.types import SeqBatch

if TYPE_CHECKING:
    from seqcl.training.fit import Trainer


class Loop:
    """One run: everything that it holds, and the parts that `Trainer.fit` is made of."""

    def __init__(
        self,
        config: Trainer,
        model: nn.Module,
        loader: Loader,
        *,
        validate: Validate | None,
        folder: Path | None,
        identity: Mapping[str, Any],
        device: torch.device,
        spent: float,
        progress: bool,
    ) -> None:
        self.config, self.model, self.loader, self.validate, self.folder = config, model, loader, validate, folder
        self.device = device
        self.fabric = make_fabric(device, config.precision)
        self.forward = self.fabric.setup_module(model)
        self.encoder: Any = model.encoder
        self.objective: Any = model.objective
        parameters = trainable(model)
        self.parameters = list(parameters.values())
        self.optimizer = AdamW(parameters, weight_decay=config.weight_decay)
        self.average = Average(parameters, decay=config.ema) if config.ema else None
        self.meter = Meter()
        self.keeper = Keeper(
            folder,
            identity=identity,
            model=model,
            optimizer=self.optimizer,
            average=self.average,
            meter=self.meter,
            device=device,
        )
        self.state = State(batches=len(loader))
        self.line = Line(shown=progress)
        self.events: Events | None = None
        self.spent = spent
        self.started = self.saved = time.monotonic()
        self.first_step, self.earlier = 0, 0.0  # steps and seconds of earlier processes
        self.validation_seconds = 0.0

    def begin(self, *, resume: bool) -> None:
        """Start from nothing, or go on from the last checkpoint."""
        if resume:
            self.state = self.keeper.resume(batches=len(self.loader))
            self.first_step, self.earlier = self.state.step, self.state.seconds
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.events = Events(self.folder / "tensorboard", step=self.state.step)

    def seconds(self) -> float:
        """Wall time in fit, over all resumptions."""
        return self.earlier + time.monotonic() - self.started

    def out_of_time(self) -> bool:
        """Whether only the time for one more validation is left."""
        limit = 60 * self.config.max_minutes
        return limit > 0 and self.spent + self.seconds() + self.validation_seconds >= limit

    def stopped(self) -> str | None:
        """Why no further epoch begins, or None."""
        if self.state.epoch >= self.config.epochs:
            return "epochs"
        if self.config.patience and self.state.stale >= self.config.patience:
            return "patience"
        # After one step at least, which is validated: a run always has a best.
        return "minutes" if self.out_of_time() and self.state.step else None

    def train_epoch(self, signals: Signals) -> None:
        """Take the steps of an epoch that are left, saving from time to time."""
        state = self.state
        clock = time.monotonic()
        if state.batch == 0:
            self.objective.before_epoch(self.encoder, self.loader, epoch=state.epoch, epochs=self.config.epochs)
        self.model.train()
        for batch in self.loader.epoch(state.epoch, start=state.batch):
            self.step(batch)
            now = time.monotonic()
            state.train_seconds += now - clock
            clock = now
            if self.meter.full or self.line.due:
                self.check()
            if self.line.due:
                self.line.refresh(self.describe(self.latest() | self.row(), part=state.batch / state.batches))
            self.pause(signals)
            if now - self.saved >= 60 * self.config.save_minutes:
                self.save()
                clock = time.monotonic()
            if self.out_of_time():
                break
        self.check()

    def step(self, batch: SeqBatch) -> None:
        """One update."""
        state = self.state
        terms: dict[str, Tensor] = self.forward(batch)
        total = torch.stack(list(terms.values())).sum()
        self.fabric.backward(total)
        if self.config.clip:
            if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in self.parameters):
                raise UserError(
                    "train.clip needs the whole gradient, and that of a table is sparse: towers.sparse false, or no clip"
                )
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip, foreach=True)
        self.optimizer.step(self.lr())
        state.step += 1
        state.batch += 1
        if self.average is not None:
            self.average.update(state.step)
        self.objective.after_step(self.encoder)
        losses = {f"loss_{name}": value for name, value in terms.items()}
        observed = {f"observed_{name}": value for name, value in self.objective.observed.items()}
        self.meter.add(losses | observed | {"loss": total, "items": batch.lengths.sum()})

    def lr(self) -> float:
        """The rate of the next update."""
        config = self.config
        total = config.epochs * self.state.batches
        return learning_rate(
            self.state.step, peak=config.lr, warmup=config.warmup, total=total, schedule=config.schedule
        )

    def check(self) -> None:
        """Raise if a loss was not finite; called before anything is saved."""
        bad = self.meter.flush()
        if bad is None:
            return
        ago, name = bad
        state, last = self.state, self.keeper.last
        good = f"the last good checkpoint is {last}" if last and last.exists() else "nothing was saved before it"
        raise Diverged(
            f"the loss {name!r} is not finite at step {state.step - ago} (epoch {state.epoch + 1}, batch "
            f"{state.batch - ago} of {state.batches}); {good}. A lower learning rate (train.lr; in pre-training pretrain.lr) or train.clip 1 may help."
        )

    def save(self) -> None:
        """Write the last checkpoint."""
        self.check()
        self.state.seconds = self.seconds()
        self.keeper.save(self.state)
        self.saved = time.monotonic()

    def pause(self, signals: Signals) -> None:
        """After a signal: save, and leave."""
        if signals.received is None:
            return
        self.save()
        where = f"stopped by {signals.received} in epoch {self.state.epoch + 1} after step {self.state.step}"
        how = f"go on with: --resume {self.folder}" if self.folder else "nothing was saved, as the run has no folder"
        raise Interrupted(f"{where}; {how}", self.keeper.last)

    def close_epoch(self) -> None:
        """Validate if it is time, and note the epoch; one that `max_minutes` cut short is validated but not counted."""
        state = self.state
        row = self.row()
        whole = state.batch >= state.batches
        if whole:
            state.epoch, state.batch, state.train_seconds = state.epoch + 1, 0, 0.0
            self.meter.reset()
        due = state.epoch % self.config.eval_every == 0 or state.epoch >= self.config.epochs
        better = False
        if self.validate is not None and (due or not whole or self.out_of_time()):
            metrics = self.validated(self.validate)
            row |= {f"valid_{name}": value for name, value in metrics.items()}
            better = self.judge(metrics, int(row["epoch"]))
        row["seconds"] = self.seconds()
        put_row(state.history, row)
        if better:
            state.seconds = self.seconds()
            self.keeper.save_best(state)
            self.saved = time.monotonic()
        self.tell(row)

    def validated(self, validate: Validate) -> dict[str, float]:
        """The validation metrics of the weights that would be kept."""
        began = time.monotonic()
        give_back_memory()  # what training left free is in pieces that evaluation has no use for
        self.model.eval()
        with torch.no_grad(), self.keeper.averaged():
            metrics = {name: float(value) for name, value in validate().items()}
        self.validation_seconds = time.monotonic() - began
        if self.config.monitor not in metrics:
            raise unknown("metric in train.monitor", self.config.monitor, metrics)
        return metrics

    def judge(self, metrics: dict[str, float], epoch: int) -> bool:
        """Note a new best, or that there was none."""
        state, value = self.state, metrics[self.config.monitor]
        if state.best is not None and not value > state.best:
            state.stale += 1
            return False
        state.best, state.best_epoch, state.best_step, state.stale = value, epoch, state.step, 0
        state.metrics = metrics
        return True

    def tell(self, row: Row) -> None:
        """Write history.csv and TensorBoard events anew, and show the epoch."""
        if self.folder is not None and self.events is not None:
            write_csv(self.state.history, self.folder / "history.csv")
            self.events.add(row)
        self.line.epoch(self.describe(row))

    def row(self) -> Row:
        """The row of the epoch under way."""
        state, means = self.state, self.meter.means()
        means.pop("items", None)
        speed = self.meter.sums.get("items", 0.0) / max(state.train_seconds, 1e-9)
        row: Row = {"epoch": state.epoch + 1, "step": state.step, "seconds": self.seconds()}
        row |= {"train_seconds": state.train_seconds, "lr": self.lr(), "items_per_second": speed}
        return row | {"loss": means.pop("loss", float("nan"))} | means

    def latest(self) -> Row:
        """The newest value of the watched metric, empty before the first validation."""
        name = f"valid_{self.config.monitor}"
        return next(({name: row[name]} for row in reversed(self.state.history) if name in row), {})

    def describe(self, row: Row, *, part: float | None = None) -> str:
        """`row` as a line, with the best so far and the time left at most; `part` is the share of the epoch done."""
        state, config = self.state, self.config
        pace = (self.seconds() - self.earlier) / max(1, state.step - self.first_step)
        left = pace * (config.epochs * state.batches - state.step)
        if config.max_minutes:
            left = min(left, 60 * config.max_minutes - self.spent - self.seconds())
        return describe(
            row,
            epochs=config.epochs,
            part=part,
            monitor=config.monitor,
            best=state.best,
            best_epoch=state.best_epoch,
            left=max(0.0, left),
        )

    def end(self) -> None:
        """Save, close, and give the model its best weights."""
        self.save()
        if self.events is not None:
            self.events.close()
        self.keeper.restore_best(self.state)
        self.model.eval()
