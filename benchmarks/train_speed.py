"""Seconds of a training epoch and peak memory: ours beside RecBole, RecTools and the floor, on one machine in one run.

    python benchmarks/train_speed.py --data Beauty.txt [--long ml-1m.txt] [--smoke]

Every system runs alone in a process of its own: two threads, dim 64, 2 layers, 2 heads, full softmax, float32. Ours is
the median of whole epochs in the loop that users run; a peer is the median of its batches, scaled to an epoch. The floor
is the number of operations in one pass over all positions, divided by the rate of a square matrix product. That rate is
measured after every epoch, because a shared machine changes its speed from minute to minute. RecBole comes with the extra
`recbole`; RecTools with pip install 'rectools[torch]', or give --rectools-python an interpreter that has it.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqcl.types import Windows

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
THREADS = 2
BARS = {  # ratio: (sign, must, aim); "<" means that small is good
    "sasrec_over_floor": ("<", 3, 1.8),
    "cl4rec_over_sasrec": ("<", 2, 1.6),
    "recbole_over_ours": (">", 25, 60),
    "recbole_over_ours_prefix": (">", 8, 20),
    "rectools_over_ours": (">", 25, 60),
    "memory_cl4rec_over_recbole": ("<", 0.6, 0.3),
    "long_rectools_over_ours": (">", 3, 6),
    "markov_ten_times_over_one": ("<", 1.15, 1.05),
    "start_seconds": ("<", 4, 2),
}


def ours(
    path: str, model: str, windows: str, max_len: int, epochs: int, positions: str = "relative", stage: bool = False
) -> dict[str, Any]:
    """Measure the median seconds of an epoch, without the first, and the floor at the rate measured after each epoch.

    With `stage`, an epoch is one of the model's pre-training.
    """
    import torch

    from benchmarks.peers import square_rate
    from seqcl.config import experiment
    from seqcl.experiment import training_batches
    from seqcl.models import MODELS
    from seqcl.parts import declared, options_of

    torch.set_num_threads(THREADS)
    sections = declared(MODELS[model])
    sizes = {"dim": 64, "layers": 2, "heads": 2, "positions": positions}
    values = {
        "model": model,
        "data": {"windows": windows, "max_len": max_len},
        "encoder": {name: size for name, size in sizes.items() if name in options_of(sections["encoder"].component)},
        **({"next_item": {"loss": "softmax"}} if "next_item" in sections else {}),
        "train": {"epochs": epochs + 1, "batch_size": 1024 if windows == "prefix" else 256, "patience": 0},
    }
    config = experiment(values)
    split = config.data.split_windows(config.data.sequences(path))
    torch.manual_seed(0)
    trainer = config.train
    model = config.build(split.train)
    model = model.pretraining() if stage else model
    times = getattr(model.objective, "times_needed", False)
    batches = training_batches(split, trainer, seed=0, device=torch.device("cpu"), times=times)
    history = trainer.fit(model, batches, validate=lambda: {"ndcg@10": square_rate()}, progress=False).history[1:]
    seconds = [float(row["train_seconds"]) for row in history]
    rate = statistics.median(float(row["valid_ndcg@10"]) for row in history)
    return {
        "epoch_seconds": statistics.median(seconds),
        "how": f"median of {epochs} whole epochs",
        "epochs_seconds": seconds,
        "targets": split.train.num_targets,
        "gflop_per_second": rate / 1e9,
        "floor_seconds": operations(split.train) / rate,
    }


def operations(train: Windows) -> float:
    """Count the floating-point operations of one pass over all positions, forward and backward."""
    lengths = (train.stop - train.start).astype(float)
    softmax = 6 * train.num_targets * train.num_items * 64
    dense = 6 * lengths.sum() * 2 * 12 * 64**2
    attention = 6 * (lengths**2).sum() * 2 * 64  # causal: half of every square, for scores and for values
    return float(softmax + dense + attention)


def markov(users: int, epochs: int) -> dict[str, Any]:
    """Measure the seconds per million targets on Markov data."""
    import torch

    from seqcl.data import markov as chain
    from seqcl.data import write

    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "markov.txt"
        write(chain(users=users, items=1000, length=20, seed=0).interactions, path)
        found = ours(str(path), "SASRec", "last", 50, epochs)
    return {"seconds_per_million": found["epoch_seconds"] / found["targets"] * 1e6, "targets": found["targets"]}


def memory(path: str) -> dict[str, Any]:
    """Run CL4Rec for one epoch, with evaluation and report, for the peak memory of this process."""
    from seqcl.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        words = ["--dataset", path, "--train.epochs", "1", "--runs", folder, "--next_item.loss", "softmax"]
        main(["train", "--model", "CL4Rec", *words])
    return {}


def start(dataset: str) -> dict[str, Any]:
    """Measure the seconds from the start of a process to the end of its first training step: warm cache, best of three."""
    words = [sys.executable, __file__, "--first-step", dataset]
    seconds = []
    for _ in range(4):  # the first one warms the cache
        began = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
        seconds.append(time.perf_counter() - began)
    return {"seconds": min(seconds[1:]), "all": seconds}


def first_step(dataset: str) -> None:
    """Do what `run.py --model CL4Rec` does up to the end of its first step; then end the process."""
    from seqcl import experiment
    from seqcl.config import resolve
    from seqcl.objectives import Joint

    def exit_now(self: Joint, encoder: Any) -> None:
        os._exit(0)

    Joint.after_step = exit_now  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        experiment.execute(resolve(["--dataset", dataset, "--runs", folder, "--eval.exclude_seen", "true"]))


def recbole(path: str, max_len: int, batch_size: int, steps: int) -> dict[str, Any]:
    import torch

    from benchmarks.peers import recbole_sasrec

    torch.set_num_threads(THREADS)
    return recbole_sasrec(Path(path), max_len=max_len, batch_size=batch_size, steps=steps)


def rectools(path: str, max_len: int, batch_size: int, steps: int) -> dict[str, Any]:
    import torch

    from benchmarks.peers import rectools_sasrec

    torch.set_num_threads(THREADS)
    return rectools_sasrec(Path(path), max_len=max_len, batch_size=batch_size, steps=steps)


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    job.__name__: job for job in (ours, markov, memory, start, recbole, rectools)
}


def alone(job: str, *words: Any, python: str = sys.executable) -> dict[str, Any]:
    """Run a job in a process of its own and note its peak memory."""
    command = [python, __file__, "--job", json.dumps([job, *words])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("@@")]
    found = json.loads(lines[-1][2:]) if lines else {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    print(f"{job} {' '.join(map(str, words))}: {json.dumps(found)}", flush=True)
    return found


def ratio(one: dict[str, Any], two: dict[str, Any], key: str = "epoch_seconds") -> float | None:
    return round(one[key] / two[key], 3) if key in one and key in two else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="Beauty", help="text file or name (default: Beauty)")
    parser.add_argument("--long", help="ml-1m.txt, for the comparison at length 200")
    parser.add_argument("--epochs", type=int, default=3, help="whole epochs of ours (default: 3)")
    parser.add_argument("--steps", type=int, default=100, help="batches of a peer (default: 100)")
    parser.add_argument("--rectools-python", default=sys.executable, help="interpreter that has RecTools")
    parser.add_argument("--smoke", action="store_true", help="a small Markov set, few steps, no claims")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--first-step", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        name, *words = json.loads(chosen.job)
        found = JOBS[name](*words)
        import resource

        found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print("@@" + json.dumps(found), flush=True)
    elif chosen.first_step:
        first_step(chosen.first_step)
    elif chosen.smoke:
        with tempfile.TemporaryDirectory() as folder:
            from seqcl.data import markov as chain
            from seqcl.data import write

            path = Path(folder) / "markov.txt"
            write(chain(users=300, items=50, length=12, seed=0).interactions, path)
            compare(str(path), None, epochs=1, steps=4, rectools_python=chosen.rectools_python, smoke=True)
    else:
        from seqcl.data import resolve

        data = str(Path(resolve(chosen.data)).resolve())  # type: ignore[arg-type]
        compare(data, chosen.long, chosen.epochs, chosen.steps, chosen.rectools_python, smoke=False)


def compare(path: str, long: str | None, epochs: int, steps: int, rectools_python: str, *, smoke: bool) -> None:
    """Run everything and print the ratios, one JSON line last."""
    sasrec = alone("ours", path, "SASRec", "sliding", 50, epochs)
    contrastive = alone("ours", path, "CL4Rec", "sliding", 50, epochs)
    prefix = alone("ours", path, "SASRec", "prefix", 50, max(1, epochs // 3), "end")
    their = alone("recbole", path, 50, 256, steps)
    tools = alone("rectools", path, 50, 128, steps, python=rectools_python)
    result: dict[str, Any] = {
        "sasrec_over_floor": round(sasrec["epoch_seconds"] / sasrec["floor_seconds"], 3),
        "cl4rec_over_sasrec": ratio(contrastive, sasrec),
        "recbole_over_ours": ratio(their, sasrec),
        "recbole_over_ours_prefix": ratio(their, prefix),
        "rectools_over_ours": ratio(tools, sasrec),
        "memory_cl4rec_over_recbole": ratio(alone("memory", path), their, "peak_mb"),
    }
    if long:
        mine = alone("ours", long, "SASRec", "sliding", 200, 1, "start")
        result["long_rectools_over_ours"] = ratio(
            alone("rectools", long, 200, 128, min(steps, 47), python=rectools_python), mine
        )
    if not smoke:
        sizes = ((40_000, 2), (4_000, 8))
        rounds = [[alone("markov", *size)["seconds_per_million"] for size in sizes] for _ in range(5)]
        result["markov_ten_times_over_one"] = round(statistics.median(large / one for large, one in rounds), 3)
        result["start_seconds"] = alone("start", "ml-100k").get("seconds")
    for name, value in result.items():
        sign, must, aim = BARS[name]
        if value is not None:
            word = next(
                (word for word, bar in (("aim", aim), ("must", must)) if (value < bar) == (sign == "<")), "missed"
            )
            verdict = "" if smoke else f"   must {sign} {must}, aim {sign} {aim}: {word}"
            print(f"{name:<28}{value:>9.3f}{verdict}")
    from seqcl.machine import processor

    about = {"date": date.today().isoformat(), "processor": processor(), "cores": os.cpu_count(), "threads": THREADS}
    print(json.dumps({"benchmark": "train_speed", "smoke": smoke, **about, **result}))


if __name__ == "__main__":
    main()
