"""The end of a benchmark: a comparison for each data set, and each contrastive model beside itself without its term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqcl.errors import UserError
from seqcl.evaluation import holm
from seqcl.experiment.compare import Compared, compare_runs
from seqcl.experiment.grid import Row
from seqcl.experiment.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result on one data set."""

    data: str
    compared: Compared | None
    contrast: list[dict[str, Any]]  # a record for each contrastive model
    problem: str = ""  # why there is no comparison


def verdicts(tasks: Sequence[Task], *, baseline: str, metric: str) -> list[Verdict]:
    """Compare the finished runs of each data set.

    Args:
        tasks: all runs, finished or not.
        baseline: the model that others are compared with, as the file names it.
        metric: of a target, such as ndcg@10.
    """
    return [
        verdict([task for task in tasks if task.row.data == data], data, baseline, metric)
        for data in dict.fromkeys(task.row.data for task in tasks)
    ]


def verdict(tasks: Sequence[Task], data: str, baseline: str, metric: str) -> Verdict:
    """Compare the finished runs of one data set."""
    rows = list({task.row.name: task.row for task in tasks}.values())
    base = next((row for row in rows if row.baseline), None)
    if base is None:
        return Verdict(data=data, compared=None, contrast=[], problem=f"{baseline}, the baseline, could not be tuned")
    theirs = runs_of(tasks, base)
    if not theirs:
        return Verdict(data=data, compared=None, contrast=[], problem=f"{base.name}, the baseline, has no finished run")
    called = {task.run: task.row.name for task in tasks if task.run is not None}
    try:
        compared = compare_runs(
            [*called], baseline=theirs[0], metric=metric, called=called, dataset=log_of(base), alone=True
        )
    except UserError as error:
        return Verdict(data=data, compared=None, contrast=[], problem=str(error))
    compared = replace(compared, data=compared.data | {"name": data})  # two rows of the file may be one log
    return Verdict(data=data, compared=compared, contrast=contrasted(tasks, rows, metric))


def log_of(row: Row) -> str:
    """Where the log of a row is."""
    return row.experiment.options.dataset


def runs_of(tasks: Sequence[Task], row: Row) -> list[Path]:
    """The finished runs of a row."""
    return [task.run for task in tasks if task.run is not None and task.row.same(row)]


def contrasted(tasks: Sequence[Task], rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """A record for each contrastive row of which both forms have finished runs; p is corrected for their number (Holm)."""
    found: list[dict[str, Any]] = []
    for row in rows:
        ours, theirs = (runs_of(tasks, one) if one else [] for one in (row, row.plain))
        if row.plain is None or not ours or not theirs:
            continue
        called = {**dict.fromkeys(ours, row.name), **dict.fromkeys(theirs, row.plain.name)}
        without, own = compare_runs(
            [*ours, *theirs], baseline=theirs[0], metric=metric, called=called, dataset=log_of(row)
        ).rows
        test = own.difference
        assert test is not None
        found.append(
            {
                "model": row.name,
                "without contrast": row.plain.name,
                "seeds": " ".join(map(str, own.side.seeds)),
                f"{metric} with": own.mean,
                f"{metric} without": without.mean,
                "difference": test.difference,
                "low": test.low,
                "high": test.high,
                "p": test.p_value,
                "seeds ahead": f"{test.seeds_better} of {test.seeds}",
                **{f"{name} {key}": value for name, part in own.slices.items() for key, value in part.items()},
            }
        )
    corrected = holm([record["p"] for record in found])
    return [{**record, "p (Holm)": p} for record, p in zip(found, corrected, strict=True)]
