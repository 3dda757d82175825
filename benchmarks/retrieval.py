"""Large catalogues: speed and memory of training two towers on them, and the cost and recall of indexes of their items.

    python benchmarks/retrieval.py [--items 10000,100000,1000000] [--steps 100] [--smoke]

Each size runs in a process of its own: a log of users who like two kinds of items each, a TwoTower that knows an item's
kind, with sparse table gradients, two threads, batches of 256 rows. Then 1,000 queries ask for their best 20 items
through torch's `matmul + topk`, through faiss's flat index called directly, and through our indexes; recall is against
the exact lists. Then the model is exported, and the bundle recommends for 200 users, one by one. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
K, QUERIES, THREADS = 20, 1000, 2


def catalogue(items: int) -> Any:
    """Make a log over this many items, each of a known kind; a user likes two kinds."""
    import numpy as np
    import pandas as pd

    from seqcl.data import Interactions, pack

    rng = np.random.default_rng(0)
    kinds = min(max(items // 20, 1), 2000)
    users, length = kinds * max(1, min(items // 5, 100_000) // kinds), 10
    kind = np.arange(items) % kinds  # (N,)
    everyone = np.arange(users)
    liked = np.stack((everyone % kinds, rng.integers(0, kinds, users)), 1)  # (U, 2), each kind by somebody
    chosen = np.take_along_axis(liked, rng.integers(0, 2, (users, length)), 1)  # (U, 10) kinds
    sizes = (items - 1 - chosen) // kinds + 1  # (U, 10) items of them
    drawn = chosen + kinds * (sizes * rng.random(chosen.shape) ** 3).astype(
        np.int64
    )  # the first items of a kind most often
    every = np.arange(items)  # each item occurs once more, with a user who likes its kind: else the log could lack it
    owners = np.concatenate((kind + kinds * (every // kinds % (users // kinds)), np.repeat(everyone, length)))
    frame = pd.DataFrame({"user_id": owners, "item_id": np.concatenate((every, drawn.reshape(-1)))})
    known = pd.DataFrame({"kind": [f"k{one}" for one in kind]})
    return pack(Interactions.from_frame(frame, time=None, item_features=known))


class Some:
    """The first batches of an epoch."""

    def __init__(self, batches: Any, steps: int) -> None:
        self.batches, self.steps = batches, min(steps, len(batches))

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        for _, batch in zip(range(self.steps - start), self.batches.epoch(number, start), strict=False):
            yield batch


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work` and its seconds in the faster of two runs."""
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        found = work()
        spent.append(time.perf_counter() - started)
    return found, min(spent)


def size(items: int, steps: int) -> dict[str, Any]:
    """Measure everything at one size."""
    import faiss
    import torch

    from seqcl.config import experiment
    from seqcl.data import Loader, leave_one_out
    from seqcl.experiment import Run, training_batches
    from seqcl.retrieval import KINDS, FaissIndex
    from seqcl.retrieval.bundle import Bundle
    from seqcl.training import Trainer

    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    values = {
        "model": "TwoTower",
        "dataset": "x",
        "towers": {"sparse": True, "reads": "items"},
        "next_item": {"negatives": 1024},
    }
    config = experiment(values)
    started = time.perf_counter()
    sequences = catalogue(items)
    split = leave_one_out(sequences, windows="last")
    model = config.build(split.train)
    ready = time.perf_counter() - started
    trainer = Trainer(batch_size=256, ema=0.0, patience=0)
    batches = Some(training_batches(split, trainer, seed=0, device=torch.device("cpu")), steps)
    trainer = replace(trainer, epochs=max(3, 3 * steps // len(batches)))  # small logs have fewer batches
    history = trainer.fit(model, batches, progress=False).history[1:]
    report: dict[str, Any] = {
        "items": items,
        "ready_seconds": round(ready, 1),
        "training_items_per_second": round(statistics.median(float(row["items_per_second"]) for row in history)),
        "training_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    model.eval()
    with torch.no_grad():
        table = model.vectors().float().contiguous()
        windows = Loader(split.test, batch_size=QUERIES, targets="last")
        queries = model.queries(next(iter(windows))).float()
        truth, seconds = timed(lambda: (queries @ table.T).topk(K).indices + 1)
        report["matmul_topk_queries_per_second"] = round(len(queries) / seconds)
        plain = faiss.IndexFlatIP(table.shape[1])
        plain.add(table.numpy())
        _, seconds = timed(lambda: plain.search(queries.numpy(), K))
        report["faiss_flat_queries_per_second"] = round(len(queries) / seconds)
        for kind in KINDS:
            index = FaissIndex(table, kind=kind)
            (_, found), seconds = timed(lambda index=index: index.search(queries, K))  # type: ignore[misc]
            _, one = timed(lambda index=index: [index.search(query[None], K) for query in queries[:100]])  # type: ignore[misc]
            report[kind] = {
                "build_seconds": round(index.build_seconds, 2),
                "queries_per_second": round(len(queries) / seconds),
                "one_query_ms": round(10 * one, 2),
                "recall": round((truth[:, :, None] == found[:, None, :]).any(2).float().mean().item(), 3),
                "bytes_per_item": round(index.bytes_per_item, 1),
            }
            del index
    run = Run(folder=Path(), experiment=config, sequences=sequences, split=split, model=model, metrics={})  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        exported = run.export(Path(folder) / "bundle", index="hnsw")
        started = time.perf_counter()
        bundle = Bundle(exported)
        loaded = time.perf_counter() - started
        spent = []
        for user in range(200):
            history = sequences.item_ids[sequences.row(user) - 1].tolist()
            started = time.perf_counter()
            bundle.recommend(history, k=10)
            spent.append(1000 * (time.perf_counter() - started))
        report["bundle"] = {
            "start_seconds": round(loaded, 2),
            "recommend_ms_median": round(statistics.median(spent), 2),
            "recommend_ms_slowest_of_200": round(max(spent), 2),
        }
    report["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000,1000000", help="sizes of catalogues, separated by commas")
    parser.add_argument("--steps", type=int, default=100, help="batches of an epoch (default: 100)")
    parser.add_argument("--smoke", action="store_true", help="a small catalogue, no claims")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.size:
        print("@@" + json.dumps(size(chosen.size, chosen.steps)), flush=True)
        return
    sizes = [2000] if chosen.smoke else [int(part) for part in chosen.items.split(",")]
    steps = 4 if chosen.smoke else chosen.steps
    reports = []
    for items in sizes:
        words = [sys.executable, __file__, "--size", str(items), "--steps", str(steps)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        lines = [line for line in done.stdout.splitlines() if line.startswith("@@")]
        if not lines:
            raise SystemExit(f"{items} items failed: {done.stderr.strip()}")
        reports.append(json.loads(lines[-1][2:]))
        print(json.dumps(reports[-1]), flush=True)
    about = {"date": date.today().isoformat(), "cores": os.cpu_count(), "threads": THREADS, "smoke": chosen.smoke}
    print(json.dumps({"benchmark": "retrieval", **about, "sizes": reports}))


if __name__ == "__main__":
    main()
