"""Diagnose a finished run: geometry of its vectors, views, false and hard negatives, popular items, and a map of the items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.augment import Crop, Identity, Insert, Mask, Pair, Reorder, SameTarget, Substitute, View
from seqcl.data import Loader
from seqcl.data.attributes import item_attributes
from seqcl.errors import UserError
from seqcl.evaluation import by_count, hardest_share, quantiles
from seqcl.experiment.folder import write_text
from seqcl.experiment.geometry import geometry_of, item_ids, states_and_targets
from seqcl.experiment.job import training_batches
from seqcl.experiment.maps import map_of
from seqcl.experiment.run import Run
from seqcl.losses import alignment, similarities, uniformity
from seqcl.models import Recommender
from seqcl.objectives import ViewsObjective, rng
from seqcl.objectives.kinship import Rows
from seqcl.training import kept_random_states
from seqcl.types import SeqBatch

OPERATORS: dict[str, Callable[..., View]] = {
    "crop": Crop, "mask": Mask, "reorder": Reorder, "substitute": Substitute, "insert": Insert,
}  # fmt: skip
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
SIZES = (64, 128, 256, 512, 1024, 2048)
TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)
ENCODED = 512
"""Rows that are encoded at once."""
MOST_ROWS = 8192
"""Rows in which false negatives are counted, or one batch of more."""
PARTS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@kept_random_states()
@torch.no_grad()
def diagnose(run: Run, *, rows: int = 1024, map: bool = True, colour: str | None = None) -> dict[str, Any]:
    """Measure what the vectors of a run look like, by topic.

    Args:
        run: a finished run of a trained model.
        rows: training rows, drawn at random, whose views are compared; validation rows whose states are looked at are twice as many.
        map: make a map of the items by t-SNE, which needs the extra `maps`.
        colour: a column of the item table, or a .json file of item -> [attributes], by which the map is coloured; None: popularity.

    Raises:
        UserError: a model that is counted, a number out of range, no such column, or no scikit-learn.
    """
    model = run.model
    if not isinstance(model, Recommender):
        raise UserError(f"{run.experiment.options.model} is counted, not trained: it has no vectors to diagnose")
    if rows < 2:
        raise UserError(f"--rows {rows}: must be 2 or more")
    if colour is not None and not colour.lower().endswith(".json") and run.sequences.tables.items is None:
        raise UserError(
            f"--colour {colour}: {run.sequences.name} has no table of items; give a .json file of item -> [attributes], or leave "
            "--colour out for popularity"
        )
    words = None if colour is None else item_attributes(run.sequences.tables, colour)
    torch.manual_seed(0)
    model.eval()
    ids = item_ids(model)
    items = model.encoder.item_vectors(ids).float()  # (n, D)
    counts = run.split.train.item_counts()[ids.cpu().numpy()]  # (n,)
    states, targets = states_and_targets(model, run.split, run.experiment.eval, run.device, rows=2 * rows)
    batch = some_rows(run, rows)
    found = {
        "model": run.experiment.options.model,
        "data": run.sequences.name,
        "geometry": geometry_of(items, states, targets),
        "views": views_of(model, run, batch),
        "false_negatives": false_negatives(run),
        "hardness": hardness_of(model, batch),
        "popularity": by_count(items, counts),
    }
    if map:
        found["map"] = map_of(items, counts, ids.cpu().numpy(), run.sequences.item_ids, words)
    return found


def training_loader(run: Run) -> Loader:
    """The batches of the run's training."""
    trainer, times = run.experiment.train, run.split.train.times is not None
    return training_batches(run.split, trainer, seed=run.experiment.options.seed, device=run.device, times=times)


def some_rows(run: Run, rows: int) -> SeqBatch:
    """Some training rows, drawn at random without repeats."""
    drawn = np.random.default_rng(0).permutation(len(run.split.train))[:rows]
    return training_loader(run).gather(drawn)


def own_objective(model: Recommender) -> ViewsObjective | None:
    """The first objective of a model that contrasts views; None if there is none."""
    return next((one for one in model.modules() if isinstance(one, ViewsObjective)), None)


def encoded(model: Recommender, batch: SeqBatch) -> Tensor:
    """States of rows, some at a time: (B, D) float32."""
    source, found = batch._replace(targets=None), list[Tensor]()
    for start in range(0, len(batch.lengths), ENCODED):
        found.append(model.encoder.last(source.each(itemgetter(slice(start, start + ENCODED)))).float())
    return torch.cat(found)


def views_of(model: Recommender, run: Run, batch: SeqBatch) -> dict[str, Any]:
    """Cosines of the two views of a row: those that the run contrasts, and two draws of each operator at each rate.

    Returns:
        `own`: alignment, uniformity and cosines of the run's own views, None without any; `rows`: cosines of different rows
        without views; `operators`: a row for each operator and rate; `others`: dropout, and another row with the same target.
    """
    objective = own_objective(model)
    plain = encoded(model, batch)
    shuffled = plain.roll(1, 0)
    found: dict[str, Any] = {"number": len(plain), "rows": quantiles(F.cosine_similarity(plain, shuffled)), "own": None}
    if objective is not None:
        found["own"] = compared(model, batch, objective.views)
    found["operators"] = [
        {"operator": name, "rate": rate, **compared(model, batch, prepared(made(rate=rate), run))}
        for name, made in OPERATORS.items()
        for rate in RATES
    ]
    found["others"] = {"same target": compared(model, batch, prepared(SameTarget(), run, once=True))}
    model.encoder.train()
    found["others"]["dropout"] = compared(model, batch, prepared(Identity(), run))
    model.encoder.eval()
    return found


def prepared(view: View, run: Run, *, once: bool = False) -> Pair:
    """Two draws of a view, or with `once` the row itself and a draw, with what they need of the training windows."""
    pair = Pair(views=[Identity(), view], ordered=True) if once else Pair(views=[view])
    pair.prepare(run.split.train)
    return pair.to(run.device)


def compared(model: Recommender, batch: SeqBatch, pair: Pair) -> dict[str, float]:
    """Compare the states of the first two views of rows: cosines, alignment, and mean uniformity."""
    first, second = (encoded(model, one) for one in pair(batch, rng(batch.items.device))[:2])
    even = (uniformity(first) + uniformity(second)) / 2
    about = {"alignment": float(alignment(first, second)), "uniformity": float(even)}
    return quantiles(F.cosine_similarity(first, second)) | about


def false_negatives(run: Run) -> dict[str, Any]:
    """The share of a row's negatives that are none: rows of one batch with its last target, or of its user.

    Whole batches of the first epoch, at the run's size and at others. `expected` is the share of rows with one target if
    rows were drawn at random: of W rows, n of which have a target, the sum of n (n - 1) over W (W - 1).
    """
    loader, own = training_loader(run), run.experiment.train.batch_size
    targets = loader.items[loader.stop].long()  # (W,), the last target of each row
    number = targets.bincount().double()
    total = len(targets)
    found: dict[str, Any] = {
        "batch_size": own,
        "expected": float((number * (number - 1)).sum() / max(total * (total - 1), 1)),
        "sizes": [],
    }
    order = torch.from_numpy(np.random.default_rng([run.experiment.options.seed, 0]).permutation(total))  # of epoch 0
    for size in sorted({own, *(size for size in SIZES if size <= total)}):
        sums = torch.zeros(4, dtype=torch.float64)
        whole = order[: max(1, total // size) * size].to(run.device)  # a last smaller batch would be another size
        chunks = whole.split(size)[: max(1, MOST_ROWS // size)]
        for chunk in chunks:
            sums += shares(Rows(loader.users[chunk], targets[chunk])).cpu()
        target, user, either, any_row = (sums / len(chunks)).tolist()
        found["sizes"].append(
            {"batch_size": size, "same_target": target, "same_user": user, "either": either, "rows_with_one": any_row}
        )
    return found


def shares(rows: Rows) -> Tensor:
    """Shares in one batch: of pairs with one target, of one user, of either, and of rows with any such other row: (4,)."""
    itself = torch.eye(len(rows.users), dtype=torch.bool, device=rows.users.device)
    target = rows.same_target(rows) & ~itself
    user = (rows.users[:, None] == rows.users) & ~itself
    pairs = max(len(itself) * (len(itself) - 1), 1)
    counts = [kind.sum().double() / pairs for kind in (target, user, target | user)]
    return torch.stack([*counts, (target | user).any(1).double().mean()])


def hardness_of(model: Recommender, batch: SeqBatch) -> dict[str, Any]:
    """Measure the part of InfoNCE's gradient that falls on the hardest negatives of a row, at several temperatures.

    Vectors are those that the run contrasts, its head included, or without contrast the states of rows. Related rows are no negatives.
    """
    objective = own_objective(model)
    vectors = encoded(model, batch)
    if objective is not None:
        vectors = objective.head(vectors)
    rows = Rows.of(batch)
    negatives = ~(rows.like(rows) | torch.eye(len(vectors), dtype=torch.bool, device=vectors.device))
    cosines = similarities(vectors, vectors, "cosine")
    own = getattr(objective, "temperature", None)
    own = None if own is None else float(own)
    wanted = sorted({*TEMPERATURES, *(() if own is None else (own,))})
    share = partial(hardest_share, cosines, negatives, parts=PARTS)
    return {
        "temperature": own,
        "negatives": float(negatives.sum(1).double().mean()),
        "parts": list(PARTS),
        "curves": [{"temperature": one, "shares": share(temperature=one)} for one in wanted],
        "cosines": quantiles(cosines[negatives]),
    }


def told(found: dict[str, Any]) -> Iterator[str]:
    """The main figures, a line for each topic."""
    geometry, views, hard = found["geometry"], found["views"], found["hardness"]
    for name in ("items", "states"):
        one = geometry[name]
        yield (
            f"{name}: effective rank {one['effective_rank']:.1f} of {geometry['dim']}, uniformity {one['uniformity']:.2f}, "
            f"mean cosine {one['mean_cosine']:+.2f}"
        )
    yield f"states and their targets: cosine {geometry['target_cosine']:.2f}, alignment {geometry['target_alignment']:.2f}"
    if views["own"]:
        own = views["own"]
        yield f"views of the run: cosine {own['mean']:.2f}, alignment {own['alignment']:.2f}; different rows: cosine {views['rows']['mean']:+.2f}"
    size = next(
        one for one in found["false_negatives"]["sizes"] if one["batch_size"] == found["false_negatives"]["batch_size"]
    )
    yield f"false negatives in a batch of {size['batch_size']}: {size['either']:.2%} of the pairs, {size['rows_with_one']:.0%} of the rows have one"
    for curve in hard["curves"]:
        if curve["temperature"] == (hard["temperature"] or 0.1):
            place = hard["parts"].index(0.01)
            yield f"hardest 1 % of the negatives: {curve['shares'][place]:.0%} of the gradient at temperature {curve['temperature']:g}"
    correlation = found["popularity"]["correlation"]
    shown = {name: "none" if value is None else f"{value:+.2f}" for name, value in correlation.items()}
    yield f"rank correlation with popularity: norm {shown['norm']}, angle to the mean item {shown['angle']}"
    if "map" in found:
        yield f"map of {len(found['map']['x']):,} items: trustworthiness {found['map']['trustworthiness']:.2f}"


def plain_json(value: Any) -> Any:
    """Arrays as lists, and null for what is no number, for JSON."""
    if isinstance(value, dict):
        return {key: plain_json(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write(found: dict[str, Any], folder: Path) -> Sequence[Path]:
    """Write diagnose.json and a picture for each topic into a folder; give the files.

    Raises:
        UserError: the folder cannot be written.
    """
    from seqcl.report.diagnosis import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    write_text(folder / "diagnose.json", json.dumps(plain_json(found), indent=1) + "\n")
    return [folder / "diagnose.json", *draw(found, folder)]
