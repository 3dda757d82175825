"""Training epochs of RecBole's and RecTools' SASRec, run as their users run them, for benchmarks/train_speed.py.

Each function trains for `steps` batches and returns the median seconds of a batch, scaled to an epoch.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def read_rows(path: Path) -> list[list[int]]:
    """Read the item ids of each user from a file in the S3-Rec text format."""
    return [[int(word) for word in line.split()[1:]] for line in path.read_text().splitlines()]


def extrapolated(steps: list[float], batches: int) -> dict[str, Any]:
    median = statistics.median(steps[2:])
    return {
        "epoch_seconds": median * batches,
        "how": f"median of {len(steps) - 2} of {batches} batches, scaled to an epoch",
        "batch_seconds": {"min": min(steps), "median": median, "max": max(steps)},
    }


Clock = Callable[[], float]


def recbole_sasrec(
    path: Path, *, max_len: int, batch_size: int, steps: int, clock: Clock = time.perf_counter
) -> dict[str, Any]:
    """Time SASRec of RecBole 1.2.1: full softmax, dim 64, 2 layers, 2 heads; it makes a row of every prefix."""
    sizes = {"hidden_size": 64, "inner_size": 256, "n_layers": 2, "n_heads": 2}
    values = {"train_neg_sample_args": None, "loss_type": "CE", **sizes}
    return recbole_epoch(path, "SASRec", values, max_len=max_len, batch_size=batch_size, steps=steps, clock=clock)


def recbole_epoch(
    path: Path,
    model: str,
    values: dict[str, Any],
    *,
    max_len: int,
    batch_size: int,
    steps: int,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Time a model in RecBole's pipeline with these settings, over rows in the order of their file."""
    warnings.simplefilter("ignore")
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    with tempfile.TemporaryDirectory() as folder:
        write_atomic(path, Path(folder) / "log" / "log.inter")
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "show_progress": False,
            "use_gpu": False,
            "nproc": 1,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "MAX_ITEM_LIST_LENGTH": max_len,
            "train_batch_size": batch_size,
        }
        config = Config(model=model, dataset="log", config_dict={**settings, **values})
        init_seed(1, True)
        train, _, _ = data_preparation(config, create_dataset(config))
        built = get_model(model)(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], model)(config, built)
        cut = Cut(train, steps, clock)
        trainer._train_epoch(cut, 0, show_progress=False)
        return {**extrapolated(cut.seconds, len(train)), "rows": len(train.dataset), "batches": len(train)}


def write_atomic(path: Path, target: Path) -> None:
    """Write a file in the S3-Rec text format as an atomic file; the places in a row become its times."""
    target.parent.mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, row in enumerate(read_rows(path)):
        lines += [f"{user}\t{item}\t{time_}" for time_, item in enumerate(row)]
    target.write_text("\n".join(lines) + "\n")


class Cut:
    """The first `steps` batches of a loader; notes the seconds from one to the next."""

    def __init__(self, loader: Any, steps: int, clock: Clock) -> None:
        self.loader, self.steps, self.clock, self.seconds = loader, steps, clock, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return min(self.steps, len(self.loader))

    def __iter__(self):
        before = self.clock()
        for number, batch in enumerate(self.loader):
            if number == self.steps:
                return
            yield batch
            now = self.clock()
            self.seconds.append(now - before)
            before = now


def rectools_sasrec(path: Path, *, max_len: int, batch_size: int, steps: int) -> dict[str, Any]:
    """Time RecTools' SASRec: softmax over all items, dim 64, 2 blocks, 2 heads; rows are padded to max_len."""
    warnings.simplefilter("ignore")
    import pandas as pd
    from pytorch_lightning import Callback, Trainer
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    rows = read_rows(path)
    frame = pd.DataFrame(
        [(user, item, position) for user, row in enumerate(rows) for position, item in enumerate(row[:-2])],
        columns=["user_id", "item_id", "position"],
    )
    frame["weight"] = 1.0
    frame["datetime"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame.pop("position"), unit="D")
    seconds: list[float] = []

    class Clock(Callback):
        def on_train_start(self, trainer, module):
            self.before = time.perf_counter()

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            now = time.perf_counter()
            seconds.append(now - self.before)
            self.before = now

    # RecTools copies the trainer and its callbacks: the clock writes to a list outside.
    def trainer():
        return Trainer(
            max_epochs=1000, max_steps=steps, accelerator="cpu", devices=1, enable_progress_bar=False,
            enable_checkpointing=False, logger=False, enable_model_summary=False, callbacks=[Clock()],
        )  # fmt: skip

    model = SASRecModel(
        n_factors=64, n_blocks=2, n_heads=2, session_max_len=max_len, batch_size=batch_size, loss="softmax",
        get_trainer_func=trainer,
    )  # fmt: skip
    model.fit(Dataset.construct(frame))
    return extrapolated(seconds, -(-len(rows) // batch_size))


def square_rate(size: int = 2048) -> float:
    """Measure floating-point operations a second of a float32 matrix product, the median of ten."""
    one, two = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        one @ two
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds)
