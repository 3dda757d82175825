"""Test quality of configurations over seeds, and the difference of each from the last one.

Each difference has its 95 % interval over users and seeds; with one seed, over users alone.

    python benchmarks/quality.py configs/beauty-cl4rec.yaml configs/beauty-sasrec.yaml --seeds 3 [--jobs 2] [--measured]

Files joined by + are one configuration; later files win. Differences are shown for all targets and for those of the
head, torso and tail: the fifth of the items most frequent in training, the next two fifths, the rest. Every seed is one
`run.py --config FILE --seed S` in a process of its own; further options go to all runs. A finished run in --runs is not
repeated. With --measured, a run in benchmarks/measured/ is not repeated either, and new runs are added there. A file
NAME-SEED.parquet holds the rows and ranks of the test targets found among the first 20; its metadata hold the
configuration and the metrics of the run. --measured takes files in configs/ as they are, without further options.
Models are chosen on validation; the figures are those of test. The last line is one JSON object.
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
CONFIGS = ROOT / "configs"
SHOWN = ("recall@10", "ndcg@10")
DEEPEST = 20
DERIVED = {"columns", "order", "dropped", "left_out", "unreachable_targets", "unreachable_share", "best_possible"}
"""Facts of a protocol that follow from its others and the fingerprint; figures of before they were recorded lack them."""

KEPT = ("model", "protocol", "data", "test", "valid", "training", "seed", "versions", "machine", "seconds")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The facts of a run that are compared."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    found: pd.DataFrame  # rows of the test targets with a rank of at most DEEPEST, and the ranks

    @classmethod
    def of(cls, folder: Path) -> Figures:
        """Read the figures of a run folder."""
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
        """Read figures that `write` wrote."""
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"run"])
        return cls(config=about["config"], metrics=about["metrics"], found=table.to_pandas())

    def write(self, file: Path) -> None:
        """Write the figures, without the machine's own paths."""
        config = {key: value for key, value in self.config.items() if key != "runs"} | {
            "dataset": self.metrics["data"]["name"]
        }
        table = pa.Table.from_pandas(self.found, preserve_index=False)
        about = json.dumps({"config": config, "metrics": self.metrics})
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"run": about}), file, compression="zstd")

    def gains(self) -> np.ndarray:
        """Compute NDCG@10 of every test target, in the order of the split: (W,)."""
        gains = np.zeros(self.metrics["protocol"]["num_targets"])
        near = self.found[self.found["rank"] <= 10]
        gains[near["row"]] = 1 / np.log2(near["rank"] + 1.0)
        return gains

    def protocol(self) -> dict[str, Any]:
        """Return the facts that two runs must share before their test figures are compared."""
        left_out = {"seed", "windows", *DERIVED}
        return {key: value for key, value in self.metrics["protocol"].items() if key not in left_out}


def name_of(config: str) -> str:
    """Name a configuration by its files: folder.file for those in configs/, the file's name for others."""
    names = []
    for file in config.split("+"):
        path = Path(file).resolve().with_suffix("")
        inside = path.is_relative_to(CONFIGS)
        names.append(".".join(path.relative_to(CONFIGS).parts) if inside else path.name)
    return "+".join(names)


def options_of(config: str) -> list[str]:
    """Write a configuration as words of the command line."""
    return [word for file in config.split("+") for word in ("--config", file)]


def figures(config: str, seed: int, chosen: argparse.Namespace, words: list[str]) -> Figures:
    """Return the figures of a configuration and seed; run it if no finished run is found."""
    told = [*options_of(config), "--seed", str(seed), *words]
    kept = MEASURED / f"{name_of(config)}-{seed}.parquet"
    if chosen.measured and kept.exists():
        found = Figures.read(kept)
        check_same(found, told, kept)
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
    check_same(found, told, folder)
    if chosen.measured:
        found.write(kept)
    return found


def check_same(figures: Figures, told: list[str], where: Path) -> None:
    """Stop if finished figures were made with other options; options that are newer count with their defaults."""
    from seqcl import config
    from seqcl.errors import UserError

    remedy = "remove it, choose another --runs, or leave --measured out"
    now = config.resolve(told).flat
    try:
        old = config.experiment(figures.config, stored=True).flat
    except UserError as error:
        raise SystemExit(f"{where} was made with options that are no more ({error}): {remedy}") from None
    apart = [key for key in now if now[key] != old.get(key) and key not in ("runs", "dataset")]
    if apart:
        raise SystemExit(
            f"{where} was made with another {apart[0]} ({old.get(apart[0])}, now {now[apart[0]]}): {remedy}"
        )
    data, told_data = figures.metrics["data"]["name"], Path(now["dataset"]).stem
    if data != told_data:
        raise SystemExit(f"{where} was made with another dataset ({data}, now {told_data}): {remedy}")


def slices(config: str, words: list[str], protocol: dict[str, Any]) -> dict[str, np.ndarray]:
    """Mark the test targets of the head, the torso and the tail of the items: (W,) bool each.

    Stops if the data are not those that the protocol names.
    """
    from seqcl.config import resolve
    from seqcl.evaluation.slices import by_popularity

    resolved = resolve([*options_of(config), *words])
    sequences = resolved.data.sequences(resolved.options.dataset)
    split = resolved.data.split_windows(sequences)
    if (sequences.fingerprint, len(split.test)) != (protocol["data_fingerprint"], protocol["num_targets"]):
        raise SystemExit(f"{resolved.options.dataset} is not the data that {name_of(config)} was measured on")
    targets = split.test.items[split.test.stop]  # (W,)
    return {name: those[targets] for name, those in by_popularity(split.train.item_counts()).items()}


def row_of(runs: list[Figures]) -> dict[str, Any]:
    """Compute means and deviations over the seeds of one configuration."""
    row: dict[str, Any] = {key: runs[0].metrics[key] for key in ("model", "protocol")}
    row["data"] = runs[0].metrics["data"]["name"]
    row["commits"] = sorted({run.metrics["versions"].get("commit", "unknown") for run in runs})
    for name in SHOWN:
        values = [run.metrics["test"][name] for run in runs]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row[name] = {"mean": float(np.mean(values)), "sd": deviation, "by seed": values}
    row["valid ndcg@10"] = float(np.mean([run.metrics["valid"]["ndcg@10"] for run in runs]))
    row["minutes"] = float(np.mean([run.metrics["seconds"] for run in runs])) / 60
    return row


def digits(value: float, *, signed: bool = False) -> str:
    """Write a figure as the README and the heads of configurations do: .0597, or +.0016 and −.0011."""
    sign = ("−" if value < 0 else "+") if signed else ""
    return sign + f"{abs(value):.4f}".removeprefix("0")


def spread(figure: dict[str, Any]) -> str:
    """Write the mean of several seeds with their deviation, or the figure of one seed."""
    deviation = f" ± {digits(figure['sd'])}" if len(figure["by seed"]) > 1 else ""
    return digits(figure["mean"]) + deviation


def summary(row: dict[str, Any]) -> str:
    """Write the line about its seeds that stands in the head of a configuration."""
    recall, ndcg = (row[metric] for metric in SHOWN)
    last = len(ndcg["by seed"]) - 1
    seeds = f"seeds 0 to {last}" if last else "seed 0"
    return f"{seeds}: test NDCG@10 {spread(ndcg)}, HR@10 {spread(recall)} (valid {digits(row['valid ndcg@10'])})"


def verdict(found: dict[str, Any]) -> tuple[str, str, str]:
    """Write a difference as a row of the README does: with its interval, its p, and the number of seeds ahead."""
    low, high = digits(found["low"], signed=True), digits(found["high"], signed=True)
    p = found["p"]
    chance = "< .001" if p < 0.001 else f"{p:.{3 if p < 0.01 else 2}f}".removeprefix("0")
    return f"{digits(found['difference'], signed=True)} [{low}, {high}]", chance, str(found["seeds better"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--measured", action="store_true", help="take what lies in benchmarks/measured, and add to it")
    chosen, words = parser.parse_known_args()
    if chosen.measured and (
        words or any(not Path(file).resolve().is_relative_to(CONFIGS) for file in "+".join(chosen.configs).split("+"))
    ):
        parser.error(
            f"--measured takes files in configs/ as they are; put options into one in configs/parts/ ({' '.join(words)})"
        )
    with ThreadPoolExecutor(chosen.jobs) as pool:
        tasks = {
            (config, seed): pool.submit(figures, config, seed, chosen, words)
            for seed in range(chosen.seeds)
            for config in chosen.configs
        }
        runs = {key: task.result() for key, task in tasks.items()}
    sides = {config: [runs[config, seed] for seed in range(chosen.seeds)] for config in chosen.configs}
    last = chosen.configs[-1]
    protocol = sides[last][0].protocol()
    for (config, seed), run in runs.items():
        apart = [key for key, value in run.protocol().items() if value != protocol.get(key)]
        if apart:
            raise SystemExit(
                f"{name_of(config)}, seed {seed}, has another {apart[0]} ({run.protocol()[apart[0]]}) than {name_of(last)} "
                f"({protocol.get(apart[0])}), and results of two protocols are not compared"
            )
    results: dict[str, Any] = {name_of(config): row_of(side) for config, side in sides.items()}
    width = max(map(len, results))
    for name, row in results.items():
        print(f"{name:<{width}}  {summary(row)}, {row['minutes']:.1f} min a run")
    parts: dict[str, Any] = {"all": slice(None)}
    if len(sides) > 1:
        parts |= slices(last, words, protocol)
    for config in chosen.configs[:-1]:
        results |= compared(config, last, sides, parts)
    print(json.dumps({"benchmark": "quality", "date": date.today().isoformat(), "seeds": chosen.seeds, **results}))


def compared(config: str, last: str, sides: dict[str, list[Figures]], parts: dict[str, Any]) -> dict[str, Any]:
    """Compare a configuration with the last one on each part of the targets, print the result and return it."""
    from seqcl.evaluation import compare

    found = {}
    ours, theirs = ([run.gains() for run in sides[some]] for some in (config, last))
    for part, rows in parts.items():
        test = compare([gain[rows] for gain in ours], [gain[rows] for gain in theirs])
        name = f"{name_of(config)} - {name_of(last)}, {part}"
        found[name] = {
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "p": test.p_value,
            "seeds better": test.seeds_better,
            "means": [float(np.mean([gain[rows].mean() for gain in side])) for side in (ours, theirs)],
        }
        *cells, ahead = verdict(found[name])
        print(f"{name} targets: {cells[0]}, p {cells[1]}, ahead with {ahead} of {test.seeds} seeds")
    return found


if __name__ == "__main__":
    from seqcl.errors import UserError

    try:
        main()
    except UserError as error:  # such as a data set that is not here
        sys.exit(str(error))
