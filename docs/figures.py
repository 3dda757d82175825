"""Figures for the generated tables: from the ranks in benchmarks/measured/ and from the heads of configs/."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import quality  # noqa: E402
from seqcl.evaluation import compare, holm  # noqa: E402

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
    data: str
    seeds: int
    how: str  # further options of the runs
    ndcg: str
    recall: str
    valid: str
    date: str


class Row(NamedTuple):
    """A measured configuration beside the one without its term."""

    name: str
    label: str
    figures: dict[str, Any]
    base: str | None
    found: dict[str, Any]  # of the difference to the base, as `quality.verdict` takes it; empty without a base
    holm: float
    runs: Sequence[quality.Figures]


def settings(file: Path) -> dict[str, Any]:
    """The keys of a configuration, those of the file that it builds on included."""
    own = yaml.safe_load(file.read_text(encoding="utf-8"))
    base = own.get("base")
    return {**(settings(file.parent / base) if base else {}), **own}


@cache
def heads() -> list[Head]:
    """The heads of all configurations in configs/ and configs/papers/ with a figure."""
    found = []
    for file in sorted([*quality.CONFIGS.glob("*.yaml"), *(quality.CONFIGS / "papers").glob("*.yaml")]):
        match = HEAD.search(file.read_text(encoding="utf-8"))
        if match:
            told, keys = match.groupdict(), settings(file)
            seeds = int(told["last"] or 0) + 1
            name = file.relative_to(quality.CONFIGS).with_suffix("").as_posix()
            figures = (told["ndcg"], told["recall"], told["valid"], told["date"])
            found.append(Head(name, keys["model"], keys["dataset"], seeds, told["how"].strip(), *figures))
    return found


@cache
def measured() -> dict[str, list[quality.Figures]]:
    """The kept runs of every configuration, by name and then by seed."""
    found: dict[str, list[quality.Figures]] = {}
    for file in sorted(quality.MEASURED.glob("*.parquet")):
        found.setdefault(file.stem.rpartition("-")[0], []).append(quality.Figures.read(file))
    return found


def base_of(name: str) -> str | None:
    """The configuration without the term: beauty-bsarec for beauty-cl4rec-bsarec, else beauty-sasrec; None for the latter."""
    data, _, rest = name.partition("-")
    encoder = rest.partition("-")[2] or "sasrec"
    return None if rest == "sasrec" else f"{data}-{encoder}"


def is_counted(runs: Sequence[quality.Figures]) -> bool:
    """True for a model that is not trained: its one run stands for all seeds, and nothing is tested against several."""
    return runs[0].metrics["training"] is None


def label_of(name: str, run: quality.Figures) -> str:
    """A row's name: the model, what it is laid over, and how it begins."""
    base = base_of(name)
    over = "" if base is None or base.endswith("-sasrec") else f" over {measured()[base][0].metrics['model']}"
    start = ", spectral start" if run.config["start"] == "spectral" else ""
    bias = ", learned bias" if run.config.get("next_item", {}).get("bias") else ""
    return f"{run.metrics['model']}{over}{start}{bias}"


@cache
def rows(data: str) -> list[Row]:
    """The measured configurations of a data set: the plain model first, then by NDCG@10 on test."""
    of_data = {name: runs for name, runs in measured().items() if runs[0].metrics["data"]["name"] == data}
    bases = {name: None if is_counted(runs) else base_of(name) for name, runs in of_data.items()}
    found = {}
    for name, runs in of_data.items():
        base = bases[name]
        if base is not None:
            theirs = of_data[base][: len(runs)]
            assert all(ours.protocol() == other.protocol() for ours, other in zip(runs, theirs, strict=True)), name
            test = compare([run.gains() for run in runs], [run.gains() for run in theirs])
            about = {"low": test.low, "high": test.high, "p": test.p_value, "seeds better": test.seeds_better}
            found[name] = {"difference": test.difference, **about}
    corrected = dict(zip(found, holm([one["p"] for one in found.values()]), strict=True))
    made = [
        Row(
            name,
            label_of(name, runs[0]),
            quality.row_of(runs),
            bases[name],
            found.get(name, {}),
            corrected.get(name, 1.0),
            runs,
        )
        for name, runs in of_data.items()
    ]
    return sorted(made, key=lambda row: (base_of(row.name) is not None, -row.figures["ndcg@10"]["mean"]))


def chance(p: float) -> str:
    """A p value as the tables write it."""
    if p >= 0.995:
        return "1"
    return quality.verdict({"difference": 0.0, "low": 0.0, "high": 0.0, "p": p, "seeds better": 0})[1]


def origin(run: quality.Figures) -> str:
    """Machine and versions of a run."""
    machine, versions = run.metrics["machine"], run.metrics["versions"]
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] > 1)
    on = f"{machine['processor'].replace('(R)', '')}, {threads}"
    on = on if machine["device"] == "cpu" else f"{machine['device']} ({on})"
    commit = versions.get("commit", "unknown")
    return f"{on}, Python {versions['python']}, torch {versions['torch']}, seqcl {versions['seqcl']} at {commit}"
