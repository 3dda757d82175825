"""Large catalogues: speed and memory of training two towers on them, and the cost and recall of indexes of their items.

    python benchmarks/retrieval.py [--items 10000,100000,1000000] [--steps 100] [--smoke]
    python benchmarks/retrieval.py --items 10000000 --export ivfpq --exact no

Each size runs in a process of its own: a packed log, mapped into memory, of users who like two kinds of items each; a
TwoTower that knows an item's kind, with sparse table gradients, two threads, batches of 256 rows, and checkpoints. Then
1,000 queries ask for their best 20 items through torch's `matmul + topk`, through faiss's flat index called directly, and
through our indexes at their default widths; recall is against the exact lists (`--exact no` leaves this out: it holds
all vectors several times). Then the model is exported with each index of `--export`, which chooses its width for
`--recall`, and the bundle, opened in a process of its own, recommends for 200 users, one by one. Each stage has its
seconds and its largest resident memory, files mapped into memory included. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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


class Stages:
    """Seconds and largest memory of one stage of the work after the other; Linux alone can tell the memory of each."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self.began = time.perf_counter()

    def end(self, name: str) -> None:
        """End a stage: VmHWM is the peak since it was set back."""
        self.found[name] = {"seconds": round(time.perf_counter() - self.began, 1)}
        if sys.platform == "linux":
            self.found[name] |= self.memory()
        print(f"{name}: {self.found[name]}", file=sys.stderr, flush=True)
        self.began = time.perf_counter()

    def memory(self) -> dict[str, float]:
        """The largest resident memory of the stage, and what is left of it without mapped files; both in MB."""
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        known = {
            name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
        }
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        return {"peak_mb": known["VmHWM"] // 1024, "left_mb": known["RssAnon"] // 1024}


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
    known = pd.DataFrame({"kind": np.array([f"k{one}" for one in range(kinds)], object)[kind]})
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


def size(items: int, steps: int, folder: Path, exports: list[str], recall: float, exact: bool) -> dict[str, Any]:
    """Measure everything at one size, with files in a folder that is removed afterwards."""
    import torch

    from seqcl.config import experiment
    from seqcl.data import Sequences, leave_one_out
    from seqcl.experiment import Run, training_batches
    from seqcl.training import Trainer

    torch.set_num_threads(THREADS)
    values = {
        "model": "TwoTower",
        "dataset": "x",
        "towers": {"sparse": True, "reads": "items"},
        "next_item": {"negatives": 1024},
    }
    stages = Stages()
    catalogue(items).save(folder / "log")
    stages.end("make_log")
    sequences = Sequences.load(folder / "log")
    split = leave_one_out(sequences, windows="last")
    config = experiment(values)
    model = config.build(split.train)
    stages.end("build_model")
    trainer = Trainer(batch_size=256, ema=0.0, patience=0)
    batches = Some(training_batches(split, trainer, seed=0, device=torch.device("cpu")), steps)
    trainer = replace(trainer, epochs=max(3, 3 * steps // len(batches)))  # small logs have fewer batches
    history = trainer.fit(model, batches, folder=folder / "run", progress=False).history[1:]
    stages.end("train_and_save")
    report: dict[str, Any] = {
        "items": items,
        "training_items_per_second": round(statistics.median(float(row["items_per_second"]) for row in history)),
        "checkpoint_mb": round(sum(file.stat().st_size for file in (folder / "run").rglob("*.safetensors")) / 2**20),
    }
    shutil.rmtree(folder / "run")
    model.eval()
    if exact:
        report |= searched(model, split)
        stages.end("search_with_all_vectors")
    run = Run(folder=Path(), experiment=config, sequences=sequences, split=split, model=model, metrics={})  # type: ignore[arg-type]
    for kind in exports:
        bundle = run.export(folder / f"bundle-{kind}", index=kind, recall=recall)
        stages.end(f"export_{kind}")
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        words = [sys.executable, __file__, "--ask", str(bundle), "--log", str(folder / "log")]
        asked = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True).stdout
        report[f"bundle_{kind}"] = {**manifest["search"], **json.loads(asked)}
        shutil.rmtree(bundle)
    return report | {"stages": stages.found}


def searched(model: Any, split: Any) -> dict[str, Any]:
    """Exact search, and every index at its default width, over vectors in memory."""
    import faiss
    import torch

    from seqcl.data import Loader
    from seqcl.retrieval import KINDS, FaissIndex

    faiss.omp_set_num_threads(THREADS)
    report: dict[str, Any] = {}
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
    return report


def ask(folder: Path, log: Path) -> dict[str, Any]:
    """Open a bundle and recommend for 200 users of a log, one by one."""
    import torch

    from seqcl.data import Sequences
    from seqcl.retrieval.bundle import Bundle

    torch.set_num_threads(THREADS)
    sequences = Sequences.load(log)
    stages = Stages()
    started = time.perf_counter()
    bundle = Bundle(folder)
    loaded = time.perf_counter() - started
    stages.end("open")
    spent = []
    for user in range(200):
        history = sequences.item_ids[sequences.row(user) - 1].tolist()
        started = time.perf_counter()
        bundle.recommend(history, k=10)
        spent.append(1000 * (time.perf_counter() - started))
    stages.end("recommend")
    return {
        "start_seconds": round(loaded, 2),
        "recommend_ms_median": round(statistics.median(spent), 2),
        "recommend_ms_slowest_of_200": round(max(spent), 2),
        "bundle_stages": stages.found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000,1000000", help="sizes of catalogues, separated by commas")
    parser.add_argument("--steps", type=int, default=100, help="batches of an epoch (default: 100)")
    parser.add_argument("--smoke", action="store_true", help="a small catalogue, no claims")
    parser.add_argument("--export", default="hnsw,ivfpq", help="indexes of exported bundles, separated by commas")
    parser.add_argument("--recall", type=float, default=0.95, help="recall that these are to have (default: 0.95)")
    parser.add_argument(
        "--exact", choices=("yes", "no"), default="yes", help="also measure search over all vectors in memory"
    )
    parser.add_argument("--folder", help="a disk with room: 3.5 KB an item (default: the system's folder)")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.ask:
        print(json.dumps(ask(chosen.ask, chosen.log)), flush=True)
        return
    sizes = [2000] if chosen.smoke else [int(part) for part in chosen.items.split(",")]
    steps = 4 if chosen.smoke else chosen.steps
    if chosen.size:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            exports = chosen.export.split(",")
            report = size(chosen.size, steps, Path(folder), exports, chosen.recall, chosen.exact == "yes")
        print("@@" + json.dumps(report), flush=True)
        return
    reports = []
    for items in sizes:
        words = [sys.executable, __file__, *sys.argv[1:], "--size", str(items)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        lines = [line for line in done.stdout.splitlines() if line.startswith("@@")]
        if not lines:
            raise SystemExit(f"{items} items failed")
        reports.append(json.loads(lines[-1][2:]))
        print(json.dumps(reports[-1]), flush=True)
    about = {"date": date.today().isoformat(), "cores": os.cpu_count(), "threads": THREADS, "smoke": chosen.smoke}
    print(json.dumps({"benchmark": "retrieval", **about, "sizes": reports}))


if __name__ == "__main__":
    main()
