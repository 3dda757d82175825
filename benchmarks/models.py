"""The cost of each contrastive recipe and each encoder: its epoch over that of our SASRec, and its peak memory.

    python benchmarks/models.py [--data Beauty] [--epochs 2] [--only DuoRec,ICLRec] [--smoke]

Every recipe runs alone in a process of its own, as `benchmarks/train_speed.py` runs SASRec: dim 64, 2 layers, 2 heads,
full softmax, float32, two threads, batches of 256. Clusters and similarities made in an epoch count. S3Rec is measured in
its pre-training (afterwards it is SASRec) and needs the attributes beside the data. TiCoSeRec gets random times, as Beauty
has none. CauseRec makes one counterfactual of each kind. SASRec is measured before and after the others, because a shared
machine changes its speed. Bound: views encoded for a row, plus 1.5; twice that for MCLRec and InfoMinRec; none for encoders.
The index of same targets, k-means of 256 clusters and both item correlations are made once, or once an epoch. They are
timed on the data (bound: 3 s each) and on ten times as many users made from it (40 s). The last line is one JSON object;
the exit code is 1 if a recipe failed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.train_speed import alone  # noqa: E402

MORE_VIEWS = {
    "CauseRec": 3,
    "CASR": 6,
    "S3Rec": 3,
    "CPCRec": 1,
    "MMInfoRec": 1,
    "PCLRec": 3,
    "InstanceRec": 3,
    "LooCRec": 5,
    "CLAERec": 3,
}  # views of a row that a recipe encodes, where it is not two
APART = {"SASRec", "TwoTower"}  # the measure of all others; needs a table of items
SECONDS = {"1x": 3, "10x": 40}  # bounds of each thing made from all training windows
TWICE = {"MCLRec", "InfoMinRec"}  # train the augmenters in a step of their own


def recipes() -> dict[str, int | None]:
    """Every trained recipe by name, with the views of a row that it encodes; None where it contrasts nothing."""
    from seqcl.models import MODELS, Recommender
    from seqcl.parts import declared

    trained = {kind.__name__: kind for kind in MODELS.ours.values() if issubclass(kind, Recommender)}
    found: dict[str, int | None] = {}
    for name, kind in trained.items():
        if name not in APART:
            found[name] = MORE_VIEWS.get(name, 2 if "views" in declared(kind) else None)
    return found


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def with_times(path: str, folder: Path) -> str:
    """Write the log with a time at every interaction, on average a week after the one before; return the path."""
    import numpy as np

    from seqcl.data import read, write

    log = read(path)
    times = np.random.default_rng(0).exponential(7 * 86400, len(log)).cumsum()
    write(replace(log, times=times), folder / "timed.csv")
    return str(folder / "timed.csv")


def parts(path: str, times: int, clusters: int) -> dict[str, float]:
    """Measure the seconds of each thing made from all training windows, with `times` as many users, made as copies."""
    import numpy as np
    import torch

    from seqcl.augment import SameTarget, by_embedding, item_cf_iuf
    from seqcl.data import leave_one_out, load_sequences
    from seqcl.objectives.prototypes import k_means

    torch.set_num_threads(2)
    train = leave_one_out(load_sequences(path), windows="last").train
    shift = np.arange(times) * len(train.items)  # each copy has users and items of its own
    items = np.concatenate([train.items + copy * train.num_items for copy in range(times)])

    def moved(places: np.ndarray) -> np.ndarray:
        return np.concatenate([places + step for step in shift])

    large = replace(
        train,
        items=items,
        offsets=np.append(moved(train.offsets[:-1]), len(items)),
        ends=moved(train.ends),
        users=np.concatenate([train.users + copy * train.num_users for copy in range(times)]),
        start=moved(train.start),
        stop=moved(train.stop),
        first=moved(train.first),
        num_items=train.num_items * times,
        times=None,
    )
    states = torch.nn.functional.normalize(torch.randn(len(large), 64), dim=1)
    table = torch.randn(large.num_items + 2, 64)
    return {
        "same_target_index": timed(lambda: SameTarget().prepare(large)),
        "k_means": timed(lambda: k_means(states, clusters, seed=0)),
        "cooccurrence": timed(lambda: item_cf_iuf(*large.known(), large.num_items)),
        "by_embedding": timed(lambda: by_embedding(table)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="Beauty")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", help="recipes and encoders, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="a small Markov set, three recipes, no claims")
    chosen = parser.parse_args()
    known = recipes()
    for name in chosen.only.split(",") if chosen.only else ():
        if name not in known:
            parser.error(f"--only: {name} is not one of {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        from seqcl.data import markov, resolve, write

        if chosen.smoke:
            path = str(Path(folder) / "markov.txt")
            write(markov(users=300, items=50, length=12, seed=0).interactions, path)
            names, epochs = ["ICSRec", "TiCoSeRec", "NARM"], 1
        else:
            path, epochs = str(Path(resolve(chosen.data)).resolve()), chosen.epochs  # type: ignore[arg-type]
            names = chosen.only.split(",") if chosen.only else list(known)
        sasrec = [alone("ours", path, "SASRec", "sliding", 50, epochs)]
        runs = {}
        for name in names:
            log = with_times(path, Path(folder)) if name == "TiCoSeRec" else path
            runs[name] = alone("ours", log, name, "sliding", 50, epochs, "relative", name == "S3Rec")
        sasrec.append(alone("ours", path, "SASRec", "sliding", 50, epochs))
        base = statistics.mean(run["epoch_seconds"] for run in sasrec)
        once = {
            f"{times}x": parts(path, times, 16 if chosen.smoke else 256)
            for times in ((1,) if chosen.smoke else (1, 10))
        }
    result: dict[str, Any] = {}
    for name, run in runs.items():
        if "failed" in run:
            print(f"{name:<12} failed: {run['failed']}")
            continue
        ratio = round(run["epoch_seconds"] / base, 2)
        result[name] = {"over_sasrec": ratio, "peak_mb": run["peak_mb"]}
        verdict = ""
        views = known[name]
        if views is not None and not chosen.smoke:
            bound = (views + 1.5) * (2 if name in TWICE else 1)
            verdict = f"   must <= {bound}: {'met' if ratio <= bound else 'missed'}"
        print(f"{name:<12}{ratio:>6.2f} x SASRec {run['peak_mb']:>6} MB{verdict}")
    for times, seconds in once.items():
        met = max(seconds.values()) <= SECONDS[times]
        verdict = "" if chosen.smoke else f"   each must <= {SECONDS[times]} s: {'met' if met else 'missed'}"
        print(f"{times:>4}: " + "  ".join(f"{name} {value:.2f} s" for name, value in seconds.items()) + verdict)
    about = {"date": date.today().isoformat(), "cores": os.cpu_count(), "smoke": chosen.smoke, "sasrec_seconds": base}
    print(json.dumps({"benchmark": "models", **about, **result, **once}))
    if len(result) < len(runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
