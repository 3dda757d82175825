"""A finished run: its numbers, and its model to ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqcl import config
from seqcl.config import Experiment, Model
from seqcl.data import Sequences, Split
from seqcl.data.raw_ids import check_known, places_of
from seqcl.errors import UserError, unknown
from seqcl.evaluation import Questions, Result
from seqcl.experiment import blended
from seqcl.experiment.folder import log
from seqcl.experiment.histories import of_rows
from seqcl.experiment.indexes import measure, sweep, write_comparison
from seqcl.experiment.keeping import check_counted, home_of, packed_log, stored_metrics, with_kept_files
from seqcl.experiment.ranking import (
    Part,
    full_protocol,
    identity,
    queries_of,
    rank,
    slices_of,
    some_queries,
    windows_of,
)
from seqcl.experiment.warm import start_of
from seqcl.machine import pick_device
from seqcl.models import Blend, Recommender
from seqcl.plugins import load_all
from seqcl.retrieval import KINDS
from seqcl.retrieval.asked import Asked, Recommended, about_allowed, allowed_items, check_length, exact_index
from seqcl.training import kept_random_states, load_weights


def load(folder: str | Path, *, device: str = "cpu", plugins: Sequence[str] = ()) -> Run:
    """Read a run folder back: the folder of a run, or of a baseline in it.

    Args:
        folder: the run.
        device: where the model goes.
        plugins: files or modules with parts of your own that the run needs; nothing is imported because the folder says so.

    Raises:
        UserError: no run there, a plugin that it needs is not given, its packed log is damaged; or it keeps none, as in
            version 0.1.0, and its data changed since.
    """
    return Run.load(folder, device=device, plugins=plugins)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    folder: Path
    experiment: Experiment
    sequences: Sequences
    split: Split
    model: Model
    metrics: dict[str, Any]
    new_items: Path | None = None  # the table that made the vectors of items without interactions

    @classmethod
    @kept_random_states()
    def load(
        cls, folder: str | Path, *, device: str = "cpu", plugins: Sequence[str] = (), counted: Model | None = None
    ) -> Run:
        """Read a run folder back, as `seqcl.load` does; a model that was counted just now is not counted again."""
        folder = Path(folder)
        load_all(plugins)
        experiment = config.of_run(folder)
        sequences = packed_log(experiment, folder)
        split = experiment.data.split_windows(sequences)
        if not experiment.recipe.trained:
            check_counted(folder, sequences)
        model = counted or with_kept_files(experiment, folder).build(split.train, fresh=False)
        model = model.to(pick_device(device))
        if isinstance(model, Recommender):
            about = identity(sequences) | model.identity
            load_weights(model, folder / "checkpoints" / "best.safetensors", identity=about)
        if isinstance(model, Blend):
            blended.restore(model, folder, about, experiment)
        model.eval()
        metrics = stored_metrics(folder / "metrics.json")
        return cls(folder=folder, experiment=experiment, sequences=sequences, split=split, model=model, metrics=metrics)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(iter(self.model.state_dict().values())).device

    def evaluate(self, part: Part = "test", *, exclude_seen: bool | None = None) -> Result:
        """Rank again with the run's protocol, or with another rule for a user's earlier items, under which it was not chosen."""
        seen = self.experiment.eval.exclude_seen if exclude_seen is None else exclude_seen
        result = rank(self.model, self.split, part, replace(self.experiment.eval, exclude_seen=seen), self.device)
        protocol = full_protocol(result, self.sequences, self.split, self.experiment.options.seed)
        return replace(result, protocol=protocol | start_of(self.folder))

    def slices(self, result: Result, part: Part = "test") -> dict[str, Any]:
        """Metrics of a result of `evaluate(part)`, by history length and target popularity, with the users in each slice."""
        return slices_of(result, self.split, part, self.experiment.eval)

    def evaluate_index(self, kind: str, part: Part = "test", *, recall: float | None = None) -> dict[str, Any]:
        """Metrics through a faiss index (flat, ivf, hnsw, ivfpq), its overlap with the exact lists, and its seconds.

        Args:
            kind: of the index.
            part: valid or test.
            recall: share of the exact lists for which the width of search is chosen, as `export` does; None: the
                width that the index has by itself.

        Raises:
            UserError: an unknown index, or one that cannot find that share, or a model that does not rank by inner product.
        """
        if kind not in KINDS:
            raise unknown("index", kind, KINDS)
        asked = self._asked(part)
        if recall is None:
            return measure(kind, asked)
        assert isinstance(self.model, Recommender)  # it has vectors
        with torch.no_grad():
            queries = some_queries(self.model, self.sequences, max_len=self.split.test.max_len, device=self.device)
        return measure(kind, asked, (queries, recall))

    def compare_indexes(self, part: Part = "test") -> list[dict[str, Any]]:
        """Compare every kind of index at several widths of search, a row each; also as indexes-PART.csv and indexes-PART.png.

        Raises:
            UserError: a model that does not rank by inner product.
        """
        rows = sweep(self._asked(part), part)
        title = f"{self.experiment.options.model} on {self.sequences.name}, {part}"
        write_comparison(rows, self.folder, part, title=title)
        return rows

    def _asked(self, part: Part) -> Questions:
        """The queries of one part of the split, and the vectors of the items."""
        windows, evaluator = windows_of(self.split, part), self.experiment.eval
        batches = queries_of(windows, evaluator, self.device)
        return Questions.encode(evaluator, windows, batches, self.model, self.split.train.item_counts())

    @torch.no_grad()
    def export(
        self, folder: str | Path, *, index: str = "hnsw", recall: float | None = None, onnx: bool = False
    ) -> Path:
        """Write a folder that recommends without the log: item vectors, an index, the query encoder, a manifest with hashes.

        Args:
            folder: a new folder.
            index: flat, ivf, hnsw or ivfpq.
            recall: share of the exact list, as long as the longest of `eval.ks`, that the index finds; its width of
                search is chosen for it on histories of the log. None: 0.95.
            onnx: also write the query encoder as an ONNX graph, compared with torch (the extra `onnx`).

        Raises:
            UserError: a model that does not rank by inner product, an unknown index or one that cannot find that share, a
                folder that is there already, or `onnx` without its packages.
        """
        from seqcl.retrieval.bundle import write_bundle
        from seqcl.retrieval.promise import RECALL
        from seqcl.retrieval.query import Query

        model, recipe = self.model, self.experiment.recipe
        if not isinstance(model, Recommender):
            raise UserError(f"{recipe.name} has no vectors, so there is nothing to export")
        if not self.metrics and home_of(self.folder) == self.folder:
            log.warning("%s has no figures, so its bundle has none: it has not ended, or lost them", self.folder)
        exported = model.encoder.exported()
        query = Query.of(
            exported,
            model.objective.scoring,
            encoder=recipe.chosen["encoder"],
            options=recipe.parts["encoder"].options,
            max_len=self.split.test.max_len,
        )
        about = {key: self.metrics.get(key) for key in ("protocol", "data", "test", "versions")}
        write_bundle(
            Path(folder),
            query=query,
            weights=exported.weights,
            vectors=model.vector_pieces(),
            item_ids=np.asarray(self.sequences.item_ids),
            kind=index,
            queries=some_queries(model, self.sequences, max_len=self.split.test.max_len, device=self.device),
            recall=RECALL if recall is None else recall,
            k=self.experiment.eval.ks[-1],
            onnx=onnx,
            memories=model.memories if isinstance(model, Blend) else None,
            table=self.sequences.item_features,
            about={"model": recipe.name, **about},
        )
        return Path(folder)

    def recommend(
        self,
        *,
        user: Any = None,
        items: Sequence[Any] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allowed: Sequence[Any] | None = None,
    ) -> Recommended:
        """The k best (raw item id, score) for a known user, or for a history of raw item ids, oldest first.

        Items that the log does not hold are left out, and a warning names them.

        Args:
            user: raw id of a user of the log.
            items: a history, instead.
            k: length of the list; it is shorter where fewer items are left.
            exclude_seen: leave out the items of the history.
            allowed: raw ids of the items that may be recommended, such as those in stock; None: all.

        Raises:
            UserError: the log holds no such user or none of the items, neither or both are given, or k is below 1.
        """
        if (user is None) == (items is None):
            raise UserError("recommend needs a user or items, one of the two")
        if items is None:
            self.sequences.find_user(user)
            return self.recommend_many(users=[user], k=k, exclude_seen=exclude_seen, allowed=allowed)[0]
        return self.recommend_many(histories=[items], k=k, exclude_seen=exclude_seen, allowed=allowed)[0]

    def recommend_many(
        self,
        *,
        users: Sequence[Any] | None = None,
        histories: Sequence[Sequence[Any]] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allowed: Sequence[Any] | None = None,
    ) -> list[Recommended]:
        """The list of `recommend` for each of many users or histories, in their order, all at once.

        Users and items that the log does not hold are named in a warning; who has no other item gets an empty list.

        Raises:
            UserError: none of the users or items is known, neither or both are given, or k is below 1.
        """
        check_length(k)
        if users is None and histories is not None:
            return self.asked(allowed).of_items(histories, k=k, exclude_seen=exclude_seen)
        if users is None or histories is not None:
            raise UserError("recommend_many needs users or histories, one of the two")
        if isinstance(users, str | bytes) or not isinstance(users, Iterable):
            raise UserError(f"recommend: users must be a list of raw ids, not {users!r}")
        users = list(users)
        rows = places_of(users, self.sequences.user_ids)  # (n,)
        check_known(rows, users, self.sequences.user_ids, "user", self.sequences.name)
        there = np.flatnonzero(rows >= 0)
        own, items, offsets = of_rows(self.sequences, rows[there]).part(0, len(there))
        asked = self.asked(allowed)
        found = asked.named(*asked.lists(items, offsets, own, k=k, exclude_seen=exclude_seen))
        lists = dict(zip(there.tolist(), found, strict=True))
        return [lists.get(number, []) for number in range(len(rows))]

    def with_new_items(self, table: str | Path | None = None) -> Run:
        """The run with the items of its tables that nobody has had yet; see `seqcl.experiment.new_items`.

        Args:
            table: today's table of items, with those that the run knows; None: the tables that the run keeps.

        Raises:
            UserError: the model knows no features of items, or the table has no new one.
        """
        from seqcl.experiment.new_items import with_new_items

        return with_new_items(self, table)

    def asked(self, allowed: Sequence[Any] | None = None) -> Asked:
        """The model, to be asked for many lists; one with vectors is searched exactly.

        Args:
            allowed: raw ids of the items that may be recommended; None: all.

        Raises:
            UserError: none of these items is known, or the list is empty.
        """
        only = allowed_items(allowed, self.sequences.item_ids, self.sequences.name)
        with torch.no_grad():
            vectors = self.model.vectors()
        size = self.experiment.eval.batch_size
        return Asked(
            name=self.sequences.name,
            rows=self.model.scores if vectors is None else self.model.queries,
            searcher=exact_index(vectors, only),
            gathered=size if vectors is None else None,
            item_ids=self.sequences.item_ids,
            max_len=self.split.test.max_len,
            batch_size=size,
            device=self.device,
            about=about_allowed(only),
        )
