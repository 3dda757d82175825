"""Seconds of a training batch of CL4Rec in RecBole's pipeline and in our own loop, beside RecBole's own SASRec.

    python benchmarks/recbole_speed.py --data Beauty [--steps 40] [--smoke]

Batches of 256 rows, one row a target as RecBole cuts them, dim 64, 2 layers, length 50, full softmax, float32. Each
system runs alone in a process of its own; a figure is the median of its batches. On a shared machine, --threads 1
--clock cpu counts the seconds that the process was at work. RecBole-DA's CL4SRec is quoted, not measured here: 363 s for
the same 131,413 rows of Beauty in batches of 256, wall time on two threads of another machine, where RecBole's SASRec
took 217 s. For that reason it is also given relative to the SASRec measured here. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BATCH, MAX_LEN = 256, 50
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Clock = Callable[[], float]
QUOTED = {
    "system": "RecBole-DA CL4SRec",
    "epoch_seconds": 363.0,
    "rows": 131_413,
    "recbole_sasrec_epoch_seconds": 217.0,
}
SIZES = {"dim": 64, "layers": 2, "heads": 2}


def recbole_sasrec(path: str, steps: int, clock: Clock) -> dict[str, Any]:
    """Time RecBole's SASRec in RecBole's pipeline, as installed."""
    from benchmarks import peers

    return peers.recbole_sasrec(Path(path), max_len=MAX_LEN, batch_size=BATCH, steps=steps, clock=clock)


def recbole_sasrec_beside_us(path: str, steps: int, clock: Clock) -> dict[str, Any]:
    """Time the same after `import seqcl.integrations.recbole`, which keeps autograd's anomaly mode off."""
    import seqcl.integrations.recbole  # noqa: F401

    return recbole_sasrec(path, steps, clock)


def recbole_cl4rec(path: str, steps: int, clock: Clock) -> dict[str, Any]:
    """Time our CL4Rec in RecBole's pipeline."""
    import seqcl.integrations.recbole  # noqa: F401
    from benchmarks import peers

    return peers.recbole_epoch(
        Path(path), "CL4Rec", {"encoder": SIZES}, max_len=MAX_LEN, batch_size=BATCH, steps=steps, clock=clock
    )


def our_cl4rec(path: str, steps: int, clock: Clock) -> dict[str, Any]:
    """Time CL4Rec in our own loop, over the same rows."""
    return our_loop(path, steps, "prefix", clock)


def our_cl4rec_one_pass(path: str, steps: int, clock: Clock) -> dict[str, Any]:
    """Time the same with all positions of a row learned in one pass, which is the default."""
    return our_loop(path, steps, "sliding", clock)


def our_loop(path: str, steps: int, windows: str, clock: Clock) -> dict[str, Any]:
    """Measure the median seconds of a batch in `Trainer.fit`, scaled to an epoch."""
    import torch

    from benchmarks.peers import extrapolated
    from seqcl.config import experiment
    from seqcl.experiment import training_batches

    train = {"epochs": 1, "batch_size": BATCH, "patience": 0}
    values = {"model": "CL4Rec", "data": {"windows": windows, "max_len": MAX_LEN}, "encoder": SIZES, "train": train}
    config = experiment(values)
    split = config.data.split_windows(config.data.sequences(path))
    batches = First(training_batches(split, config.train, seed=0, device=torch.device("cpu")), steps, clock)
    config.train.fit(config.build(split.train), batches, progress=False)
    whole = len(batches.loader)
    return {**extrapolated(batches.seconds, whole), "rows": len(split.train), "batches": whole}


class First:
    """The first `steps` batches of a loader of ours; notes the seconds from one to the next."""

    def __init__(self, loader: Any, steps: int, clock: Clock) -> None:
        self.loader, self.steps, self.clock, self.seconds = loader, steps, clock, list[float]()

    def __len__(self) -> int:
        return min(self.steps, len(self.loader))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        before = self.clock()
        for place, batch in enumerate(self.loader.epoch(number, start)):
            if place == self.steps:
                return
            yield batch
            now = self.clock()
            self.seconds.append(now - before)
            before = now


JOBS: dict[str, Callable[[str, int, Clock], dict[str, Any]]] = {
    job.__name__: job
    for job in (recbole_sasrec, recbole_sasrec_beside_us, recbole_cl4rec, our_cl4rec, our_cl4rec_one_pass)
}


def alone(job: str, path: str, *words: str) -> dict[str, Any]:
    """Run a job in a process of its own."""
    command = [sys.executable, __file__, "--job", job, "--data", path, *words]
    with tempfile.TemporaryDirectory() as folder:  # RecBole writes where it runs
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    lines = [line for line in done.stdout.splitlines() if line.startswith("@@")]
    if not lines:
        sys.exit(f"{job} failed: {done.stderr.strip()[-2000:]}")
    found = json.loads(lines[-1][2:])
    print(f"{job}: {json.dumps(found)}", flush=True)
    return found


def compare(path: str, steps: int, threads: int, clock: str, *, smoke: bool) -> None:
    """Run every job and print the ratios, one JSON line last."""
    words = ["--steps", str(steps), "--threads", str(threads), "--clock", clock]
    found = {job: alone(job, path, *words) for job in JOBS}
    batch = {job: it["batch_seconds"]["median"] for job, it in found.items()}
    epoch = {job: it["epoch_seconds"] for job, it in found.items()}
    quoted = QUOTED["epoch_seconds"] / -(-QUOTED["rows"] // BATCH)  # type: ignore[operator]
    slower = QUOTED["epoch_seconds"] / QUOTED["recbole_sasrec_epoch_seconds"]  # type: ignore[operator]
    ratios = {
        "recbole_da_by_recbole_sasrec_over_cl4rec_in_recbole": slower
        * batch["recbole_sasrec"]
        / batch["recbole_cl4rec"],
        "recbole_da_batch_over_cl4rec_in_recbole": quoted / batch["recbole_cl4rec"],
        "recbole_sasrec_batch_over_cl4rec_in_recbole": batch["recbole_sasrec"] / batch["recbole_cl4rec"],
        "cl4rec_batch_in_recbole_over_our_loop": batch["recbole_cl4rec"] / batch["our_cl4rec"],
        "cl4rec_epoch_in_recbole_over_our_loop_in_one_pass": epoch["recbole_cl4rec"] / epoch["our_cl4rec_one_pass"],
    }
    for name, value in ratios.items():
        print(f"{name:<52}{value:8.2f}")
    from seqcl.machine import processor

    about = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "clock": clock,
    }
    jobs = {
        job: {key: it[key] for key in ("batch_seconds", "epoch_seconds", "rows", "batches")}
        for job, it in found.items()
    }
    print(
        json.dumps({"benchmark": "recbole_speed", "smoke": smoke, **about, "quoted": QUOTED, **jobs, "ratios": ratios})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="Beauty", help="text file or name (default: Beauty)")
    parser.add_argument("--steps", type=int, default=40, help="batches of each system (default: 40)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is read (default: wall)")
    parser.add_argument("--smoke", action="store_true", help="a small Markov set, few steps, no claims")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        import torch

        torch.set_num_threads(chosen.threads)
        sys.argv = sys.argv[:1]  # RecBole reads the words of the command line
        print("@@" + json.dumps(JOBS[chosen.job](chosen.data, chosen.steps, CLOCKS[chosen.clock])), flush=True)
    elif chosen.smoke:
        from seqcl.data import markov, write

        with tempfile.TemporaryDirectory() as folder:
            path = write(markov(users=1500, items=50, length=12, seed=0).interactions, Path(folder) / "markov.txt")
            compare(str(path), 6, chosen.threads, chosen.clock, smoke=True)
    else:
        from seqcl.data import resolve

        compare(str(Path(resolve(chosen.data)).resolve()), chosen.steps, chosen.threads, chosen.clock, smoke=False)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
