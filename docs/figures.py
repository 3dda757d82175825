"""Figures for the generated tables: from the ranks in benchmarks/measured/ and from the heads of configs/."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seqcl.evaluation import compare, holm, row_metric  # noqa: E402
from seqcl.experiment import kept  # noqa: E402
from seqcl.experiment.finished import FREE  # noqa: E402
from seqcl.experiment.grid import Grid  # noqa: E402
from seqcl.experiment.grid_file import read_grid  # noqa: E402

MEASURED = ROOT / "benchmarks" / "measured"
CONFIGS = ROOT / "configs"
SHOWN = ("recall@10", "ndcg@10")
SEEDS = 3
"""Trained rows with fewer seeds stand in tables of their own, and are no part of Holm's correction."""
WITHOUT = "-without-contrast"
"""End of the name of a row that is another one without its term, as its file has it."""


HEAD = re.compile(
    r"# Measured: seeds? 0(?: to (?P<last>\d+))?(?P<how>[^:]*): test NDCG@10 (?P<ndcg>[^,]+), "
    r"HR@10 (?P<recall>[^(]+?) \(valid (?P<valid>\.\d+)[^)]*\).*?(?P<date>\d{4}-\d\d-\d\d)"
)
COUNTED = {"Popularity": ("Beauty", ".0110", ".0053")}
"""Data, HR@10 and NDCG@10 of the models without options, so without a configuration: `python run.py --model NAME --dataset Beauty`."""
COUNTED_ON = "2026-11-22"


class Head(NamedTuple):
    """Read the figures in the head of a configuration."""

    file: str  # below configs/, without .yaml
    model: str
    networks: str  # " of 2 networks", where they are several
    data: str
    seeds: int
    how: str  # further options of the runs
    ndcg: str
    recall: str
    valid: str
    date: str


class Kept(NamedTuple):
    """The kept results of one run."""

    config: dict[str, Any]
    metrics: dict[str, Any]  # metrics.json
    ranks: np.ndarray  # (W,)

    @classmethod
    def read(cls, file: Path) -> Kept:
        """Read a file of benchmarks/measured/."""
        about, ranks = kept.read(file)
        return cls(about["config"], about["metrics"], ranks)

    def gains(self) -> np.ndarray:
        """NDCG@10 of every test target, in the order of the split: (W,)."""
        return row_metric("ndcg@10", self.ranks)

    def protocol(self) -> dict[str, Any]:
        """The facts that two runs must share before their test figures are compared."""
        return {key: value for key, value in self.metrics["protocol"].items() if key not in FREE}


class Row(NamedTuple):
    """A measured configuration beside the one without its term."""

    name: str
    label: str
    figures: dict[str, Any]
    base: str | None
    found: dict[str, Any]  # of the difference to the base, as `verdict` takes it; empty without a base
    holm: float
    runs: Sequence[Kept]

    @property
    def few(self) -> bool:
        """True for a trained row with fewer seeds than the others."""
        return too_few(self.runs)


def too_few(runs: Sequence[Kept]) -> bool:
    """True for the runs of a trained model that are fewer than `SEEDS`; a counted model needs one."""
    return len(runs) < SEEDS and runs[0].metrics["training"] is not None


def settings(file: Path) -> dict[str, Any]:
    """The keys of a configuration, those of the file that it builds on included."""
    own = yaml.safe_load(file.read_text(encoding="utf-8"))
    base = own.get("base")
    return {**(settings(file.parent / base) if base else {}), **own}


@cache
def heads() -> list[Head]:
    """The heads of all configurations in configs/ and configs/papers/ with a figure."""
    found = []
    for file in sorted([*CONFIGS.glob("*.yaml"), *(CONFIGS / "papers").glob("*.yaml")]):
        match = HEAD.search(file.read_text(encoding="utf-8"))
        if match:
            told, keys = match.groupdict(), settings(file)
            seeds = int(told["last"] or 0) + 1
            name = file.relative_to(CONFIGS).with_suffix("").as_posix()
            figures = (told["ndcg"], told["recall"], told["valid"], told["date"])
            found.append(
                Head(name, keys["model"], of_networks(keys), keys["dataset"], seeds, told["how"].strip(), *figures)
            )
    return found


@cache
def benchmarks() -> dict[str, Grid]:
    """The files in configs/benchmarks/ by their stem, without that for a first look."""
    files = sorted(file for file in (CONFIGS / "benchmarks").glob("*.yaml") if file.stem != "small")
    return {file.stem: read_grid(file) for file in files}


@cache
def kept_of(benchmark: str) -> dict[str, list[Kept]]:
    """The kept runs of a benchmark, by the name of its row and then by seed."""
    own = MEASURED / benchmark
    files = list(own.glob("*.parquet") if own.is_dir() else MEASURED.glob(f"{benchmark}-*.parquet"))
    found: dict[str, list[Kept]] = {}
    for file in sorted(files, key=lambda file: int(file.stem.rpartition("-")[2])):
        found.setdefault(file.stem.rpartition("-")[0], []).append(Kept.read(file))
    return dict(sorted(found.items()))


def base_of(name: str, benchmark: str) -> str | None:
    """The row without the term: beauty-taprec for beauty-cl4rec-taprec, else the baseline; None for it and for counted models.

    These have one run for all seeds, so that nothing is tested against several.
    """
    first = benchmarks()[benchmark].baseline
    if kept_of(benchmark)[name][0].metrics["training"] is None:
        return None
    encoder = name.removeprefix(f"{benchmark}-").partition("-")[2]
    rows = [f"{name}{WITHOUT}", f"{benchmark}-{encoder}", first]
    return None if name == first else next(row for row in rows if row in kept_of(benchmark))


def label_of(name: str, run: Kept, base: Kept | None) -> str:
    """Name a row: the model, what it is laid over unless that is SASRec or itself, and how it begins."""
    under = "SASRec" if base is None else base.metrics["model"]
    over = "" if under in ("SASRec", run.metrics["model"]) else f" over {under}"
    over = " without contrast" if name.endswith(WITHOUT) else over
    start = ", spectral start" if run.config["start"] == "spectral" else ""
    bias = ", learned bias" if run.config.get("next_item", {}).get("bias") else ""
    return f"{run.metrics['model']}{of_networks(run.config)}{over}{start}{bias}"


def of_networks(config: Mapping[str, Any]) -> str:
    """Say how many networks a model has, where they are several."""
    number = config.get("ensemble", {}).get("networks", 1)
    return f" of {number} networks" if number > 1 else ""


@cache
def rows(benchmark: str) -> list[Row]:
    """The kept rows of a benchmark: the baseline first, then by NDCG@10 on test; p of rows with few seeds is not corrected."""
    kept_runs, first = kept_of(benchmark), benchmarks()[benchmark].baseline
    bases = {name: base_of(name, benchmark) for name in kept_runs}
    found = {}
    for name, base in bases.items():
        if base is not None:
            ours, theirs = kept_runs[name], kept_runs[base]
            theirs = theirs[: len(ours)]
            assert all(one.protocol() == other.protocol() for one, other in zip(ours, theirs, strict=True)), name
            test = compare([run.gains() for run in ours], [run.gains() for run in theirs])
            about = {"low": test.low, "high": test.high, "p": test.p_value, "seeds better": test.seeds_better}
            found[name] = {"difference": test.difference, **about}
    whole = [name for name in found if not too_few(kept_runs[name])]
    corrected = dict(zip(whole, holm([found[name]["p"] for name in whole]), strict=True))
    made = [
        Row(
            name,
            label_of(name, kept_runs[name][0], kept_runs[base][0] if base else None),
            row_of(kept_runs[name]),
            base,
            found.get(name, {}),
            corrected.get(name, 1.0),
            kept_runs[name],
        )
        for name, base in bases.items()
    ]
    return sorted(made, key=lambda row: (row.name != first, -row.figures["ndcg@10"]["mean"]))


def row_of(runs: Sequence[Kept]) -> dict[str, Any]:
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


def digits(value: float, *, signed: bool = False) -> str:
    """Write a figure as README and the heads of configurations do: .0597, or +.0016 and −.0011."""
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
    """Write a difference as a row of README does: with its interval, its p, and the number of seeds ahead."""
    low, high = digits(found["low"], signed=True), digits(found["high"], signed=True)
    p = found["p"]
    chance = "< .001" if p < 0.001 else f"{p:.{3 if p < 0.01 else 2}f}".removeprefix("0")
    return f"{digits(found['difference'], signed=True)} [{low}, {high}]", chance, str(found["seeds better"])


def command(name: str, benchmark: str) -> str:
    """The command that makes a row anew."""
    seeds = len(kept_of(benchmark)[name])
    more = f" --seeds {seeds}" if seeds > SEEDS else ""
    return f"seqcl benchmark configs/benchmarks/{benchmark}.yaml --only {name.removesuffix(WITHOUT)}{more}"


def chance(p: float) -> str:
    """A p value as the tables write it."""
    if p >= 0.995:
        return "1"
    return verdict({"difference": 0.0, "low": 0.0, "high": 0.0, "p": p, "seeds better": 0})[1]


def origin(run: Kept) -> str:
    """Machine and versions of a run."""
    machine, versions = run.metrics["machine"], run.metrics["versions"]
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] > 1)
    on = f"{machine['processor'].replace('(R)', '')}, {threads}"
    on = on if machine["device"] == "cpu" else f"{machine['device']} ({on})"
    commit = versions.get("commit", "unknown")
    return f"{on}, Python {versions['python']}, torch {versions['torch']}, seqcl {versions['seqcl']} at {commit}"
