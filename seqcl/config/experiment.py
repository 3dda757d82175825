"""The resolved configuration: one frozen, typed object that everything after it is handed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import torch
import yaml

from seqcl import registry
from seqcl.config.settings import KIND_OF, flatten
from seqcl.data import Preparation
from seqcl.encoders.spectral import begun_spectrally
from seqcl.errors import UserError, unknown
from seqcl.evaluation import Evaluator
from seqcl.models import MODELS, Baseline, Recommender
from seqcl.parts import Part
from seqcl.training import TRACKERS, Trainer
from seqcl.types import Windows

Model = Recommender | Baseline
Start = Literal["random", "spectral"]
NewItems = Literal["neighbours", "mean", "features"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options without a section: the model, the data, and where and how to run.

    Args:
        model: the recipe.
        dataset: a name from `seqcl data list`, or the path of a log of interactions.
        baseline: further recipes to train in the same call, separated by commas; they take the options of the parts they share.
        start: first values of the item embeddings: random, or from the users they share in training (spectral).
        warm_start: a run to go on from with new data: its weights are the first ones, rows of the item table found by raw id.
        new_items: first vectors of items that this run does not know: the mean of the items that stand beside them in training
            (neighbours) or of all items (mean); or none but what two towers make of their features (features).
        seed: seed of initial weights, order of batches, dropout and views.
        test: rank the test part at the end; false never looks at its targets, and --resume RUN --test true ranks them later.
        track: where the run is tracked, separated by commas: tensorboard, mlflow, wandb; none for nowhere.
        device: auto takes a GPU if there is one.
        runs: folder in which each run makes a new folder of its own.
        keep_gib: largest packed log in GiB that a run folder holds whole where it cannot be linked to the cache; a larger
            one is kept without its times, unless the split or the views of the run read them.
    """

    model: str = "CL4Rec"
    dataset: str = "ml-100k"
    baseline: str = ""
    start: Start = "random"
    warm_start: str = ""
    new_items: NewItems = "neighbours"
    seed: int = 0
    test: bool = True
    track: str = "tensorboard"
    device: str = "auto"
    runs: str = "runs"
    keep_gib: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed}: must be from 0 to {2**32 - 1}")
        if not self.keep_gib >= 0:
            raise UserError(f"--keep_gib {self.keep_gib}: must be 0 or more")
        for name in self.trackers:
            if name not in TRACKERS:
                raise unknown("tracker in --track", name, [*TRACKERS, "none"])

    @property
    def trackers(self) -> list[str]:
        """The names in --track."""
        names = [name.strip() for name in self.track.split(",")]
        return list(dict.fromkeys(name for name in names if name not in ("", "none")))

    @property
    def baselines(self) -> list[str]:
        """Popularity, and the recipes that --baseline names.

        Raises:
            UserError: there is no such recipe.
        """
        names = [name.strip() for name in self.baseline.split(",") if name.strip()]
        for name in names:
            if name not in MODELS:
                raise UserError(f"{unknown('model in --baseline', name, MODELS)}, or one that --plugin brings")
        return [name for name in dict.fromkeys(["Popularity", *names]) if name != self.model]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model's class and its parts, each with all of its options."""

    name: str
    model: type[Any]
    parts: Mapping[str, Part]
    chosen: Mapping[str, str]  # the name of the component, for the sections where one can be chosen

    @property
    def trained(self) -> bool:
        """True if the model is trained, false if it is counted."""
        return issubclass(self.model, Recommender)

    @property
    def after_training(self) -> Sequence[str]:
        """The sections that are read once the model is trained, so that a run may go on with others."""
        return self.model.after_training if self.trained else ()

    def build(self, train: Windows, *, start: Start = "random") -> Model:
        """Make the model, with new weights from torch's random state.

        Args:
            train: the training windows.
            start: first values of the item embeddings.
        """
        parts = dict(self.parts)
        if start == "spectral" and "encoder" in parts:
            parts["encoder"] = Part(begun_spectrally(parts["encoder"], train))
        return self.model(train, **parts)

    def values(self) -> dict[str, dict[str, Any]]:
        """The options of every part, by section."""
        return {
            section: ({"name": self.chosen[section]} if section in self.chosen else {}) | part.options
            for section, part in self.parts.items()
        }

    def needs(self) -> Iterator[tuple[str, str, str]]:
        """Kind, name and source of every part that is not ours."""
        names = {"model": [self.name], "loss": [str(part.options.get("loss")) for part in self.parts.values()]}
        for section, name in self.chosen.items():
            names.setdefault(KIND_OF[section], []).append(name)
        for kind, found in names.items():
            for name in found:
                source = registry.TABLES[kind].source_of(name)
                if source is not None:
                    yield kind, name, source


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that a run is told: options, data, training, evaluation, and the recipe with its parts."""

    options: Options
    data: Preparation
    train: Trainer
    eval: Evaluator
    recipe: Recipe
    given: frozenset[str] = field(
        default=frozenset(), compare=False, repr=False
    )  # names of the options that were given

    def __post_init__(self) -> None:
        known = [f"{metric}@{k}" for metric in registry.TABLES["metric"] for k in self.eval.ks]
        if self.train.monitor not in known:
            raise unknown("metric in --train.monitor", self.train.monitor, known)
        if self.options.start != "random" and not self.recipe.trained:
            raise UserError(f"--start {self.options.start}: {self.options.model} has no item embeddings")
        if self.options.warm_start and not self.recipe.trained:
            raise UserError(f"--warm_start {self.options.warm_start}: {self.options.model} is counted, not trained")
        if self.options.warm_start and self.options.start != "random":
            raise UserError(f"--start {self.options.start}: the first item embeddings are those of --warm_start")

    def needs(self) -> Iterator[tuple[str, str, str]]:
        """Kind, name and source of every part that is not ours: those of the recipe, and the metric that training watches."""
        yield from self.recipe.needs()
        metric = self.train.monitor.partition("@")[0]
        source = registry.TABLES["metric"].source_of(metric)
        if source is not None:
            yield "metric", metric, source

    def build(self, train: Windows, *, fresh: bool = True) -> Model:
        """Make the model, with weights that the seed decides.

        Args:
            train: the training windows.
            fresh: false where other weights will be read into the model, so that a costly start is left out.
        """
        torch.manual_seed(self.options.seed)
        return self.recipe.build(train, start=self.options.start if fresh else "random")

    def values(self) -> dict[str, Any]:
        """All options, nested by section, as a YAML file has them."""
        sections = {"data": self.data, "train": self.train, "eval": self.eval}
        shared = {name: as_dict(section) for name, section in sections.items()}
        return {**as_dict(self.options), **self.recipe.values(), **shared}

    @cached_property
    def flat(self) -> dict[str, Any]:
        """All options by dotted name."""
        return dict(flatten(self.values()))

    def to_yaml(self) -> str:
        """The configuration as `--config` reads it."""
        return yaml.safe_dump(self.values(), sort_keys=False, allow_unicode=True)


def as_dict(section: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    return {field.name: getattr(section, field.name) for field in fields(section)}
