"""Checks of early stopping and of the choice of weights: by validation alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqcl.config import Experiment
from seqcl.evaluation import row_metric
from seqcl.experiment.audit.ranked import Bounds
from seqcl.experiment.audit.verdict import Broken, Unused
from seqcl.training import last_checkpoint, load_checkpoint

CLOSE = 1e-9
"""Difference of two means of the same numbers that is rounding."""


def check_stopping(experiment: Experiment, folder: Path) -> str:
    """Follow the validations of the history: the best epoch is the one that was kept, and training ended by the rule."""
    if not experiment.recipe.trained:
        raise Unused("the model is counted, not trained")
    from seqcl.report import read_history

    trainer, rows = experiment.train, read_history(folder / "history.csv")
    if strange := [name for row in rows for name in row if name.startswith("test")]:
        raise Broken(f"history.csv has a column of the test: {strange[0]}")
    name = f"valid_{trainer.monitor}"
    best, best_epoch, stale, validations = -float("inf"), 0, 0, 0
    for row in rows:
        if name not in row:
            continue
        validations += 1
        if row[name] > best or not best_epoch:
            best, best_epoch, stale = row[name], int(row["epoch"]), 0
        else:
            stale += 1
    kept = load_checkpoint(folder / "checkpoints" / "best.safetensors", prefix="nothing")[1]
    last = load_checkpoint(last_checkpoint(folder), prefix="nothing")[1]
    for file, found in (("best.safetensors", kept["epoch"]), ("last.safetensors", last["best_epoch"])):
        if found != best_epoch:
            raise Broken(
                f"{file} has epoch {found} as the best; by {trainer.monitor} on validation it is epoch {best_epoch}"
            )
    if last["stale"] != stale:
        raise Broken(f"last.safetensors counts {last['stale']} validations since the best; the history has {stale}")
    refuse_other("the validation that best.safetensors states", kept["metrics"][trainer.monitor], best)
    patience = trainer.patience and stale >= trainer.patience
    if not patience and last["epoch"] < trainer.epochs and not trainer.max_minutes:
        raise Broken(
            f"training ended after epoch {last['epoch']} of {trainer.epochs}, {stale} validations after the best"
        )
    return f"epoch {best_epoch} has the best of {validations} validations ({trainer.monitor} {best:.4f}), and is the one that was kept"


def check_validation(
    experiment: Experiment, folder: Path, valid: Bounds, network: Bounds, test: Bounds, stored: Mapping[str, float]
) -> str:
    """Rank the validation targets anew with the kept weights: the values are those that training was stopped by.

    Of a blend, these are the values of its network alone.
    """
    monitor = experiment.train.monitor
    values = {"metrics.json": (stored.get(monitor), valid)}
    if experiment.recipe.trained:
        kept: dict[str, Any] = load_checkpoint(folder / "checkpoints" / "best.safetensors", prefix="nothing")[1]
        values["best.safetensors"] = (kept["metrics"][monitor], network)
    for file, (value, ranks) in values.items():
        low, high = bounds_of(monitor, ranks)
        if value is None or not low - CLOSE <= value <= high + CLOSE:
            told = (
                f"{file} has {monitor} {value:.4f} on validation" if value is not None else f"{file} has no {monitor}"
            )
            least, most = bounds_of(monitor, test)
            its = value is not None and least - CLOSE <= value <= most + CLOSE
            raise Broken(
                f"{told}; the kept weights give {high:.4f}"
                + (f", and {most:.4f} on the test, which is it" if its else "")
            )
    told = " and ".join(f"{value:.4f} in {file}" for file, (value, _) in values.items())
    return f"the kept weights rank {len(valid.low):,} validation targets to {monitor} {told}"


def check_test(experiment: Experiment, ranks: np.ndarray, stored: Mapping[str, float]) -> str:
    """Take the test metrics anew from the kept ranks, which another check takes from the kept weights."""
    ks = experiment.eval.ks
    told = 0
    for kind in ("recall", "ndcg", "mrr"):
        for k in ks:
            refuse_other(f"{kind}@{k} of the test in metrics.json", stored[f"{kind}@{k}"], plain_mean(kind, k, ranks))
            told += 1
    return f"{told} test metrics are those of {len(ranks):,} ranks of the kept weights"


def plain_mean(kind: str, k: int, ranks: np.ndarray) -> float:
    """The mean of a metric over ranks, one by one."""
    gain = {"recall": lambda rank: 1.0, "ndcg": lambda rank: 1 / np.log2(rank + 1), "mrr": lambda rank: 1 / rank}[kind]
    return float(sum(gain(rank) for rank in ranks.tolist() if rank <= k) / len(ranks))


def refuse_other(what: str, found: float, expected: float) -> None:
    """Refuse a number that is not the expected one, but for rounding."""
    if not abs(found - expected) <= CLOSE:
        raise Broken(f"{what} is {found:.6f}; computed anew it is {expected:.6f}")


def bounds_of(metric: str, ranks: Bounds) -> tuple[float, float]:
    """The least and the largest mean of a metric that the bounds of ranks allow."""
    values = np.stack([row_metric(metric, ranks.low), row_metric(metric, ranks.high)])
    return float(values.min(0).mean()), float(values.max(0).mean())
