"""Measure what a blend's memories cost: seconds of a query of its bundle, and the figure on validation with fewer weights an item.

    python benchmarks/blend.py RUN --sizes 500,200,100

Seconds are those of the processor, one thread. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seqcl
from seqcl.experiment import Run
from seqcl.retrieval.bundle import Bundle


def asked(run: Run, queries: int) -> dict[str, Any]:
    """Ask a bundle for the histories of some users: milliseconds of a query, MB, and the share of the run's own lists."""
    with tempfile.TemporaryDirectory() as folder:
        place = run.export(Path(folder) / "bundle", index="hnsw")
        bundle, size = Bundle(place), sum(file.stat().st_size for file in place.iterdir())
        users = np.random.default_rng(0).permutation(run.sequences.num_users)[: queries + 10]
        rows = [run.sequences.item_ids[run.sequences.row(user) - 1].tolist() for user in users]
        times, same = [], 0
        for row in rows:
            begun = time.process_time()
            found = bundle.recommend(row)
            times.append(1000 * (time.process_time() - begun))
            same += len({item for item, _ in found} & {item for item, _ in run.recommend(items=row)})
        median, late = np.quantile(times[10:], (0.5, 0.95))
    return {"median_ms": median, "p95_ms": late, "megabytes": size / 1e6, "same": same / (10 * len(rows))}


def figures(run: Run, sizes: list[int]) -> dict[int, float]:
    """NDCG@10 on validation where memories keep so many weights of each item."""
    model: Any = run.model
    found = {}
    for size in sorted(sizes, reverse=True):
        for part in model.memories.parts.values():
            part.items, part.weights = part.items[:, :size], part.weights[:, :size]
        found[size] = run.evaluate("valid").metrics["ndcg@10"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the folder of a blend")
    parser.add_argument("--sizes", default="500,200,100", help="weights of each item")
    parser.add_argument("--queries", type=int, default=150)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run = seqcl.load(chosen.run)
    told = asked(run, chosen.queries)
    told["ndcg@10, valid"] = figures(run, [int(size) for size in chosen.sizes.split(",")])
    print(json.dumps(told))


if __name__ == "__main__":
    main()
