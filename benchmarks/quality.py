"""Test quality of configurations over seeds, each difference with its interval over users and seeds.

    python benchmarks/quality.py configs/beauty-cl4rec.yaml configs/beauty-sasrec.yaml --seeds 3 [--jobs 2]

Files joined by + are one configuration, the later ones winning. Each configuration is compared with the last one, on all targets
and on those of the head, torso and tail: the fifth of the items most frequent in training, the next two fifths, the rest. Every seed is one `run.py --config FILE --seed S` in a process of its own; a finished run in --runs is not repeated. Models
are chosen on validation, the figures are those of test. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SHOWN = ("recall@10", "ndcg@10")


def name_of(config: str) -> str:
    """The names of a configuration's files."""
    return "+".join(Path(file).stem for file in config.split("+"))


def run(config: str, seed: int, folder: Path, words: list[str], threads: int) -> Path:
    """The run folder of a configuration and seed, made if it is not there."""
    parent = folder / name_of(config) / f"seed{seed}"
    told = [*(word for file in config.split("+") for word in ("--config", file)), "--seed", str(seed), *words]
    done = sorted(parent.glob("*/metrics.json"))
    if done:
        check_same(done[-1].parent, told)
        return done[-1].parent
    command = [sys.executable, str(ROOT / "run.py"), *told, "--runs", str(parent)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {finished.stderr.strip()}")
    return sorted(parent.glob("*/metrics.json"))[-1].parent


def check_same(folder: Path, told: list[str]) -> None:
    """Stop if a finished run was made with other options."""
    from seqcl.config import flatten
    from seqcl.experiment import resolve

    before, now = (
        dict(flatten(resolve(words).as_dict())) for words in (["--config", str(folder / "config.yaml")], told)
    )
    apart = [key for key in now if now[key] != before.get(key) and key not in ("runs", "dataset")]
    if apart:
        raise SystemExit(f"{folder} was made with another {apart[0]} ({before.get(apart[0])}): choose another --runs")


def gains(folder: Path, k: int = 10) -> np.ndarray:
    """NDCG@k of every user, in one order for all runs: (W,)."""
    rank = in_order(folder)["rank"].to_numpy()
    return np.where(rank <= k, 1 / np.log2(rank + 1.0), 0.0)


def in_order(folder: Path) -> pd.DataFrame:
    """The ranks of a run by user and target."""
    return pd.read_parquet(folder / "ranks.parquet").sort_values(["user", "target"], kind="stable")


def slices(folder: Path) -> dict[str, np.ndarray]:
    """Which targets (W,) bool are of the head, the torso and the tail of the items."""
    from seqcl.evaluation.slices import by_popularity
    from seqcl.experiment import Run

    run = Run.load(folder)
    items = np.searchsorted(run.sequences.item_ids, in_order(folder)["target"].to_numpy()) + 1
    return {name: those[items] for name, those in by_popularity(run.split.train.item_counts()).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    chosen, words = parser.parse_known_args()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        tasks = {
            (config, seed): pool.submit(run, config, seed, chosen.runs, words, chosen.threads)
            for seed in range(chosen.seeds)
            for config in chosen.configs
        }
        folders = {key: task.result() for key, task in tasks.items()}
    found: dict[str, Any] = {}
    width = max(len(name_of(config)) for config in chosen.configs)
    for config in chosen.configs:
        runs = [json.loads((folders[config, seed] / "metrics.json").read_text()) for seed in range(chosen.seeds)]
        row: dict[str, Any] = {
            "model": runs[0]["model"],
            "data": runs[0]["data"]["name"],
            "protocol": runs[0]["protocol"],
        }
        for name in SHOWN:
            values = [result["test"][name] for result in runs]
            row[name] = {
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                "by seed": values,
            }
        row["valid ndcg@10"] = float(np.mean([result["valid"]["ndcg@10"] for result in runs]))
        row["minutes"] = float(np.mean([result["seconds"] for result in runs])) / 60
        found[name_of(config)] = row
        shown = "  ".join(f"{name} {row[name]['mean']:.4f} ± {row[name]['sd']:.4f}" for name in SHOWN)
        print(
            f"{name_of(config):<{width}}  {shown}  (valid {row['valid ndcg@10']:.4f}, {row['minutes']:.1f} min a run)"
        )
    last = chosen.configs[-1]
    parts = slices(folders[last, 0])
    for config in chosen.configs[:-1]:
        from seqcl.evaluation import compare

        pairs = [[gains(folders[some, seed]) for seed in range(chosen.seeds)] for some in (config, last)]
        for part, rows in {"all": np.logical_or.reduce([*parts.values()]), **parts}.items():
            test = compare(*([gain[rows] for gain in side] for side in pairs))
            found[f"{name_of(config)} - {name_of(last)}, {part}"] = {
                "difference": test.difference,
                "low": test.low,
                "high": test.high,
                "p": test.p_value,
                "seeds better": test.seeds_better,
                "means": [float(np.mean([gain[rows].mean() for gain in side])) for side in pairs],
            }
            print(
                f"{name_of(config)} - {name_of(last)}, {part} targets: ndcg@10 {test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}], "
                f"p {test.p_value:.3f}, better in {test.seeds_better} of {test.seeds} seeds"
            )
    print(json.dumps({"benchmark": "quality", "date": date.today().isoformat(), "seeds": chosen.seeds, **found}))


if __name__ == "__main__":
    main()
