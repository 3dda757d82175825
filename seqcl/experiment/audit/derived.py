"""Checks of what a model takes from its training log: correlations, indexes, chances of negatives, statistics of features."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import log1p, sqrt
from typing import Any

import numpy as np
from torch import Tensor

from seqcl import encoders
from seqcl.augment import Correlated, Pair, SameTarget
from seqcl.config import Experiment, Model
from seqcl.data.cells import words_in
from seqcl.data.features import raw_cells
from seqcl.data.schema import LARGEST, to_numbers
from seqcl.experiment.audit.plain import Plain
from seqcl.experiment.audit.verdict import Broken, Unused
from seqcl.experiment.audit.windows import refuse_other_counts
from seqcl.losses import Negatives
from seqcl.models.item_knn import ItemKNN
from seqcl.models.popularity import Popularity
from seqcl.objectives import BatchSoftmax
from seqcl.types import Features, Tables

SOME = 100
"""Items, drawn at random, whose correlations are computed anew."""


def check_correlations(model: Model, plain: Plain) -> str:
    """Compute the ItemCF-IUF scores of some items anew, pair by pair; the tables hold the best of them."""
    tables = list[tuple[str, Tensor, Tensor | None]]()
    for name, pair in of_kind(model, Pair):
        if pair.counted is not None:
            tables.append((f"{name} (co-occurrence)", *pair.counted))
        if pair.neighbours_needed and pair.correlation == "cooccurrence":
            views = of_kind(pair, Correlated)
            tables += [(f"{name}.{inner}", view.table(), None) for inner, view in views]
    if isinstance(model, ItemKNN):
        tables.append(("neighbours", model.neighbours, model.weights))
    if not tables:
        raise Unused("nothing reads which items come together")
    scores = Correlations(plain)
    some = np.random.default_rng(0).permutation(np.arange(1, plain.num_items + 1))[:SOME].tolist()
    for item in some:
        expected = scores.of(item)
        for name, ids, weights in tables:
            refuse_other_neighbours(name, item, ids[item].tolist(), weights, expected)
    told = ", ".join(name for name, _, _ in tables[:3])
    return f"the neighbours of {len(some)} items, computed pair by pair from training; tables: {told}"


class Correlations:
    """ItemCF-IUF from the rows that training may know, one pair after another (CoSeRec, arXiv 2108.06479, eq. 7)."""

    def __init__(self, plain: Plain) -> None:
        self.had = [set(row) for row in plain.train]
        self.users = defaultdict(list)
        for user, items in enumerate(self.had):
            for item in items:
                self.users[item].append(user)

    def of(self, item: int) -> dict[int, float]:
        """The score of every item that shares a user with this one."""
        found: defaultdict[int, float] = defaultdict(float)
        for user in self.users[item]:
            for other in self.had[user] - {item}:
                found[other] += 1 / log1p(len(self.had[user]))
        return {other: sum / sqrt(len(self.users[item]) * len(self.users[other])) for other, sum in found.items()}


def refuse_other_neighbours(
    name: str, item: int, ids: list[int], weights: Tensor | None, expected: dict[int, float]
) -> None:
    """Refuse a row of a table of neighbours that does not hold the best ones, best first, each with its score.

    A row with fewer neighbours than places has its best one again, with score 0; a row without any has the item itself.
    """
    best = sorted(expected.values(), reverse=True)[: len(ids)]
    filler = ids[0] if best else item
    found = [expected.get(other, 0.0) for other in ids[: len(best)]]
    fits = np.allclose(found, best, rtol=1e-4) and all(other == filler for other in ids[len(best) :])
    if fits and weights is not None:
        fits = np.allclose(weights[item].tolist(), best + [0.0] * (len(ids) - len(best)), rtol=1e-4, atol=1e-6)
    if not fits:
        raise Broken(f"{name}: the neighbours of item {item} are not those of the training interactions")


def check_same_target(model: Model, plain: Plain, learned: Counter[int]) -> str:
    """Read every place of the same-target index: the item there is its target, and training may know it."""
    found = of_kind(model, SameTarget)
    if not found:
        raise Unused("no view takes rows with the same target")
    users = len(plain.rows)
    for name, view in found:
        begins, packed = view.offsets.tolist(), view.packed
        for key, stop in zip(view.keys.tolist(), view.stops.tolist(), strict=True):
            item, user = divmod(key, users)
            place = stop - begins[user]
            whole = plain.train[user]
            if not 0 < place < len(whole) or whole[place] != item or packed[stop] != item:
                raise Broken(
                    f"{name}: it offers item {item} at place {place} of user {user}, of which training may know {len(whole)}"
                )
        if Counter((view.keys // users).tolist()) != learned:
            raise Broken(f"{name}: it holds other targets than the training rows")
    return f"all {len(view.keys):,} places are training targets, each once"


def check_chances(model: Model, plain: Plain, learned: Counter[int]) -> str:
    """Compare the chances by which negatives are drawn or corrected with counts of what training may know."""
    told = []
    counts = plain.counted()
    for name, drawn in of_kind(model, Negatives):
        if drawn.sampling == "popularity":
            wanted = (counts[1:-1] + 1) / (counts[1:-1] + 1).sum()
            found = np.diff(drawn.cumulative.tolist(), prepend=0.0)
            refuse_other_chances(name, found, wanted)
            told.append(name)
    for name, batch in of_kind(model, BatchSoftmax):
        wanted = np.zeros(plain.num_items + 2)
        for item, count in learned.items():
            wanted[item] = count / sum(learned.values())
        refuse_other_chances(name, np.array(batch.chance.tolist())[1:-1], wanted[1:-1])
        if batch.catalogue.tolist() != sorted(plain.counts):
            raise Broken(f"{name}: it draws from other items than those that training knows")
        told.append(name)
    if not told:
        raise Unused("negatives are drawn by no count")
    return f"chances of {plain.num_items:,} items, from their training counts ({', '.join(told)})"


def refuse_other_chances(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse chances (N,) of items that are not those wanted."""
    other = np.flatnonzero(~np.isclose(found, wanted, rtol=1e-6, atol=1e-12))
    if len(other):
        first = int(other[0])
        raise Broken(
            f"{name}: {len(other):,} items have another chance than their training counts give: "
            f"item {first + 1} {found[first]:.3g}, not {wanted[first]:.3g}"
        )


def check_features(experiment: Experiment, model: Model, plain: Plain, tables: Tables) -> str:
    """Take means, deviations and words of every feature anew, from the rows of items and users that training knows."""
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, encoders.TwoTower):
        raise Unused("the model reads no features of items or users")
    options = experiment.recipe.parts["features"].options
    refuse_other_counts("known", encoder.trained.cpu().numpy().astype(int), (plain.counted() > 0).astype(int))
    items = [place for place in range(plain.num_items) if plain.counts[place + 1]]
    users = [user for user, row in enumerate(plain.train) if len(row) > 1]
    told = 0
    for which, known, features, before in (
        ("items", items, encoder.items_known, 1),
        ("users", users, encoder.users_known, 0),
    ):
        cells = raw_cells(tables, which, options[which], table=options[f"{which[:-1]}_table"])[0]
        told += check_columns(cells, known, features, before, options["min_count"])
    if not told:
        raise Unused("the features have neither numbers nor words, of which anything is taken")
    return f"means, deviations and words of {told} columns, from the {len(items):,} items and {len(users):,} users of training"


def check_columns(cells: dict[str, Any], known: list[int], features: Features, before: int, least: int) -> int:
    """Compare encoded columns with what the known rows give; the number of columns."""
    for name, values in features.numbers.items():
        numbers = to_numbers(cells[name])  # (R,)
        of_known = [number for number in numbers[known].tolist() if number == number]
        if not of_known:
            raise Broken(f"column {name!r}: no training row has a number, so it can have no mean")
        mean = sum(of_known) / len(of_known)
        deviation = sqrt(sum((number - mean) ** 2 for number in of_known) / len(of_known))
        if deviation <= 1e-6 * max(1.0, abs(mean)):
            deviation = 1.0
        wanted = np.clip((numbers - mean) / deviation, -LARGEST, LARGEST)
        if not np.allclose(values[before : before + len(wanted)], wanted, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise Broken(
                f"column {name!r}: its mean or deviation is not that of the training rows ({mean:.4g}, {deviation:.4g})"
            )
    for name, bag in features.bags.items():
        count: Counter[str] = Counter()
        for row in known:
            count.update(set(words_in(cells[name][row])))
        words = {word for word, rows in count.items() if rows >= least}
        if strange := sorted(words.symmetric_difference(bag.names)):
            raise Broken(
                f"column {name!r}: {len(strange)} words are kept or dropped by other rows than those of training, such as {strange[0]!r}"
            )
    return len(features.numbers) + len(features.bags)


def check_popularity(model: Model, plain: Plain) -> str:
    """Compare the scores of Popularity with the training counts."""
    if not isinstance(model, Popularity):
        raise Unused("the model is not Popularity")
    refuse_other_counts("item", np.pad(np.array(model.counts.tolist()), 1), plain.counted())
    return f"the scores of {plain.num_items:,} items are their training counts"


def of_kind(model: Any, kind: type) -> list[tuple[str, Any]]:
    """The modules of a kind in a model, by name."""
    return [
        (name.replace("objective.objectives.", ""), one) for name, one in model.named_modules() if isinstance(one, kind)
    ]
