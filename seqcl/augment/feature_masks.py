"""The features of an item that each of its two views hides (Yao et al., CIKM 2021, arXiv 2007.12865, section 3.2)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Generator, Tensor

from seqcl.types import Bag, Features

BINS = 10
"""Number of quantiles that a column of numbers is cut into before it is counted."""


def random_halves(rows: int, columns: int, *, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hide a random half of the columns in one view and the other half in the other (RFM): two (n, F) bool.

    Of an odd number of columns the second view hides one more.
    """
    rank = torch.rand(rows, columns, generator=generator, device=device).argsort(1).argsort(1)  # (n, F), a random order
    first = rank < columns // 2
    return first, ~first


def correlated_halves(information: Tensor, rows: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
    """Hide columns that tell of each other in the same view (CFM): two (n, F) bool.

    One view hides a random column and those that tell most of it, half of all columns; the other view hides the rest.
    Then neither view can be guessed from the other.

    Args:
        information: (F, F) mutual information of the columns.
        rows: n.
        generator: Source of the random column.
    """
    columns = len(information)
    drawn = torch.randint(columns, (rows,), generator=generator, device=information.device)  # (n,)
    itself = torch.eye(columns, dtype=torch.bool, device=information.device)
    ranked = information.masked_fill(itself, torch.inf)  # itself first
    order = ranked.argsort(dim=1, descending=True, stable=True)  # (F, F)
    first = torch.zeros(rows, columns, dtype=torch.bool, device=information.device)
    first.scatter_(1, order[drawn, : max(1, columns // 2)], True)
    return first, ~first


def present(features: Features) -> np.ndarray:
    """Mark the columns in which a row has something: (R, F) bool."""
    columns = [np.diff(bag.offsets) > 0 for bag in features.bags.values()]
    columns += [~np.isnan(values) for values in features.numbers.values()]
    columns += [~np.isnan(values[:, 0]) for values in features.vectors.values()]
    return np.stack(columns, 1)


def mutual_information(features: Features, rows: np.ndarray) -> np.ndarray:
    """Compute the mutual information in nats of every pair of columns over some rows: (F, F).

    The diagonal has each column's entropy. A row with several words counts for each of them in equal parts; a row
    without one of the two columns does not count for the pair. Numbers are cut at their deciles.
    Vectors are not counted: their information about other columns is 0.
    """
    tables = [incidence(one, rows) for one in features.bags.values()]
    tables += [incidence(deciles(values, rows), rows) for values in features.numbers.values()]
    found = np.zeros((len(features.columns),) * 2)
    for a, one in enumerate(tables):
        for b, two in enumerate(tables[: a + 1]):
            joint = one.T @ two  # sparse, the pairs that occur
            if a == b:
                joint = sparse.diags(np.asarray(one.sum(0))[0])
            found[a, b] = found[b, a] = information_of(joint.tocoo())
    return found


def information_of(joint: sparse.coo_matrix) -> float:
    """Compute the mutual information of a table of counts, in nats."""
    total = joint.data.sum()
    if not total:
        return 0.0
    chance = joint.data / total
    left = np.bincount(joint.row, weights=chance, minlength=joint.shape[0])[joint.row]
    right = np.bincount(joint.col, weights=chance, minlength=joint.shape[1])[joint.col]
    kept = chance > 0
    return float((chance[kept] * np.log(chance[kept] / (left * right)[kept])).sum())


def incidence(one: Bag, rows: np.ndarray) -> sparse.csr_matrix:
    """Make the matrix of rows and words in which a row's words have equal weights of sum 1: (n, V)."""
    sizes = np.diff(one.offsets)
    weights = np.repeat(1 / np.maximum(sizes, 1), sizes)
    return sparse.csr_matrix((weights, one.ids, one.offsets), shape=(len(sizes), max(len(one.names), 1)))[rows]


def deciles(values: np.ndarray, rows: np.ndarray) -> Bag:
    """Turn numbers into words, cut at the deciles of some rows; NaN becomes no word."""
    known, counted = ~np.isnan(values), values[rows]
    counted = counted[~np.isnan(counted)]
    cuts = np.unique(np.quantile(counted, np.linspace(0, 1, BINS + 1)[1:-1])) if len(counted) else np.empty(0)
    places = np.searchsorted(cuts, values[known], side="right")
    offsets = np.concatenate(([0], np.cumsum(known))).astype(np.int64)
    return Bag(offsets, places.astype(np.int64), [str(place) for place in range(len(cuts) + 1)])
