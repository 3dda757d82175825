"""Seconds of a training epoch and peak memory: ours against RecBole, RecTools and the floor, on one machine in one run.

    python benchmarks/train_speed.py --data Beauty.txt [--long ml-1m.txt] [--smoke]

Every system runs alone in a process of its own, two threads, dim 64, 2 layers, 2 heads, full softmax, float32. Ours is the
median of whole epochs; the peers are a median over batches scaled to an epoch. RecTools: pip install 'rectools[torch]'.
The last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ENCODER = {"dim": 64, "layers": 2, "heads": 2}
THREADS = 2


def ours(path: str, model: str, windows: str, max_len: int, epochs: int) -> dict[str, Any]:
    """Median seconds of an epoch, in the loop that users run; the first epoch is not counted."""
    import torch

    from seqcl.config import from_mapping
    from seqcl.data import Loader
    from seqcl.experiment import SHARED, Options, Preparation, build
    from seqcl.training import Trainer

    torch.set_num_threads(THREADS)
    positions = {} if windows == "prefix" else {"positions": "relative"}
    values = {
        "model": model,
        "dataset": path,
        "data": {"windows": windows, "max_len": max_len},
        "encoder": ENCODER | positions,
        "next_item": {"loss": "softmax"},
        "train": {"epochs": epochs + 1, "batch_size": 1024 if windows == "prefix" else 256, "patience": 0},
    }
    config = from_mapping(values, SHARED, Options)
    preparation = Preparation(**config.data.as_dict())
    split = preparation.split_windows(preparation.sequences(path))
    torch.manual_seed(0)
    trainer = Trainer(**config.train.as_dict())
    loader = Loader(split.train, batch_size=trainer.batch_size, shuffle_seed=0)
    history = trainer.fit(build(config, split), loader, progress=False).history
    seconds = [float(row["train_seconds"]) for row in history[1:]]
    train = split.train
    return {
        "epoch_seconds": statistics.median(seconds),
        "how": f"median of {epochs} whole epochs",
        "epochs_seconds": seconds,
        "targets": train.num_targets,
        "positions": int((train.stop - train.start).sum()),
        "items": train.num_items,
    }


def floor(path: str, max_len: int) -> dict[str, Any]:
    """Operations of one pass over all positions, forward and backward, over the measured rate of a matrix product."""
    import torch

    from benchmarks.peers import square_rate
    from seqcl.data import leave_one_out, load_sequences

    torch.set_num_threads(THREADS)
    train = leave_one_out(load_sequences(path), max_len=max_len, windows="last").train
    lengths = (train.stop - train.start).astype(float)
    dim, layers = ENCODER["dim"], ENCODER["layers"]
    softmax = 6 * train.num_targets * train.num_items * dim
    dense = 6 * lengths.sum() * layers * 12 * dim**2
    attention = 6 * (lengths**2).sum() * layers * dim  # causal: half of every square, for scores and for values
    rate = square_rate()
    total = softmax + dense + attention
    return {"gflop": total / 1e9, "gflop_per_second": rate / 1e9, "epoch_seconds": total / rate}


def markov(rows: int) -> dict[str, Any]:
    """Seconds per million positions on Markov data."""
    from seqcl.data import markov as make
    from seqcl.data import text

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "markov.txt"
        text.write(make(users=rows, items=1000, length=20, seed=0).interactions, path)
        found = ours(str(path), "SASRec", "last", 50, 2)
    return {"seconds_per_million": found["epoch_seconds"] / found["targets"] * 1e6, "targets": found["targets"]}


def start(path: str) -> dict[str, Any]:
    raise SystemExit(path)


def alone(job: str, *words: Any) -> dict[str, Any]:
    """A job in a process of its own, with its peak memory."""
    command = [sys.executable, __file__, "--job", job, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("@@")]
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"{job} {' '.join(map(str, words))}: failed: {reason}", flush=True)
        return {"failed": reason}
    found = json.loads(lines[-1][2:])
    print(job, *words, {k: v for k, v in found.items() if k != "epochs_seconds"}, flush=True)
    return found
