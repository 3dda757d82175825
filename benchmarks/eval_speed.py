"""Time to rank every user, beside a plain chunked product + topk and beside RecBole; the last line is JSON.

    python benchmarks/eval_speed.py                       # random histories of the size of Beauty
    python benchmarks/eval_speed.py --data Beauty.txt     # real histories (S3-Rec text format)

The contestants take turns within one process: a busy machine slows all of them. Figures are medians over the rounds.
On a busy machine `--threads 1 --clock cpu` counts processor time and leaves out the wait for it. Encoding is left out:
all start from the same query and item vectors. The plain product excludes nothing and computes no metric; ours excludes
the histories and gives every rank and all metrics, coverage and popularity included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqcl.evaluation import Evaluator, Result
from seqcl.retrieval import ExactIndex, FaissIndex
from seqcl.types import SeqBatch, Windows

KS = (5, 10, 20)


def read_rows(path: Path) -> list[list[int]]:
    """Read the histories that hold an item before the target; in the order of their ids, items become 1..N."""
    rows = [[int(item) for item in line.split()[1:]] for line in path.read_text().splitlines()]
    rows = [row for row in rows if len(row) > 1]
    numbers = {item: number for number, item in enumerate(sorted({item for row in rows for item in row}), start=1)}
    return [[numbers[item] for item in row] for row in rows]


def random_rows(users: int, items: int, generator: np.random.Generator) -> list[list[int]]:
    """Draw histories of 5 items and a geometric rest, mean 9, popular items most often; every item occurs."""
    popularity = 1.0 / np.arange(1, items + 1)
    rows = [
        generator.choice(items, size=5 + generator.geometric(0.25), p=popularity / popularity.sum()) + 1
        for _ in range(users)
    ]
    rows[0] = np.arange(1, items + 1)[-200:]
    return [row.tolist() for row in rows]


def last_item_windows(rows: list[list[int]]) -> Windows:
    """Make evaluation windows in which the newest item of every row is the target."""
    sizes = np.array([len(row) for row in rows])
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    stop = offsets[1:] - 1
    items = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
    return Windows(
        items=items,
        offsets=offsets,
        ends=stop,
        users=np.arange(len(rows)),
        start=np.maximum(offsets[:-1], stop - 50),
        stop=stop,
        first=stop - 1,
        num_items=int(items.max()),
        max_len=50,
    )


@dataclass
class Vectors:
    """A model that has already encoded all users."""

    states: Tensor  # (W, D)
    table: Tensor  # (N, D)

    def queries(self, batch: SeqBatch) -> Tensor:
        return self.states[batch.users]

    def vectors(self) -> Tensor:
        return self.table

    def scores(self, batch: SeqBatch) -> Tensor:
        return self.queries(batch) @ self.table.T


def batches(windows: Windows, size: int) -> Iterator[SeqBatch]:
    """Yield the numbers of the rows and their targets alone: encoding is not measured."""
    targets = torch.from_numpy(windows.items[windows.stop].astype(np.int64))
    for start in range(0, len(windows), size):
        users = torch.arange(start, min(start + size, len(windows)))
        yield SeqBatch(items=users[:, None], lengths=torch.ones_like(users), targets=targets[users], users=users)


def random_vectors(windows: Windows, dim: int) -> Vectors:
    return Vectors(torch.randn(len(windows), dim), torch.randn(windows.num_items, dim))


def trained_like_vectors(windows: Windows, dim: int) -> Vectors:
    """Make vectors with few strong directions, longer ones for popular items, and queries near items of the history."""
    scale = torch.arange(1, dim + 1).float().rsqrt()  # (D,)
    table = torch.randn(windows.num_items, dim) * scale
    counts = torch.from_numpy(windows.item_counts()[1:-1]).float()
    table = table + 0.3 * counts.log1p()[:, None] * torch.nn.functional.normalize(torch.randn(dim), dim=0)
    newest = torch.from_numpy(windows.items[windows.stop - 1].astype(np.int64) - 1)
    return Vectors(table[newest] + 0.3 * torch.randn(len(windows), dim) * scale, table)


def plain(vectors: Vectors, chunk: int) -> Tensor:
    """Run the yardstick: product and topk in chunks of users."""
    found = [(rows @ vectors.table.T).topk(KS[-1], dim=1).indices for rows in vectors.states.split(chunk)]
    return torch.cat(found)


def ours(vectors: Vectors, windows: Windows, evaluator: Evaluator, counts: np.ndarray) -> Result:
    return evaluator(windows, batches(windows, evaluator.batch_size), vectors, counts)


def recbole_evaluation(vectors: Vectors, windows: Windows, chunk: int = 4096) -> dict[str, float]:
    """Call RecBole's collector and evaluator as its trainer does for a sequential model; seen items are kept."""
    from recbole.config import Config
    from recbole.evaluator import Collector
    from recbole.evaluator import Evaluator as RecBoleEvaluator

    metrics = ["Recall", "Hit", "NDCG", "MRR", "MAP", "Precision", "ItemCoverage", "AveragePopularity"]
    options = {"topk": list(KS), "metrics": metrics, "metric_decimal_place": 9, "train_neg_sample_args": None}
    config = Config("SASRec", "ml-100k", config_dict=options)
    collector, evaluator = Collector(config), RecBoleEvaluator(config)
    table = torch.cat([torch.zeros(1, vectors.table.shape[1]), vectors.table])
    targets = torch.from_numpy(windows.items[windows.stop].astype(np.int64))
    for start in range(0, len(windows), chunk):
        scores = vectors.states[start : start + chunk] @ table.T
        scores[:, 0] = -torch.inf
        collector.eval_batch_collect(scores, None, torch.arange(len(scores)), targets[start : start + chunk])
    found = collector.get_data_struct()
    found.set("data.num_items", windows.num_items)
    found.set("data.count_items", dict(enumerate(windows.item_counts().tolist())))
    return dict(evaluator.evaluate(found))


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    work()
    return clock() - started


def duel(vectors: Vectors, windows: Windows, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Measure the median seconds of each contestant, in turns, and the median of the ratios within a round."""
    evaluator, counts = Evaluator(ks=KS), windows.item_counts()
    contestants: dict[str, Callable[[], object]] = {
        **{f"plain_{chunk}": lambda chunk=chunk: plain(vectors, chunk) for chunk in (64, 256, 1024)},
        "ours": lambda: ours(vectors, windows, evaluator, counts),
        "ours_ranks_only": lambda: evaluator(
            windows, batches(windows, evaluator.batch_size), vectors, counts, lists=False
        ),
        "exact_index": lambda: ExactIndex(vectors.table).search(vectors.states, KS[-1]),
    }
    for work in contestants.values():
        work()
    spent = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            spent[name].append(seconds(work, clock))
    best_plain = [min(turn) for turn in zip(*(spent[f"plain_{chunk}"] for chunk in (64, 256, 1024)), strict=True)]
    report = {name: statistics.median(values) for name, values in spent.items()}
    ratios = [mine / base for mine, base in zip(spent["ours"], best_plain, strict=True)]
    return report | {"ours_over_best_plain": statistics.median(ratios), "worst_round": max(ratios)}


def memory_growth(vectors: Vectors, windows: Windows) -> int:
    """Measure the bytes by which our evaluation raises the peak memory of the process; nothing large must run before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(vectors, windows, Evaluator(ks=KS), windows.item_counts())
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def indexes(vectors: Vectors) -> dict[str, dict[str, float]]:
    """Measure build and query seconds of the faiss indexes, and the part of the exact top 20 that they find."""
    truth = ExactIndex(vectors.table).search(vectors.states, KS[-1])[1]
    report = {}
    for kind in ("flat", "ivf", "hnsw"):
        index = FaissIndex(vectors.table, kind=kind)
        index.search(vectors.states[:8], KS[-1])
        started = time.perf_counter()
        items = index.search(vectors.states, KS[-1])[1]
        query = time.perf_counter() - started
        overlap = (truth[:, :, None] == items[:, None, :]).any(2).float().mean().item()
        report[kind] = {"build_s": round(index.build_seconds, 3), "query_s": round(query, 3), "overlap@20": overlap}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="S3-Rec text file; random histories of Beauty's size if not given")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of this process, in the duel")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    clock = time.perf_counter if chosen.clock == "wall" else time.process_time
    torch.manual_seed(0)
    rows = read_rows(chosen.data) if chosen.data else random_rows(22_363, 12_101, np.random.default_rng(0))
    windows = last_item_windows(rows)
    report: dict[str, object] = {
        "benchmark": "eval_speed",
        "data": chosen.data.name if chosen.data else "random",
        "users": len(windows),
        "items": windows.num_items,
        "dim": chosen.dim,
        "threads": chosen.threads,
        "clock": chosen.clock,
        "rounds": chosen.rounds,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    for name, make in (("random", random_vectors), ("trained_like", trained_like_vectors)):
        vectors = make(windows, chosen.dim)
        report.setdefault("ours_memory_growth_bytes", memory_growth(vectors, windows))
        found = duel(vectors, windows, chosen.rounds, clock)
        report[name] = {key: round(value, 4) for key, value in found.items()}
        print(name, report[name], flush=True)
    report["faiss"] = indexes(vectors)
    print("faiss", report["faiss"], flush=True)
    if importlib.util.find_spec("recbole"):
        report["recbole_s"] = round(seconds(lambda: recbole_evaluation(vectors, windows), clock), 3)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
