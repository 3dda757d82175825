"""The cost of padding for an encoder: forward and backward of SASRec on batches of 256 rows, laid out in three ways.

    python benchmarks/encode_speed.py [--data Beauty] [--rounds 5] [--smoke]

padded: random rows, each as wide as the longest. bucketed: rows of similar length in one batch, each as wide as the
longest. packed: random rows, put into shared blocks by `seqcl.encoders.layout`, as in training. Figures are milliseconds
per 1,000 real positions, the medians of rounds; the three ways take turns. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seqcl.data import Loader, leave_one_out, load_sequences  # noqa: E402
from seqcl.encoders import SASRec, layout  # noqa: E402
from seqcl.types import SeqBatch  # noqa: E402

BATCHES = 8


def apart(lengths: list[int]) -> tuple[int, list[int], list[int], list[int]]:
    """Put every row into a block of its own, as on a GPU."""
    zeros = [0] * len(lengths)
    return max(lengths), list(range(len(lengths))), zeros, zeros


def step(encoder: SASRec, batch: SeqBatch) -> Tensor:
    encoder.zero_grad()
    loss = encoder(batch).sum()
    loss.backward()
    return loss


def timed(encoder: SASRec, batches: list[SeqBatch], work: Callable[[SASRec, SeqBatch], Tensor]) -> float:
    """Measure milliseconds per 1,000 real positions."""
    started = time.perf_counter()
    for batch in batches:
        work(encoder, batch)
    return (time.perf_counter() - started) * 1e6 / sum(int(batch.lengths.sum()) for batch in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="Beauty")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.set_flush_denormal(True)
    windows = leave_one_out(load_sequences("markov" if chosen.smoke else chosen.data), windows="sliding").train
    rounds = 1 if chosen.smoke else chosen.rounds
    found: dict[str, dict[str, float]] = {}
    for positions in ("start", "relative"):
        torch.manual_seed(0)
        encoder = SASRec(num_items=windows.num_items, max_len=windows.max_len, positions=positions)
        seconds: dict[str, list[float]] = {"padded": [], "bucketed": [], "packed": []}
        packing = layout.best_fit
        for number in range(rounds + 1):  # the first one warms up
            for name in seconds:
                loader = Loader(windows, batch_size=256, shuffle_seed=number, bucket=name == "bucketed")
                batches = [
                    batch for batch, _ in zip(loader.epoch(0), range(1 if chosen.smoke else BATCHES), strict=False)
                ]
                layout.best_fit = packing if name == "packed" else apart
                value = timed(encoder, batches, step)
                if number:
                    seconds[name].append(value)
        layout.best_fit = packing
        found[positions] = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
        print(positions, found[positions], flush=True)
    about = {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "threads": chosen.threads,
        "smoke": chosen.smoke,
    }
    print(json.dumps({"benchmark": "encode_speed", **about, **found}))


if __name__ == "__main__":
    main()
