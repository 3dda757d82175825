"""Test quality of configurations over seeds, each difference to the last one with its 95 % interval over users and seeds.

    python benchmarks/quality.py configs/beauty-cl4rec.yaml configs/beauty-sasrec.yaml --seeds 3 [--jobs 2] [--measured]

Files joined by + are one configuration, the later ones winning. Differences are shown for all targets and for those of the head,
torso and tail: the fifth of the items most frequent in training, the next two fifths, the rest. Every seed is one
`run.py --config FILE --seed S` in a process of its own; a finished run in --runs is not repeated. With --measured neither is one
that lies in benchmarks/measured/, where those made now are added: NAME-SEED.parquet holds the rows and ranks of the test targets
found among the first 20, and as metadata the configuration and the metrics of the run. Models are chosen on validation, the
figures are those of test. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MEASURED = ROOT / "benchmarks" / "measured"
SHOWN = ("recall@10", "ndcg@10")
DEEPEST = 20
KEPT = ("model", "protocol", "data", "test", "valid", "training", "seed", "versions", "machine", "seconds")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is compared of a run."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    found: pd.DataFrame  # row of the test targets whose rank is at most DEEPEST, and the rank

    @classmethod
    def of(cls, folder: Path) -> Figures:
        """Those of a run folder."""
        metrics = json.loads((folder / "metrics.json").read_text())
        ranks = pd.read_parquet(folder / "ranks.parquet")["rank"].to_numpy()
        rows = np.flatnonzero(ranks <= DEEPEST)
        return cls(
            config=yaml.safe_load((folder / "config.yaml").read_text()),
            metrics={key: metrics[key] for key in KEPT},
            found=pd.DataFrame({"row": rows.astype(np.int32), "rank": ranks[rows].astype(np.int32)}),
        )

    @classmethod
    def read(cls, file: Path) -> Figures:
        """Those that `write` wrote."""
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"run"])
        return cls(config=about["config"], metrics=about["metrics"], found=table.to_pandas())

    def write(self, file: Path) -> None:
        """Keep them, without the machine's own paths."""
        config = {key: value for key, value in self.config.items() if key != "runs"} | {
            "dataset": self.metrics["data"]["name"]
        }
        table = pa.Table.from_pandas(self.found, preserve_index=False)
        about = json.dumps({"config": config, "metrics": self.metrics})
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"run": about}), file, compression="zstd")

    def gains(self, k: int = 10) -> np.ndarray:
        """NDCG@k of every test target, in the order of the split: (W,)."""
        gains = np.zeros(self.metrics["protocol"]["num_targets"])
        near = self.found[self.found["rank"] <= k]
        gains[near["row"]] = 1 / np.log2(near["rank"] + 1.0)
        return gains


def name_of(config: str) -> str:
    """The names of a configuration's files."""
    return "+".join(Path(file).stem for file in config.split("+"))


def figures(config: str, seed: int, chosen: argparse.Namespace, words: list[str]) -> Figures:
    """Those of a configuration and seed, whose run is made if it is nowhere."""
    told = [*(word for file in config.split("+") for word in ("--config", file)), "--seed", str(seed), *words]
    kept = MEASURED / f"{name_of(config)}-{seed}.parquet"
    if chosen.measured and kept.exists():
        found = Figures.read(kept)
        check_same(found.config, told, kept)
        return found
    parent = chosen.runs / name_of(config) / f"seed{seed}"
    if not any(parent.glob("*/metrics.json")):
        command = [sys.executable, str(ROOT / "run.py"), *told, "--runs", str(parent)]
        environment = os.environ | {"OMP_NUM_THREADS": str(chosen.threads)}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True)
        if finished.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {finished.stderr.strip()}")
    folder = max(parent.glob("*/metrics.json")).parent
    found = Figures.of(folder)
    check_same(found.config, told, folder)
    if chosen.measured:
        found.write(kept)
    return found


def check_same(before: dict[str, Any], told: list[str], where: Path) -> None:
    """Stop if finished figures were made with other options."""
    from seqcl.config import flatten
    from seqcl.experiment import resolve

    # Through JSON, which knows no tuples, as the files of both are.
    old, now = (json.loads(json.dumps(dict(flatten(values)))) for values in (before, resolve(told).as_dict()))
    apart = [key for key in now if now[key] != old.get(key) and key not in ("runs", "dataset")]
    if apart:
        raise SystemExit(
            f"{where} was made with another {apart[0]} ({old.get(apart[0])}, now {now[apart[0]]}): "
            "remove it, choose another --runs, or leave --measured out"
        )


def slices(config: str, words: list[str]) -> dict[str, np.ndarray]:
    """Which test targets (W,) bool are of the head, the torso and the tail of the items."""
    from seqcl.evaluation.slices import by_popularity
    from seqcl.experiment import Preparation, resolve

    resolved = resolve([*(word for file in config.split("+") for word in ("--config", file)), *words])
    preparation = Preparation(**resolved.data.as_dict())
    sequences = preparation.sequences(resolved.dataset)
    split = preparation.split_windows(sequences, cold_items=resolved.eval.cold_items)
    targets = split.test.items[split.test.stop]  # (W,)
    return {name: those[targets] for name, those in by_popularity(split.train.item_counts()).items()}


def row_of(runs: list[Figures]) -> dict[str, Any]:
    """Means and deviations over the seeds of one configuration."""
    row: dict[str, Any] = {key: runs[0].metrics[key] for key in ("model", "protocol")}
    row["data"] = runs[0].metrics["data"]["name"]
    for name in SHOWN:
        values = [run.metrics["test"][name] for run in runs]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row[name] = {"mean": float(np.mean(values)), "sd": deviation, "by seed": values}
    row["valid ndcg@10"] = float(np.mean([run.metrics["valid"]["ndcg@10"] for run in runs]))
    row["minutes"] = float(np.mean([run.metrics["seconds"] for run in runs])) / 60
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--measured", action="store_true", help="take what lies in benchmarks/measured, and add to it")
    chosen, words = parser.parse_known_args()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        tasks = {
            (config, seed): pool.submit(figures, config, seed, chosen, words)
            for seed in range(chosen.seeds)
            for config in chosen.configs
        }
        runs = {key: task.result() for key, task in tasks.items()}
    sides = {config: [runs[config, seed] for seed in range(chosen.seeds)] for config in chosen.configs}
    results: dict[str, Any] = {name_of(config): row_of(side) for config, side in sides.items()}
    width = max(map(len, results))
    for name, row in results.items():
        shown = "  ".join(f"{metric} {row[metric]['mean']:.4f} ± {row[metric]['sd']:.4f}" for metric in SHOWN)
        print(f"{name:<{width}}  {shown}  (valid {row['valid ndcg@10']:.4f}, {row['minutes']:.1f} min a run)")
    last = chosen.configs[-1]
    parts = slices(last, words) if len(chosen.configs) > 1 else {}
    for config in chosen.configs[:-1]:
        from seqcl.evaluation import compare

        pairs = [[run.gains() for run in sides[some]] for some in (config, last)]
        for part, rows in {"all": np.logical_or.reduce([*parts.values()]), **parts}.items():
            test = compare(*([gain[rows] for gain in side] for side in pairs))
            results[f"{name_of(config)} - {name_of(last)}, {part}"] = {
                "difference": test.difference,
                "low": test.low,
                "high": test.high,
                "p": test.p_value,
                "seeds better": test.seeds_better,
                "means": [float(np.mean([gain[rows].mean() for gain in side])) for side in pairs],
            }
            print(
                f"{name_of(config)} - {name_of(last)}, {part} targets: ndcg@10 {test.difference:+.4f} "
                f"[{test.low:+.4f}, {test.high:+.4f}], p {test.p_value:.3f}, better in {test.seeds_better} of {test.seeds} seeds"
            )
    print(json.dumps({"benchmark": "quality", "date": date.today().isoformat(), "seeds": chosen.seeds, **results}))


if __name__ == "__main__":
    main()
