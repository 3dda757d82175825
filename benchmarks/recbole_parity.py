"""Test metrics of SASRec trained by RecBole, and by us with RecBole's settings, over several seeds under one protocol.

    python benchmarks/recbole_parity.py --data LastFM --seeds 3 [--smoke]

Length 20, dim 32, 2 layers, 2 heads, dropout 0.5, full softmax of inner products, batches of 256 rows with one target
each, Adam at 0.003, patience 5; the epoch with the best NDCG@10 on validation is tested. Three arms: RecBole's model in
RecBole's trainer; our SASRec with positions from the start and its weights of attention dropped, in our loop; RecBole's
model as an encoder in our loop.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
METRICS = ("recall@10", "ndcg@10", "mrr@10")
SIZE = {"max_len": 20, "dim": 32, "batch_size": 256, "lr": 0.003, "patience": 5}
ENCODERS = {
    "ours": {
        "dim": 32,
        "layers": 2,
        "heads": 2,
        "dropout": 0.5,
        "attention_dropout": 0.5,
        "norm": "post",
        "positions": "start",
        "hidden": 4,
    },
    "recbole_encoder": {"name": "recbole:SASRec", "hidden_size": 32, "inner_size": 128},
}


def recbole(seed: int, epochs: int, folder: str) -> dict[str, Any]:
    """Train RecBole's SASRec in RecBole's trainer."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import get_model, init_seed

    import seqcl.integrations.recbole  # noqa: F401  lets its checkpoint of the best epoch load

    settings = {
        "data_path": folder,
        "checkpoint_dir": folder,
        "load_col": {"inter": ["user_id", "item_id", "order"]},
        "TIME_FIELD": "order",
        "MAX_ITEM_LIST_LENGTH": SIZE["max_len"],
        "train_neg_sample_args": None,
        "hidden_size": SIZE["dim"],
        "inner_size": 4 * SIZE["dim"],
        "train_batch_size": SIZE["batch_size"],
        "learning_rate": SIZE["lr"],
        "epochs": epochs,
        "stopping_step": SIZE["patience"] - 1,
        "valid_metric": "NDCG@10",
        "metrics": ["Recall", "NDCG", "MRR"],
        "metric_decimal_place": 8,
        "seed": seed,
        "show_progress": False,
        "state": "critical",
    }
    config = Config(model="SASRec", dataset="log", config_dict=settings)
    init_seed(seed, True)
    train, valid, test = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, get_model("SASRec")(config, train.dataset))
    trainer.fit(train, valid, verbose=False)
    return {**trainer.evaluate(test), "epochs": len(trainer.train_loss_dict)}


def ours(path: Path, seed: int, epochs: int, folder: str, encoder: dict[str, Any]) -> dict[str, Any]:
    """Train SASRec in our loop with RecBole's settings."""
    import seqcl

    run = seqcl.train(
        path,
        model="SASRec",
        seed=seed,
        runs=folder,
        progress=False,
        data={"windows": "prefix", "max_len": SIZE["max_len"]},
        encoder=encoder,
        next_item={"loss": "softmax", "similarity": "dot", "temperature": 1.0},
        train={
            "epochs": epochs,
            "batch_size": SIZE["batch_size"],
            "lr": SIZE["lr"],
            "patience": SIZE["patience"],
            "weight_decay": 0.0,
            "warmup": 0,
            "ema": 0.0,
        },
        eval={"exclude_seen": False},
    )
    return {**run.metrics["test"], "epochs": run.metrics["training"]["epochs"]}


def compare(path: Path, seeds: int, epochs: int, arms: list[str], *, smoke: bool) -> None:
    """Train every arm with every seed; print the distance of the means in standard deviations, one JSON line last."""
    from seqcl.data import load, write
    from seqcl.machine import processor

    rows: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole writes where it runs
        write(load(path), Path(folder) / "log" / "log.inter")
        for seed in range(seeds):
            for arm in rows:
                began = time.monotonic()
                encoder = ENCODERS.get(arm)
                found = recbole(seed, epochs, folder) if encoder is None else ours(path, seed, epochs, folder, encoder)
                kept = {name: float(found[name]) for name in METRICS}
                rows[arm].append({**kept, "epochs": found["epochs"], "seconds": round(time.monotonic() - began)})
                print(f"{arm} seed {seed}: {json.dumps(rows[arm][-1])}", flush=True)
        os.chdir(ROOT)
    table: dict[str, Any] = {}
    for name in METRICS:
        means = {arm: statistics.mean(row[name] for row in found) for arm, found in rows.items()}
        spread = {
            arm: statistics.stdev([row[name] for row in found] if seeds > 1 else [0.0, 0.0])
            for arm, found in rows.items()
        }
        gaps: dict[str, float | None] = {}
        for arm in [arm for arm in arms if "recbole" in arms and arm != "recbole"]:
            pooled = math.sqrt((spread["recbole"] ** 2 + spread[arm] ** 2) / 2)
            gaps[arm] = (means[arm] - means["recbole"]) / pooled if pooled else None
        table[name] = {"mean": means, "deviation": spread, "gap_in_deviations": gaps}
        print(name, "  ".join(f"{arm} {means[arm]:.4f} ± {spread[arm]:.4f}" for arm in rows), "  gaps", gaps)
    about = {"date": date.today().isoformat(), "processor": processor(), "data": path.name, "seeds": seeds, **SIZE}
    print(json.dumps({"benchmark": "recbole_parity", "smoke": smoke, **about, "rows": rows, "metrics": table}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="LastFM", help="file or name (default: LastFM)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds, from 0 on (default: 3)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs at most (default: 10)")
    arms = ["recbole", *ENCODERS]
    parser.add_argument("--arms", nargs="*", choices=arms, default=arms, help="what is trained (default: all three)")
    parser.add_argument("--smoke", action="store_true", help="a small Markov set, one epoch, no claims")
    chosen = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads the words of the command line
    warnings.simplefilter("ignore")
    from seqcl.data import markov, resolve, write

    if not chosen.smoke:
        compare(Path(resolve(chosen.data)).resolve(), chosen.seeds, chosen.epochs, chosen.arms, smoke=False)  # type: ignore[arg-type]
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write(markov(users=200, items=50, length=12, seed=0).interactions, Path(folder) / "markov.txt")
        compare(path, 1, 1, chosen.arms, smoke=True)


if __name__ == "__main__":
    main()
