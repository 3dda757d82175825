"""What an experiment is told: its options, where they come from, and what is refused before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from seqcl import config as configuration
from seqcl.data import Preparation
from seqcl.errors import UserError, unknown
from seqcl.evaluation import RANK_METRICS, Evaluator
from seqcl.models import MODELS, Recommender
from seqcl.training import Trainer


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an experiment is about; the options without a section.

    Args:
        model: the recipe.
        dataset: a name from `seqcl data list`, or the path of a log of interactions.
        baseline: further recipes trained in the same call, separated by commas; they take the options of the parts they share.
        start: of item embeddings: random, or with what users had in training (spectral), for models with an encoder.
        seed: of initial weights, order of batches, dropout and views.
        device: auto takes a GPU if there is one.
        runs: folder in which each run makes a new folder of its own.
    """

    model: str = "CL4Rec"
    dataset: str = "ml-100k"
    baseline: str = ""
    start: Literal["random", "spectral"] = "random"
    seed: int = 0
    device: str = "auto"
    runs: str = "runs"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed}: must be from 0 to {2**32 - 1}")


SHARED = {"data": Preparation, "train": Trainer, "eval": Evaluator}
"""Sections that every model has."""


def resolve(arguments: Sequence[str]) -> Namespace:
    """The configuration that command-line words give."""
    return configuration.from_arguments(arguments, SHARED, Options)


def check(config: Namespace) -> None:
    """Refuse before anything is written what would only fail after the first epoch."""
    Options(**{name: config[name] for name in Options.__dataclass_fields__})
    trainer, evaluator = Trainer(**config.train.as_dict()), Evaluator(**config.eval.as_dict())
    known = [f"{metric}@{k}" for metric in RANK_METRICS for k in evaluator.ks]
    if trainer.monitor not in known:
        raise unknown("metric in --train.monitor", trainer.monitor, known)
    if config.start != "random" and not issubclass(MODELS[config.model], Recommender):
        raise UserError(f"--start {config.start}: {config.model} has no item embeddings")


def baselines(config: Namespace) -> list[str]:
    """Popularity, and what --baseline names."""
    names = [name.strip() for name in config.baseline.split(",") if name.strip()]
    for name in names:
        if name not in MODELS:
            raise unknown("model in --baseline", name, MODELS)
    return [name for name in dict.fromkeys(["Popularity", *names]) if name != config.model]


FREE = {"train.epochs", "train.patience", "train.max_minutes", "train.save_minutes", "device", "runs", "baseline"}
"""What may be changed when a run goes on; anything else would make it two experiments under one configuration."""


def resolve_resumed(folder: Path, arguments: Sequence[str]) -> Namespace:
    """The configuration of a run that goes on, with the options that may change.

    Raises:
        UserError: no run there, or an option that may not change.
    """
    file = folder / "config.yaml"
    if not file.exists():
        raise UserError(f"--resume {folder}: no run there, it holds no config.yaml")
    before = dict(configuration.flatten(resolve(["--config", str(file)]).as_dict()))
    config = configuration.from_arguments(
        ["--config", str(file), *arguments], SHARED, Options, notify=lambda line: None
    )
    changed = sorted(configuration.flatten(config.as_dict()), key=lambda one: not one[0].endswith(("model", ".name")))
    for key, value in changed:
        if key not in FREE and before.get(key) != value:
            raise UserError(
                f"--resume {folder}: {key.removesuffix('.name')} was {before.get(key)} and cannot become {value}; start a new run, "
                f"or change only {', '.join(sorted(FREE))}"
            )
    return config
