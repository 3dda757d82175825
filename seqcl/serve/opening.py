"""Open a run or a bundle for the server: its model, what is known of its items, and its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqcl.data.cells import rows_of
from seqcl.data.tables import load_table, read_columns, rows_taken
from seqcl.errors import UserError, lacks
from seqcl.experiment import load
from seqcl.experiment.answers import of_bundle, of_run
from seqcl.experiment.keeping import home_of
from seqcl.experiment.run import stored_metrics
from seqcl.models import Blend, Model, Recommender
from seqcl.report.curves import read_history
from seqcl.retrieval import ExactIndex
from seqcl.retrieval.asked import Asked
from seqcl.retrieval.bundle import ITEM_TABLE, MANIFEST, Bundle
from seqcl.serve.catalogue import Catalogue
from seqcl.serve.served import NOTHING, Question, Served

Search = Literal["index", "exact"]
FACTS = ("protocol", "data", "test", "valid", "slices")


def open_place(
    place: Path, *, search: Search = "index", plugins: Sequence[str] = (), table: Path | None = None
) -> Served:
    """Open a run or a bundle, and ask it one question, so that what cannot answer is not served.

    Args:
        place: a run folder, or one that was exported; of the latter every file is compared with its hash.
        search: how a bundle looks for items: through its index, or exactly; a run, or a bundle with memories, looks exactly.
        plugins: files or modules with parts that it needs.
        table: a file with titles, pictures or attributes of items; None: those that the folder has.

    Raises:
        UserError: neither is there, or it cannot be asked.
    """
    bundled = (place / MANIFEST).exists()
    if not bundled and not (place / "config.yaml").exists():
        why = lacks(place, f"config.yaml and no {MANIFEST}")
        raise UserError(f"{place} is neither a run nor one that was exported: {why}")
    served = open_bundle(place, search, plugins, table) if bundled else open_run(place, plugins, table)
    served.answer([Question(history=np.array([1]), barred=NOTHING, k=1)])
    return served


def open_bundle(place: Path, search: Search, plugins: Sequence[str], table: Path | None) -> Served:
    """Open what `seqcl export` wrote."""
    bundle = Bundle(place.resolve(), check=True, plugins=plugins)  # a link may lead elsewhere later
    facts = {name: bundle.manifest.get(name) for name in FACTS}
    known = bundle.folder / ITEM_TABLE if ITEM_TABLE in bundle.manifest["files"] else None
    return Served(
        place=place,
        asked=(asked := of_bundle(bundle, search=search if bundle.memories is None else "exact")),
        vectors=(vectors := bundle.vectors()),
        biased=bundle.scoring.biased,
        lengths=lengths_of(vectors, bundle.scoring.biased),
        catalogue=catalogue_of(asked, table, known),
        sequences=None,
        about={"kind": "bundle", "folder": bundle.folder.name, "model": bundle.manifest.get("model"), **facts},
    )


def open_run(place: Path, plugins: Sequence[str], table: Path | None) -> Served:
    """Open a run, or a baseline in one."""
    run = load(place.resolve(), plugins=plugins)
    asked = of_run(run)
    vectors = vectors_of(asked, run.model)
    biased = isinstance(run.model, Recommender) and run.model.objective.scoring.biased
    home, name = home_of(run.folder), run.experiment.options.model
    figures = run.metrics or stored_metrics(home / "metrics.json")
    if home != run.folder:
        figures = figures | figures.get("baselines", {}).get(name, {})
    history = run.folder / "history.csv"
    facts: dict[str, Any] = {"kind": "run", "folder": run.folder.name, "model": name}
    facts |= {name: figures.get(name) for name in FACTS}
    return Served(
        place=place,
        asked=asked,
        vectors=vectors,
        biased=biased,
        lengths=None if vectors is None else lengths_of(vectors, biased),
        catalogue=catalogue_of(asked, table, run.sequences.item_features),
        sequences=run.sequences,
        about={**facts, "history": read_history(history) if history.is_file() else []},
    )


def vectors_of(asked: Asked, model: Model) -> Tensor | None:
    """The vectors of a run's items, (N, D); of a blend those of its network; None for a model that has none."""
    if isinstance(asked.searcher, ExactIndex):
        return asked.searcher.vectors
    return model.dense().detach() if isinstance(model, Blend) else None


def lengths_of(vectors: Tensor, biased: bool) -> Tensor:
    """The length of each vector without its bias, never 0: (N,)."""
    parts = [(part[:, :-1] if biased else part).norm(dim=1) for part in vectors.split(1 << 16)]
    return torch.cat(parts).clamp(min=1e-12)


def catalogue_of(asked: Asked, table: Path | None, known: Any) -> Catalogue:
    """What is known of the items: from a file that the user named, or from the table of the run or bundle."""
    ids = asked.item_ids
    if table is not None:
        return Catalogue(ids, read_columns(table, np.asarray(ids), "items"))
    frame = load_table(known)
    if frame is None:
        return Catalogue(ids, {})
    rows = rows_of(frame.index, np.asarray(ids), "the table of items")
    return Catalogue(ids, {str(name): rows_taken(frame[name].tolist(), rows) for name in frame.columns})


def plain(value: Any) -> Any:
    """A value as JSON holds it: a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
