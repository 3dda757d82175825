"""What an experiment is told: its options, where they come from, and what is refused before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from seqcl import config as configuration
from seqcl import data
from seqcl.data import Interactions, Sequences, Split
from seqcl.errors import UserError, unknown
from seqcl.evaluation import METRICS, Evaluator
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


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """From a log to training, validation and test windows.

    Args:
        split: leave_one_out (last item tests, the one before validates), or temporal (two global cuts in time).
        windows: training rows: last (the newest max_len items, all positions in one pass), sliding (all of a long row,
            in overlapping pieces), or prefix (a row for every target).
        max_len: longest input, in items.
        k_core: users and items with fewer interactions are dropped, until none is left; 0 keeps all.
        min_length: users with fewer interactions are dropped, together with the k-core.
        duplicates: what happens to a user's repeated item.
        format: atomic, text, csv or parquet; found out from the file if not given.
        user: column of the user, if not found by itself.
        item: column of the item, if not found by itself.
        time: column of the time, if not found by itself.
        valid: share of the interactions, the newest before the test, that validates; temporal split only.
        test: share of the interactions, the newest, that tests; temporal split only.
        targets: each user's first item after a cut, or all of them; temporal split only.
        cold: whether items that training has never seen are predicted too; temporal split only.
    """

    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    windows: Literal["last", "sliding", "prefix"] = "sliding"
    max_len: int = 50
    k_core: int = 0
    min_length: int = 1
    duplicates: Literal["keep", "first", "last"] = "keep"
    format: str | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    valid: float = 0.1
    test: float = 0.1
    targets: Literal["first", "all"] = "first"
    cold: bool = False

    def sequences(self, dataset: str | Interactions) -> Sequences:
        """The packed log."""
        return data.load_sequences(
            dataset,
            format=self.format,
            user=self.user,
            item=self.item,
            time=self.time,
            k_core=self.k_core,
            min_length=self.min_length,
            duplicates=self.duplicates,
        )

    def split_windows(self, sequences: Sequences, *, cold_items: float = 0.0) -> Split:
        """Its split, without a share of the items in training."""
        if self.split == "leave_one_out":
            split = data.leave_one_out(sequences, max_len=self.max_len, windows=self.windows)
        else:
            cuts = {"valid": self.valid, "test": self.test}
            split = data.temporal(
                sequences, max_len=self.max_len, windows=self.windows, targets=self.targets, cold=self.cold, **cuts
            )
        return data.hold_out_items(split, sequences, cold_items)


SHARED = {"data": Preparation, "train": Trainer, "eval": Evaluator}
"""Sections that every model has."""


def resolve(arguments: Sequence[str]) -> Namespace:
    """The configuration that command-line words give."""
    return configuration.from_arguments(arguments, SHARED, Options)


def check(config: Namespace) -> None:
    """Refuse before anything is written what would only fail after the first epoch."""
    Options(**{name: config[name] for name in Options.__dataclass_fields__})
    trainer, evaluator = Trainer(**config.train.as_dict()), Evaluator(**config.eval.as_dict())
    known = [f"{metric}@{k}" for metric in METRICS for k in evaluator.ks]
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
