"""Trackers: callbacks that write a run down where `--track` says."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl import disk
from seqcl.errors import UserError, brief
from seqcl.training.callbacks import Callback
from seqcl.training.result import Interrupted
from seqcl.training.state import Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("seqcl")

IDS = "tracked.json"
"""The file of a run folder with the run's id at each tracker, so that a run that goes on stays one run there."""

MOST_PARAMS = 100
"""Parameters that MLflow takes at once."""


def values_of(row: Row) -> dict[str, float]:
    """The values of a row as trackers name them: under loss/, observed/, valid/ and speed/."""
    found = {}
    for name, value in row.items():
        group, _, rest = name.partition("_")
        if group in ("loss", "observed", "valid"):
            found[f"{group}/{rest or 'total'}"] = value
        elif name in ("lr", "items_per_second"):
            found[f"speed/{name}"] = value
    return found


class TensorBoard(Callback):
    """Events in the run's folder tensorboard/, with the options as hyper-parameters; no file is made before the first row."""

    def __init__(self) -> None:
        self.writer: SummaryWriter | None = None
        self.step = 0

    def begin(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.folder, self.options = folder / "tensorboard", options

    def epoch(self, row: Row) -> None:
        self.step = int(row["step"])
        writer = self.writer or self.open(purge_step=self.step if self.folder.exists() else None)
        for name, value in values_of(row).items():
            writer.add_scalar(name, value, self.step)
        writer.flush()

    def open(self, purge_step: int | None = None) -> SummaryWriter:
        """Begin a file; TensorBoard hides the events of earlier ones from `purge_step` on, which a crash left behind."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.writer = writer = SummaryWriter(str(self.folder), purge_step=purge_step)
        if self.options:
            told = {key: one if isinstance(one, bool | int | float) else str(one) for key, one in self.options.items()}
            watched = self.options["train.monitor"]
            files: Any = writer.file_writer
            for summary in hparams(told, {f"best/{watched}": 0.0, f"test/{watched}": 0.0}):
                files.add_summary(summary)
        return writer

    def end(self, metrics: Mapping[str, float] | None) -> None:
        if metrics:
            writer = self.writer or self.open()
            for name, value in metrics.items():
                writer.add_scalar(name, value, self.step)
        if self.writer is not None:
            self.writer.close()


class MLflow(Callback):
    """A run of MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say; `ndcg@10` is called ndcg_at_10 there."""

    def __init__(self) -> None:
        self.mlflow, self.run = needed("mlflow"), ""

    def begin(self, folder: Path, options: Mapping[str, Any]) -> None:
        known = known_id(folder, "mlflow")
        self.run = self.mlflow.start_run(run_id=known, run_name=folder.name, nested=True).info.run_id
        if known is None:
            keep_id(folder, "mlflow", self.run)
            rest = iter(options.items())
            while part := dict(islice(rest, MOST_PARAMS)):
                self.mlflow.log_params(part, run_id=self.run)

    def epoch(self, row: Row) -> None:
        self.log(values_of(row), step=int(row["step"]))

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log values under names that MLflow takes."""
        named = {name.replace("@", "_at_"): value for name, value in values.items()}
        self.mlflow.log_metrics(named, step=step, run_id=self.run)

    def end(self, metrics: Mapping[str, float] | None) -> None:
        self.log(metrics or {})
        self.mlflow.end_run("FINISHED" if metrics else "KILLED")


class WandB(Callback):
    """A run of Weights & Biases, with files in the run's folder wandb/; WANDB_MODE, WANDB_PROJECT and the like are its own."""

    def __init__(self) -> None:
        self.wandb = needed("wandb")
        self.run: Any = None

    def begin(self, folder: Path, options: Mapping[str, Any]) -> None:
        known = known_id(folder, "wandb") or keep_id(folder, "wandb", uuid.uuid4().hex)
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "seqcl"),
            dir=str(folder),
            name=folder.name,
            id=known,
            resume="allow",
            reinit="create_new",
            config=dict(options),
            settings=self.wandb.Settings(console="off"),  # else it takes in the live line
        )
        self.run.define_metric("*", step_metric="step")

    def epoch(self, row: Row) -> None:
        self.run.log({**values_of(row), "step": int(row["step"])})

    def end(self, metrics: Mapping[str, float] | None) -> None:
        if self.run is not None:
            self.run.summary.update(dict(metrics or {}))
            self.run.finish(exit_code=0 if metrics else 1)


TRACKERS: dict[str, type[Callback]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""The trackers that `--track` takes."""


class Guarded(Callback):
    """Hands all it hears to a tracker until that fails: this is said once, and the run goes on without it."""

    def __init__(self, name: str, tracker: Callback) -> None:
        self.name, self.tracker, self.broken = name, tracker, False

    def begin(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.tell(lambda: self.tracker.begin(folder, options))

    def epoch(self, row: Row) -> None:
        self.tell(lambda: self.tracker.epoch(row))

    def end(self, metrics: Mapping[str, float] | None) -> None:
        self.tell(lambda: self.tracker.end(metrics))

    def tell(self, call: Callable[[], None]) -> None:
        """Make a call that may fail in any way: it writes to other people's servers, and to disks that are full."""
        if self.broken:
            return
        try:
            call()
        except Interrupted:
            raise
        except Exception as error:
            self.broken = True
            log.warning("--track %s fails, and the run goes on without it: %s", self.name, brief(error))


def make_trackers(names: Iterable[str]) -> list[Callback]:
    """Make the trackers of these names for one run.

    Raises:
        UserError: the package of one is not installed.
    """
    return [Guarded(name, TRACKERS[name]()) for name in names]


def needed(package: str) -> Any:
    """Import the package of a tracker.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(
            f"--track {package} needs the package: pip install 'seqcl[{package}]' ({brief(error)})"
        ) from None


def known_id(folder: Path, tracker: str) -> str | None:
    """The id of a run at a tracker; None where it is not known there yet."""
    file = folder / IDS
    return disk.read_json(file, dict).get(tracker) if file.exists() else None


def keep_id(folder: Path, tracker: str, run: str) -> str:
    """Note the id of a run at a tracker, and give it back."""
    file = folder / IDS
    known = disk.read_json(file, dict) if file.exists() else {}
    disk.write_text(file, json.dumps(known | {tracker: run}) + "\n")
    return run
