"""From a configuration to a filled run folder, and from a run folder back to a model that can be asked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import Namespace

from seqcl import config as configuration
from seqcl.data import Interactions, Loader, Sequences, Split
from seqcl.encoders import TwoTower
from seqcl.errors import UserError, unknown
from seqcl.evaluation import Evaluator, Questions, Result
from seqcl.experiment.folder import PACKED, early_log, log, log_file, new_folder, to_yaml, write_text
from seqcl.experiment.indexes import measure, sweep, write_comparison
from seqcl.experiment.options import SHARED, Options, Preparation, baselines, check, resolve
from seqcl.experiment.trial import Model, Outcome, Trial, build, full_protocol, identity, rank, slices_of, windows_of
from seqcl.machine import about_machine, library_versions, peak_memory_bytes, pick_device
from seqcl.models import MODELS, Baseline, Recommender
from seqcl.objectives import NextItem
from seqcl.retrieval import KINDS
from seqcl.training import Interrupted, last_checkpoint, load_weights
from seqcl.types import SeqBatch


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
    from seqcl.data.columns import choose_columns

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
    split = replace(preparation, cold_items=config.eval.cold_items or preparation.cold_items).split_windows(sequences)
    names = [config.model, *baselines(config)]
    configs = {name: configuration.like(config, name, SHARED, Options) for name in names[1:]}
    configs = {config.model: config, **configs}
    # What cannot be built leaves no folder behind; baselines are not kept, or the model's peak of memory would hold them.
    begun = resume is not None and last_checkpoint(resume).exists()
    with early_log() as early:
        models = {config.model: build(config, split, fresh=False) if begun else buildable(config, split)}
        for name in names[1:]:
            if issubclass(MODELS[name], Recommender):  # counting cannot fail
                buildable(configs[name], split)
    folder = resume or new_folder(Path(config.runs), f"{config.model}-{sequences.name}")
    try:
        with log_file(folder / "log.txt", early):
            if source is not None:
                sequences.save(folder / PACKED)
            log.info("%s on %s, in %s", config.model, sequences, folder)
            outcomes, earlier = {}, 0.0
            peak: int | None = None
            for name, its in configs.items():
                where = folder if name == config.model else folder / "baselines" / name
                where.mkdir(parents=True, exist_ok=True)
                write_text(where / "config.yaml", to_yaml(its))
                trial = Trial(config=its, sequences=sequences, split=split, folder=where, device=device)
                main = name == config.model
                spent = time.monotonic() - started if main else 0.0
                outcomes[name] = trial.run(
                    models.pop(name) if main else build(its, split),
                    resume=resume is not None,
                    spent=spent,
                    progress=progress,
                )
                earlier += outcomes[name].earlier_seconds
                if main:
                    peak = peak_memory_bytes()  # the model comes first, before any baseline adds to it
            seconds = earlier + time.monotonic() - started
            metrics = summary(config, sequences, split, outcomes, seconds=seconds, peak=peak, device=device)
            write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
            log.info("done in %.1f s", seconds)
    except Interrupted as stop:
        # A baseline is resumed with the run that it belongs to.
        raise Interrupted(re.sub(r"--resume \S+", f"--resume {folder}", str(stop)), stop.checkpoint) from None
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; go on with: --resume {folder}", None) from None
    return Run.load(folder)


def buildable(config: Namespace, split: Split) -> Model:
    """The model of a configuration, after what it would be pre-trained with was made too."""
    model = build(config, split)
    if isinstance(model, Recommender):
        model.pretraining()
    return model


def summary(
    config: Namespace,
    sequences: Sequences,
    split: Split,
    results: dict[str, Outcome],
    *,
    seconds: float,
    peak: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """What metrics.json holds; `peak` is the largest resident size of the process until the model itself was done."""
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
        "slices": main.slices,
        "baselines": {
            name: {"test": it.test.metrics, "valid": it.valid.metrics, "slices": it.slices} for name, it in rest.items()
        },
        "training": None
        if main.fit is None
        else {
            "best_epoch": main.fit.best_epoch,
            "epochs": main.fit.epochs,
            "steps": main.fit.steps,
            "seconds": main.fit.seconds,
            "stopped": main.fit.stopped,
            "pretraining": main.pretraining,
        },
        "seed": config.seed,
        "versions": library_versions(),
        "machine": about_machine(device),
        "seconds": seconds,
        "peak_memory_bytes": peak,
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
        split = replace(preparation, cold_items=config.eval.cold_items or preparation.cold_items).split_windows(
            sequences
        )
        model = build(config, split, fresh=False).to(pick_device(device))
        if isinstance(model, Recommender):
            about = identity(sequences) | model.identity
            load_weights(model, folder / "checkpoints" / "best.safetensors", identity=about)
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

    def slices(self, result: Result, part: Literal["valid", "test"] = "test") -> dict[str, Any]:
        """Metrics of what `evaluate(part)` gave, by history length and by target popularity, with the users in each."""
        return slices_of(result, self.split, part, self.config.eval.ks)

    def evaluate_index(self, kind: str, part: Literal["valid", "test"] = "test") -> dict[str, Any]:
        """Metrics through a faiss index (flat, ivf, hnsw, ivfpq), what it misses of the exact lists, and its seconds.

        Raises:
            UserError: an unknown index, or a model that does not rank by inner product.
        """
        if kind not in KINDS:
            raise unknown("index", kind, KINDS)
        return measure(kind, *self._asked(part))

    def compare_indexes(self, part: Literal["valid", "test"] = "test") -> list[dict[str, Any]]:
        """Every kind of index at several widths of search, a row each; also written as indexes-PART.csv and indexes-PART.png.

        Raises:
            UserError: a model that does not rank by inner product.
        """
        rows = sweep(*self._asked(part), part)
        write_comparison(rows, self.folder, part, title=f"{self.config.model} on {self.sequences.name}, {part}")
        return rows

    def _asked(self, part: Literal["valid", "test"]) -> tuple[torch.Tensor, Questions]:
        """Vectors of the items, and what a part of the split asks of them."""
        model, split = self.model, self.split
        if not isinstance(model, Recommender):
            raise UserError(f"{self.config.model} has no vectors, so no index can hold them")
        evaluator, windows = Evaluator(**self.config.eval.as_dict()), windows_of(split, part)
        with torch.no_grad():
            vectors = model.candidates().float().contiguous()
        batches = Loader(windows, batch_size=evaluator.batch_size, device=vectors.device, targets="last")
        return vectors, Questions.encode(evaluator, windows, batches, model, split.train.item_counts())

    @torch.no_grad()
    def export(self, folder: str | Path, *, index: str = "hnsw", onnx: bool = False) -> Path:
        """Write a folder that recommends without the log: item vectors, an index, the query encoder, a manifest with hashes.

        With `onnx` the query encoder is there as an ONNX graph too, compared with torch (the extra `onnx`).

        Raises:
            UserError: a model that does not rank by inner product, an unknown index, something is there already, or `onnx`
                without what it needs.
        """
        from seqcl.retrieval.bundle import Query, columns_of_users, write_bundle

        model, config = self.model, self.config
        if not isinstance(model, Recommender):
            raise UserError(f"{config.model} has no vectors, so there is nothing to export")
        encoder: Any = model.encoder
        towers, weights = None, encoder.state_dict()
        if isinstance(encoder, TwoTower):
            weights["history.table.weight"] = encoder.reading_table()
            towers = {"options": config.towers.as_dict(), "users": columns_of_users(encoder.users_known)}
        history = encoder.history if towers else encoder
        options = config.encoder.as_dict()
        first: Any = model.objective.first
        rank: NextItem = first if isinstance(first, NextItem) else first.next_item
        query = Query(
            encoder=options.pop("name"),
            options=options,
            longest=history.max_len,
            max_len=self.split.test.max_len,
            num_items=history.num_items,
            similarity=rank.similarity,
            temperature=rank.temperature,
            bias=rank.biased,
            towers=towers,
        )
        write_bundle(
            Path(folder),
            query=query,
            weights=weights,
            vectors=model.candidates().float().cpu().contiguous(),
            item_ids=np.asarray(self.sequences.item_ids),
            kind=index,
            onnx=onnx,
            about={
                "model": config.model,
                **{key: self.metrics.get(key) for key in ("protocol", "data", "test", "versions")},
            },
        )
        return Path(folder)

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
        model = self.model
        device = next(iter(model.state_dict().values())).device
        newest = torch.as_tensor(np.asarray(history[-self.split.test.max_len :], dtype=np.int64), device=device)[
            None
        ]  # (1, L)
        who = None if user is None else torch.tensor([self.sequences.find_user(user)], device=device)  # (1,)
        batch = SeqBatch(newest, torch.tensor([newest.shape[1]], device=device), users=who)
        scores = model.scores(batch) if isinstance(model, Baseline) else model.queries(batch) @ model.candidates().T
        if exclude_seen:
            scores[:, torch.as_tensor(np.unique(history), device=device).long() - 1] = float("-inf")
        best = scores[0].topk(min(k, scores.shape[1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.sequences.item_ids[index], score) for index, score in pairs if score > float("-inf")]
