"""Training anew and going on from an earlier run, beside each other on one log; the last line is one JSON object.

    python benchmarks/warm_start.py [--dataset ml-100k] [--model SASRec] [--share 0.8] [--epochs 40] [--near 0.99] [--smoke]

The earlier run learns from the oldest `share` of the log, in time; of a log without times, from the first `share` of each
user's items. Then the model is trained twice on the whole log with the same options and seed: anew, and with `--warm_start`.
Counted are the epochs and the seconds of training until validation NDCG@10 first reaches `near` of the best figure of the
run that begins anew. `--smoke` takes a chain of 600 users and 60 items, and a width of 16.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
METRIC = "ndcg@10"


def oldest(log: Any, share: float) -> Any:
    """The first part of a log, with the users and items that it has."""
    if log.times is not None and len(np.unique(log.times)) > 1:
        kept = log.times <= np.quantile(log.times, share)
    else:
        order = np.argsort(log.users, kind="stable")
        sizes = np.bincount(log.users)
        place = np.empty(len(log.users), np.int64)
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        kept = place < share * sizes[log.users]
    users, own = np.unique(log.users[kept], return_inverse=True)
    items, had = np.unique(log.items[kept], return_inverse=True)
    return replace(
        log,
        users=own.astype(np.int32),
        items=had.astype(np.int32),
        times=None if log.times is None else log.times[kept],
        user_ids=log.user_ids[users],
        item_ids=log.item_ids[items],
    )


def reached(run: Any, wanted: float) -> dict[str, Any]:
    """The epochs and the seconds of a run until its validation reached a figure; None where it never did."""
    import pandas as pd

    history = pd.read_csv(run.folder / "history.csv")
    there = history[history[f"valid_{METRIC}"] >= wanted]
    first = None if there.empty else there.iloc[0]
    return {
        "epochs": None if first is None else int(first["epoch"]),
        "seconds": None if first is None else round(float(first["seconds"]), 1),
        "first_epoch": round(float(history[f"valid_{METRIC}"].iloc[0]), 4),
        "best": round(float(history[f"valid_{METRIC}"].max()), 4),
        "test": round(run.metrics["test"][METRIC], 4),
        "all_epochs": len(history),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--share", type=float, default=0.8, help="of the log, that the earlier run learns from")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--near", type=float, default=0.99)
    parser.add_argument("--new_items", default="neighbours")
    parser.add_argument("--smoke", action="store_true")
    chosen = parser.parse_args()

    import torch

    import seqcl
    from seqcl import data

    if chosen.smoke:
        log = data.markov(users=600, items=60, length=14, branching=3, seed=1).interactions
        sizes: dict[str, Any] = {"encoder": {"dim": 16}, "eval": {"exclude_seen": False}}
    else:
        log, sizes = data.load(chosen.dataset), {}
        sizes = {"eval": {"exclude_seen": False}} if chosen.dataset == "markov" else {}
    before = oldest(log, chosen.share)
    with tempfile.TemporaryDirectory() as folder:
        values = {"model": chosen.model, "runs": folder, "track": "none", "progress": False, **sizes}
        values["train"] = {"epochs": chosen.epochs, "patience": 0}
        earlier = seqcl.train(before, **values)
        anew = seqcl.train(log, **values)
        wanted = chosen.near * max(reached(anew, 0)["best"], 0)
        warm = seqcl.train(log, warm_start=str(earlier.folder), new_items=chosen.new_items, **values)
        found = {
            "dataset": log.name,
            "model": chosen.model,
            "new_items": len(log.item_ids) - len(before.item_ids),
            "items": len(log.item_ids),
            "new_users": len(log.user_ids) - len(before.user_ids),
            "users": len(log.user_ids),
            "new_interactions": len(log.items) - len(before.items),
            "wanted": round(wanted, 4),
            "anew": reached(anew, wanted),
            "warm": reached(warm, wanted),
            "threads": torch.get_num_threads(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
