"""The one place that knows all rooms: configuration -> data -> model -> training -> evaluation -> run folder."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jsonargparse import Namespace

from seqcl import config as configuration
from seqcl import data
from seqcl.data import Interactions, Loader, Sequences, Split
from seqcl.errors import UserError, unknown
from seqcl.evaluation import RANK_METRICS, Evaluator, Result, evaluate_index
from seqcl.machine import about_machine, library_versions, peak_memory_bytes, pick_device
from seqcl.models import MODELS, Baseline, Recommender
from seqcl.retrieval import ExactIndex, FaissIndex
from seqcl.training import FitResult, Interrupted, Trainer, load_weights
from seqcl.types import SeqBatch, Windows

log = logging.getLogger("seqcl")

Model = Recommender | Baseline


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an experiment is about; the options without a section.

    Args:
        model: the recipe.
        dataset: a name from `seqcl data list`, or the path of a log of interactions.
        baseline: further recipes trained in the same call, separated by commas; they take the options of the parts they share.
        seed: of initial weights, order of batches, dropout and views.
        device: auto takes a GPU if there is one.
        runs: folder in which each run makes a new folder of its own.
    """

    model: str = "CL4Rec"
    dataset: str = "ml-100k"
    baseline: str = ""
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
            duplicates=self.duplicates,
        )

    def split_windows(self, sequences: Sequences) -> Split:
        """Its split."""
        if self.split == "leave_one_out":
            return data.leave_one_out(sequences, max_len=self.max_len, windows=self.windows)
        cuts = {"valid": self.valid, "test": self.test}
        return data.temporal(
            sequences, max_len=self.max_len, windows=self.windows, targets=self.targets, cold=self.cold, **cuts
        )


SHARED = {"data": Preparation, "train": Trainer, "eval": Evaluator}
"""Sections that every model has."""


PACKED = "sequences"
"""Folder in a run that holds the packed log, where that came as a data frame and cannot be found again."""


def resolve(arguments: Sequence[str]) -> Namespace:
    """The configuration that command-line words give."""
    return configuration.from_arguments(arguments, SHARED, Options)


def train(dataset: str | Path | Interactions | Any = "ml-100k", *, progress: bool = True, **values: Any) -> Run:
    """Train and evaluate a model; the keywords are the options of the command line, sections as dictionaries.

    `train(frame, model="CL4Rec", encoder={"dim": 32}, train={"epochs": 5})` learns from a data frame with the columns
    user_id, item_id and, unless its rows are in time order already, timestamp (or other names: data={"user": ...}).

    Raises:
        UserError: an unknown option, a value that does not fit, a log that cannot be read.
    """
    if isinstance(dataset, str | Path):
        return execute(
            configuration.from_mapping({"dataset": str(dataset), **values}, SHARED, Options), progress=progress
        )
    if not isinstance(dataset, Interactions) and not hasattr(dataset, "columns"):
        raise UserError(f"train needs a name, a path, a data frame or Interactions, not a {type(dataset).__name__}")
    name = dataset.name if isinstance(dataset, Interactions) else "frame"
    config = configuration.from_mapping({"dataset": name, **values}, SHARED, Options)
    source = dataset if isinstance(dataset, Interactions) else from_frame(dataset, config.data)
    return execute(config, source, progress=progress)


def from_frame(frame: Any, columns: Namespace) -> Interactions:
    """A data frame whose columns are those asked for, else the usual names."""
    from seqcl.data.columns import choose_columns  # brings pyarrow, which a start from the cache need not wait for

    names = [str(column) for column in frame.columns]
    user, item, time = choose_columns(names, user=columns.user, item=columns.item, time=columns.time, source="frame")
    return Interactions.from_frame(frame, user=user, item=item, time=time)


def execute(
    config: Namespace, source: Interactions | None = None, *, resume: Path | None = None, progress: bool = True
) -> Run:
    """Run a resolved configuration from the log of interactions to the filled run folder."""
    started = time.monotonic()
    device = pick_device(config.device)
    check(config)
    preparation = Preparation(**config.data.as_dict())
    packed = resume / PACKED if resume else None
    if packed is not None and packed.exists():
        sequences = Sequences.load(packed)
    else:
        sequences = preparation.sequences(source or config.dataset)
    split = preparation.split_windows(sequences)
    names = [config.model, *baselines(config)]
    configs = {name: configuration.like(config, name, SHARED, Options) for name in names[1:]}
    configs = {config.model: config, **configs}
    models = {name: build(its, split) for name, its in configs.items()}  # what cannot be built leaves no folder behind
    folder = resume or new_folder(Path(config.runs), f"{config.model}-{sequences.name}")
    try:
        with log_file(folder / "log.txt"):
            if source is not None:
                sequences.save(folder / PACKED)
            log.info("%s on %s, in %s", config.model, sequences, folder)
            outcomes, earlier = {}, 0.0
            for name, its in configs.items():
                where = folder if name == config.model else folder / "baselines" / name
                where.mkdir(parents=True, exist_ok=True)
                write_text(where / "config.yaml", to_yaml(its))
                trial = Trial(config=its, sequences=sequences, split=split, folder=where, device=device)
                spent = time.monotonic() - started if name == config.model else 0.0
                outcomes[name] = trial.run(models.pop(name), resume=resume is not None, spent=spent, progress=progress)
                earlier += outcomes[name].earlier_seconds
            seconds = earlier + time.monotonic() - started
            metrics = summary(config, sequences, split, outcomes, seconds=seconds, device=device)
            write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
            log.info("done in %.1f s", seconds)
    except Interrupted as stop:
        # A baseline is resumed with the run that it belongs to.
        raise Interrupted(re.sub(r"--resume \S+", f"--resume {folder}", str(stop)), stop.checkpoint) from None
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; go on with: --resume {folder}", None) from None
    return Run.load(folder)


def check(config: Namespace) -> None:
    """Refuse before anything is written what would only fail after the first epoch."""
    Options(**{name: config[name] for name in Options.__dataclass_fields__})
    trainer, evaluator = Trainer(**config.train.as_dict()), Evaluator(**config.eval.as_dict())
    known = [f"{metric}@{k}" for metric in RANK_METRICS for k in evaluator.ks]
    if trainer.monitor not in known:
        raise unknown("metric in --train.monitor", trainer.monitor, known)


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
    config = resolve(["--config", str(file), *arguments])
    for key, value in configuration.flatten(config.as_dict()):
        if key not in FREE and before.get(key) != value:
            raise UserError(
                f"--resume {folder}: {key} was {before.get(key)} and cannot become {value}; start a new run, "
                f"or change only {', '.join(sorted(FREE))}"
            )
    return config


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model came to."""

    valid: Result
    test: Result
    fit: FitResult | None  # None for a model that is counted, not trained
    earlier_seconds: float  # of training in processes before this one


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model on one split: build, train, rank, write."""

    config: Namespace
    sequences: Sequences
    split: Split
    folder: Path
    device: torch.device

    def run(self, model: Model, *, resume: bool, spent: float, progress: bool) -> Outcome:
        """Train unless the model is counted, then rank validation and test with the best weights."""
        config = self.config
        model = model.to(self.device)
        fit, earlier = None, 0.0
        if isinstance(model, Recommender):
            trainer = Trainer(**config.train.as_dict())
            began = time.monotonic()
            torch.manual_seed(config.seed)
            fit = trainer.fit(
                model,
                training_batches(self.split, trainer, seed=config.seed, device=self.device),
                validate=lambda: self.rank(model, "valid", lists=False).metrics,
                folder=self.folder,
                identity=identity(self.sequences),
                resume=resume and (self.folder / "checkpoints" / "last.safetensors").exists(),
                device=self.device,
                spent=spent,
                progress=progress,
            )
            earlier = max(0.0, fit.seconds - (time.monotonic() - began))
        outcome = Outcome(
            valid=self.rank(model, "valid"), test=self.rank(model, "test"), fit=fit, earlier_seconds=earlier
        )
        write_ranks(outcome.test, self.sequences, self.folder / "ranks.parquet")
        if fit is not None:
            from seqcl.report import plot_curves

            plot_curves(fit.history, self.folder / "curves.png", monitor=config.train.monitor)
        return outcome

    def rank(self, model: Model, part: Literal["valid", "test"], lists: bool = True) -> Result:
        return rank(model, self.split, part, Evaluator(**self.config.eval.as_dict()), self.device, lists=lists)


def training_batches(split: Split, trainer: Trainer, *, seed: int, device: torch.device) -> Loader:
    """Random rows, not rows of one length, which would weigh a position of a short row more than one of a long row."""
    return Loader(split.train, batch_size=trainer.batch_size, device=device, shuffle_seed=seed, bucket=False)


def build(config: Namespace, split: Split) -> Model:
    """The model of a configuration, with new weights that its seed decides."""
    torch.manual_seed(config.seed)
    recipe = MODELS[config.model]
    return recipe(split.train, **configuration.build_parts(recipe, config))


@torch.no_grad()
def rank(
    model: Model,
    split: Split,
    part: Literal["valid", "test"],
    evaluator: Evaluator,
    device: torch.device,
    *,
    lists: bool,
) -> Result:
    """Metrics of a model on one part of a split; `lists` adds those that need the recommended items."""
    windows = windows_of(split, part)
    model.eval()
    loader = Loader(windows, batch_size=evaluator.batch_size, device=device, targets="last")
    return evaluator(windows, loader, model, split.train.item_counts(), lists=lists)


def windows_of(split: Split, part: str) -> Windows:
    parts = {"valid": split.valid, "test": split.test}
    if part not in parts:
        raise unknown("part", part, parts)
    return parts[part]


def full_protocol(result: Result, sequences: Sequences, split: Split, seed: int) -> dict[str, Any]:
    """All that a figure must be quoted with."""
    prepared = {
        "k_core": sequences.k_core,
        "duplicates": sequences.duplicates,
        "data_fingerprint": sequences.fingerprint,
    }
    return {**split.protocol, **prepared, "seed": seed, **result.protocol}


def identity(sequences: Sequences) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    return {"data_fingerprint": sequences.fingerprint, "num_items": sequences.num_items}


def baselines(config: Namespace) -> list[str]:
    """Popularity, and what --baseline names."""
    names = [name.strip() for name in config.baseline.split(",") if name.strip()]
    for name in names:
        if name not in MODELS:
            raise unknown("model in --baseline", name, MODELS)
    return [name for name in dict.fromkeys(["Popularity", *names]) if name != config.model]


def summary(
    config: Namespace,
    sequences: Sequences,
    split: Split,
    results: dict[str, Outcome],
    *,
    seconds: float,
    device: torch.device,
) -> dict[str, Any]:
    """What metrics.json holds."""
    main = results[config.model]
    rest = {name: result for name, result in results.items() if result is not main}
    return {
        "model": config.model,
        "protocol": full_protocol(main.test, sequences, split, config.seed),
        "data": {
            "name": sequences.name,
            "fingerprint": sequences.fingerprint,
            "users": sequences.num_users,
            "items": sequences.num_items,
            "interactions": sequences.num_interactions,
        },
        "test": main.test.metrics,
        "valid": main.valid.metrics,
        "baselines": {name: {"test": it.test.metrics, "valid": it.valid.metrics} for name, it in rest.items()},
        "training": None
        if main.fit is None
        else {
            "best_epoch": main.fit.best_epoch,
            "epochs": main.fit.epochs,
            "steps": main.fit.steps,
            "seconds": main.fit.seconds,
            "stopped": main.fit.stopped,
        },
        "seed": config.seed,
        "versions": library_versions(),
        "machine": about_machine(device),
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    }


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its numbers, and its model to ask."""

    folder: Path
    config: Namespace
    sequences: Sequences
    split: Split
    model: Model
    metrics: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Run:
        """Read a run folder back; its log of interactions must still be what it was.

        Raises:
            UserError: no run there, or the data changed since.
        """
        folder = Path(folder)
        if not (folder / "config.yaml").exists():
            raise UserError(f"{folder} is no run: it holds no config.yaml")
        config = resolve(["--config", str(folder / "config.yaml")])
        preparation = Preparation(**config.data.as_dict())
        packed = folder / PACKED
        sequences = Sequences.load(packed) if packed.exists() else preparation.sequences(config.dataset)
        split = preparation.split_windows(sequences)
        model = build(config, split).to(pick_device(device))
        if isinstance(model, Recommender):
            load_weights(model, folder / "checkpoints" / "best.safetensors", identity=identity(sequences))
        model.eval()
        results = folder / "metrics.json"
        metrics = json.loads(results.read_text()) if results.exists() else {}
        return cls(folder=folder, config=config, sequences=sequences, split=split, model=model, metrics=metrics)

    def evaluate(self, part: Literal["valid", "test"] = "test") -> Result:
        """Rank again, with the run's protocol."""
        device = next(iter(self.model.state_dict().values())).device
        result = rank(self.model, self.split, part, Evaluator(**self.config.eval.as_dict()), device, lists=True)
        protocol = full_protocol(result, self.sequences, self.split, self.config.seed)
        return replace(result, protocol=protocol)

    def evaluate_index(self, kind: str, part: Literal["valid", "test"] = "test") -> dict[str, Any]:
        """Metrics through a faiss index (flat, ivf, hnsw), what it misses of the exact lists, and its seconds.

        Raises:
            UserError: an unknown index, or a model that does not rank by inner product.
        """
        model, split = self.model, self.split
        if not isinstance(model, Recommender):
            raise UserError(f"{self.config.model} has no vectors, so no index can hold them")
        windows = windows_of(split, part)
        evaluator = Evaluator(**self.config.eval.as_dict())
        with torch.no_grad():
            vectors = model.candidates().float().contiguous()
        index = FaissIndex(vectors, kind=kind)  # type: ignore[arg-type]
        batches = Loader(windows, batch_size=evaluator.batch_size, device=vectors.device, targets="last")
        counts = split.train.item_counts()
        found = evaluate_index(evaluator, index, windows, batches, model, counts, exact=ExactIndex(vectors))
        return {
            "kind": kind,
            "protocol": found.result.protocol,
            "metrics": found.result.metrics,
            "overlap": found.overlap,
            "build_seconds": index.build_seconds,
            "query_seconds": found.query_seconds,
            "exact_query_seconds": found.exact_seconds,
        }

    @torch.no_grad()
    def recommend(
        self, *, user: Any = None, items: Sequence[Any] | None = None, k: int = 10, exclude_seen: bool = True
    ) -> list[tuple[Any, float]]:
        """The k best (raw item id, score) for a known user, or for a history of raw item ids, oldest first.

        Raises:
            UserError: an id that the log does not hold, neither or both of user and items, or k below 1.
        """
        if k < 1:
            raise UserError(f"recommend: k must be 1 or more, not {k}")
        if isinstance(items, str):
            raise UserError(f"recommend: items must be a list of raw ids, not the text {items!r}")
        if (user is None) == (items is None):
            raise UserError("recommend needs a user or items, one of the two")
        history = self.sequences.history(user) if items is None else self.sequences.encode(items)  # (n,)
        newest = torch.as_tensor(np.asarray(history[-self.split.test.max_len :], dtype=np.int64))[None]  # (1, L)
        batch = SeqBatch(newest, torch.tensor([newest.shape[1]]))
        model = self.model
        scores = model.scores(batch) if isinstance(model, Baseline) else model.queries(batch) @ model.candidates().T
        if exclude_seen:
            scores[:, torch.as_tensor(np.unique(history)).long() - 1] = float("-inf")
        best = scores[0].topk(min(k, scores.shape[1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.sequences.item_ids[index], score) for index, score in pairs if score > float("-inf")]


def write_ranks(result: Result, sequences: Sequences, path: Path) -> None:
    """The rank of every test target, with raw ids."""
    import pandas as pd

    columns = {
        "user": sequences.user_ids[result.users],
        "target": sequences.item_ids[result.targets - 1],
        "rank": result.ranks,
    }
    pd.DataFrame(columns).to_parquet(path, index=False)


def new_folder(parent: Path, name: str) -> Path:
    """A folder that was not there: name and time, with a number if two runs start in one second."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = parent / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
            if not folder.exists():
                folder.mkdir()
                return folder
    except OSError as error:
        raise UserError(f"--runs {parent}: {error.strerror}") from None
    raise UserError(f"--runs {parent}: no free name left for {name}-{stamp}")


def write_text(path: Path, text: str) -> None:
    """All of the text or nothing: written beside and renamed."""
    beside = path.with_name(path.name + ".tmp")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def to_yaml(config: Namespace) -> str:
    """The resolved configuration, as --config reads it."""
    return yaml.safe_dump(config.as_dict(), sort_keys=False)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Inside, what seqcl logs is added to the file."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
