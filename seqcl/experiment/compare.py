"""Compare finished runs of one protocol: means over seeds, and differences with intervals over users and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqcl.errors import UserError
from seqcl.evaluation import Comparison, compare, holm, metric_name, row_metric
from seqcl.evaluation.significance import by_user
from seqcl.experiment.finished import Finished, check_same_protocol
from seqcl.experiment.folder import log
from seqcl.experiment.targets import Targets

SHOWN_OPTIONS = 3
"""Options named to tell two configurations of one model apart."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """The runs of one configuration: one for each seed."""

    name: str
    runs: list[Finished]

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return [run.seed for run in self.runs]

    def values(self, metric: str, rows: Any = slice(None)) -> list[np.ndarray]:
        """The metric of some test targets, for each seed: (W',) each."""
        return [row_metric(metric, run.ranks)[rows] for run in self.runs]

    def mean(self, of: Any) -> float | None:
        """The mean of what `of` gives for each run; None if a run has none."""
        found = [of(run) for run in self.runs]
        return None if any(one is None for one in found) else float(np.mean(found))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A configuration, and how it differs from the baseline."""

    side: Side
    mean: float
    deviation: float | None  # over seeds
    difference: Comparison | None  # None for the baseline itself
    holm: float | None  # p corrected for the number of rows
    effect: float | None  # mean difference over the deviation of the users' differences (Cohen's d_z)
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)  # mean, difference, low, high by slice


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The rows of a comparison, the baseline first, then from the best to the worst."""

    metric: str
    baseline: str
    rows: list[Row]
    protocol: dict[str, Any]
    data: dict[str, Any]

    def records(self) -> list[dict[str, Any]]:
        """The rows as flat records, for CSV and JSON."""
        return [record(row, self.metric) for row in self.rows]


def compare_runs(
    folders: Sequence[str | Path],
    *,
    baseline: str | Path | None = None,
    metric: str = "ndcg@10",
    called: Mapping[Path, str] | None = None,
    dataset: str | None = None,
    alone: bool = False,
) -> Compared:
    """Compare finished runs; those that differ in the seed alone are one row.

    Args:
        folders: runs, or baselines in them (RUN/baselines/NAME). The baselines of a single run join it.
        baseline: one of the runs; others of its configuration count to it. The last one, or the first baseline of a single run.
        metric: such as ndcg@10; one that every target has a value of.
        called: names of configurations, by folder; the others are named by what differs.
        dataset: where the log is, if no run keeps it and its name does not say it.
        alone: true takes one configuration too, without its baselines: a table of one row.

    Raises:
        UserError: fewer than two configurations, two protocols, or a folder that is no finished run.
    """
    runs = [Finished.read(Path(folder)) for folder in unique(folders)]
    if len(runs) == 1 and not alone:
        runs += [Finished.read(path) for path in runs[0].baselines()]
        chosen = Path(baseline) if baseline else runs[min(1, len(runs) - 1)].folder
    else:
        chosen = Path(baseline) if baseline else runs[-1].folder
    if chosen.resolve() not in [run.folder.resolve() for run in runs]:
        runs.append(Finished.read(chosen))
    check_same_protocol(runs)
    first = sorted(
        runs, key=lambda run: run.folder.resolve() != chosen.resolve()
    )  # the baseline is no other run's twin
    sides = pooled(first, called or {})
    if len(sides) < 2 and not alone:
        raise UserError(
            f"{runs[0].folder}: there is one configuration alone, {sides[0].name}: give a run of another one"
        )
    base = next(side for side in sides if any(run.folder.resolve() == chosen.resolve() for run in side.runs))
    metric = metric_name(metric)
    row_metric(metric, base.runs[0].ranks)  # refuses an unknown one
    check_depth(runs, metric)
    targets = Targets.of([*base.runs, *runs], dataset)
    say_unpaired([side for side in sides if side is not base], base)
    others = sorted((side for side in sides if side is not base), key=lambda side: -mean_of(side, metric)[0])
    tests = [between(side, base, metric, targets.users) for side in others]
    corrected = holm([test.p_value for test in tests])
    rows = [row_of(base, metric)]
    for side, test, p in zip(others, tests, corrected, strict=True):
        rows.append(row_of(side, metric, base=base, test=test, p=p, targets=targets))
    return Compared(metric=metric, baseline=base.name, rows=rows, protocol=runs[0].protocol, data=runs[0].data)


def say_unpaired(sides: Iterable[Side], base: Side) -> None:
    """Warn of configurations that share no seed with the baseline, though both draw."""
    for side in sides:
        if not {*side.seeds} & {*base.seeds} and not side.runs[0].counted and not base.runs[0].counted:
            names = (f"{one.name} has seed {', '.join(map(str, one.seeds))}" for one in (side, base))
            log.warning("%s: none in common, so they are paired in order; give runs of one seed", " and ".join(names))


def too_deep(file: Path, deepest: int, metric: str) -> str:
    """Say that a kept file has no ranks so deep."""
    return f"{file} keeps ranks of at most {deepest}, so nothing is known of {metric}"


def check_depth(runs: Sequence[Finished], metric: str) -> None:
    """Refuse a metric of longer lists than a kept file can tell."""
    for run in runs:
        if run.deepest is not None and int(metric.partition("@")[2]) > run.deepest:
            raise UserError(too_deep(run.folder, run.deepest, metric))


def unique(folders: Iterable[str | Path]) -> list[str | Path]:
    """Folders without those that are named a second time."""
    return list({Path(folder).resolve(): folder for folder in folders}.values())


def pooled(runs: Sequence[Finished], called: Mapping[Path, str]) -> list[Side]:
    """Put the seeds of each configuration together, and name the configurations, unless they are called something.

    Raises:
        UserError: two runs of one configuration and one seed have different ranks.
    """
    groups: list[list[Finished]] = []
    for run in runs:
        name = called.get(run.folder)
        group = next((group for group in groups if name and called.get(group[0].folder) == name), None)
        group = group or next(
            (group for group in groups if not name and all(one_configuration(other, run) for other in group)), None
        )
        if group is None:
            groups.append([run])
        elif twin := next((other for other in group if other.seed == run.seed), None):
            if not same_ranks(twin, run):
                raise UserError(
                    f"{run.folder} and {twin.folder} have one configuration and seed, and different ranks: leave one out"
                )
        elif group[0].counted and same_ranks(group[0], run):
            continue  # a model that is counted is the same for every seed
        else:
            group.append(run)
    named = names([group[0] for group in groups])
    named = [called.get(group[0].folder, name) for name, group in zip(named, groups, strict=True)]
    return [
        Side(name=name, runs=sorted(group, key=lambda run: run.seed)) for name, group in zip(named, groups, strict=True)
    ]


def same_ranks(one: Finished, other: Finished) -> bool:
    """True if two runs have the same ranks, as deep as a kept file tells them."""
    deepest = min((run.deepest for run in (one, other) if run.deepest is not None), default=None)
    ours, theirs = (run.ranks if deepest is None else np.minimum(run.ranks, deepest + 1) for run in (one, other))
    return np.array_equal(ours, theirs)


def one_configuration(one: Finished, other: Finished) -> bool:
    """True for runs that differ in the seed alone: what they began from and read beside their options is the same as far as it is known."""
    known = one.beside.keys() & other.beside.keys()
    return one.options == other.options and all(one.beside[key] == other.beside[key] for key in known)


def names(runs: Sequence[Finished]) -> list[str]:
    """Name each configuration by its model and, where several have that, by the options, or else the files, in which they differ."""
    found: list[tuple[str, str]] = []
    for run in runs:
        alike = [other for other in runs if other.model == run.model]
        keys = {key for other in alike for key in {**other.options, **run.options}}
        apart = sorted(key for key in keys if any(other.options.get(key) != run.options.get(key) for other in alike))
        told = [f"{key} {run.options.get(key)}" for key in apart]
        twins = [other for other in alike if other.options == run.options]
        told += [
            f"{key} {value[:8]}"
            for key, value in run.beside.items()
            if any(other.beside.get(key, value) != value for other in twins)
        ]
        more = f" and {len(told) - SHOWN_OPTIONS} more" if len(told) > SHOWN_OPTIONS else ""
        short = f"{run.model} ({', '.join(told[:SHOWN_OPTIONS])}{more})" if told else run.model
        found.append((short, f"{run.model} ({', '.join(told)})"))
    shorts = [short for short, _ in found]
    return [short if shorts.count(short) == 1 else whole for short, whole in found]


def between(side: Side, base: Side, metric: str, users: np.ndarray, rows: Any = slice(None)) -> Comparison:
    """Compare two configurations over the runs that pair up; `users` (W,) are those of all test targets."""
    return compare(*(Side(name="", runs=runs).values(metric, rows) for runs in paired(side, base)), users=users[rows])


def paired(side: Side, base: Side) -> tuple[list[Finished], list[Finished]]:
    """The runs of both that pair up: those of their common seeds; with none in common as many as both have."""
    common = [seed for seed in side.seeds if seed in base.seeds]
    count = min(len(side.runs), len(base.runs))
    if len(base.runs) == 1 and base.runs[0].counted:  # it pairs with every seed
        return side.runs, base.runs * len(side.runs)
    if len(side.runs) == 1 and side.runs[0].counted:
        return side.runs * len(base.runs), base.runs
    ours, theirs = (
        [run for run in one.runs if run.seed in common] if common else one.runs[:count] for one in (side, base)
    )
    return ours, theirs


def mean_of(side: Side, metric: str, rows: Any = slice(None)) -> tuple[float, float | None]:
    """Mean and deviation over seeds; no deviation of one seed."""
    each = [float(values.mean()) for values in side.values(metric, rows)]
    return float(np.mean(each)), float(np.std(each, ddof=1)) if len(each) > 1 else None


def row_of(
    side: Side,
    metric: str,
    *,
    base: Side | None = None,
    test: Comparison | None = None,
    p: float | None = None,
    targets: Targets | None = None,
) -> Row:
    """Put a row together."""
    mean, deviation = mean_of(side, metric)
    if base is None or test is None or targets is None:
        return Row(side=side, mean=mean, deviation=deviation, difference=None, holm=None, effect=None)
    ours, theirs = (np.mean(Side(name="", runs=runs).values(metric), 0) for runs in paired(side, base))
    spread = float(by_user((ours - theirs)[None], targets.users).std(ddof=1))
    slices = {}
    for name, rows in targets.slices.items():
        if len(np.unique(targets.users[rows])) < 2:
            continue
        found = between(side, base, metric, targets.users, rows)
        slices[name] = {
            "targets": int(rows.sum()), "mean": mean_of(side, metric, rows)[0], "baseline": mean_of(base, metric, rows)[0],
            "difference": found.difference, "low": found.low, "high": found.high, "p": found.p_value,
        }  # fmt: skip
    effect = test.difference / spread if spread else 0.0
    return Row(side=side, mean=mean, deviation=deviation, difference=test, holm=p, effect=effect, slices=slices)


def record(row: Row, metric: str) -> dict[str, Any]:
    """A row as one flat record; what it lacks is None."""
    side, test = row.side, row.difference
    gib = side.mean(lambda run: run.memory)
    return {
        "name": side.name,
        "seeds": " ".join(map(str, side.seeds)),
        metric: row.mean,
        f"{metric} deviation": row.deviation,
        f"valid {metric}": side.mean(lambda run: run.valid.get(metric)),
        "difference": test and test.difference,
        "low": test and test.low,
        "high": test and test.high,
        "p": test and test.p_value,
        "p (Holm)": row.holm,
        "seeds ahead": test and f"{test.seeds_better} of {test.seeds}",
        "effect": row.effect,
        "seconds": side.mean(lambda run: run.seconds),
        "peak MiB": None if gib is None else gib / 2**20,
        "parameters": side.runs[0].parameters,
        **{f"{name} {key}": value for name, found in row.slices.items() for key, value in found.items()},
    }
