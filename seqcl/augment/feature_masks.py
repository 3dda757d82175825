"""Which features of an item each of its two views hides (Yao et al., CIKM 2021, arXiv 2007.12865, section 3.2)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Generator, Tensor

from seqcl.types import Bag, Features

BINS = 10
"""Quantiles that a column of numbers is cut into before it is counted."""


def random_halves(rows: int, columns: int, *, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """RFM: a random half of the columns is hidden in one view and the other half in the other, two (n, F) bool.

    Of an odd number one view hides one more.
    """
    rank = torch.rand(rows, columns, generator=generator, device=device).argsort(1).argsort(1)  # (n, F), a random order
    first = rank < columns // 2
    return first, ~first


def correlated_halves(information: Tensor, rows: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
    """CFM: one view hides a random column and those that tell most of it, half of all; the other view hides the rest: two (n, F) bool.

    So that neither view can be guessed from the other.

    Args:
        information: (F, F) mutual information of the columns.
        rows: n.
        generator: what the random column is drawn from.
    """
    columns = len(information)
    seed = torch.randint(columns, (rows,), generator=generator, device=information.device)  # (n,)
    itself = torch.eye(columns, dtype=torch.bool, device=information.device)
    order = information.masked_fill(itself, torch.inf).argsort(
        dim=1, descending=True, stable=True
    )  # (F, F), itself first
    first = torch.zeros(rows, columns, dtype=torch.bool, device=information.device)
    first.scatter_(1, order[seed, : max(1, columns // 2)], True)
    return first, ~first


def present(features: Features) -> np.ndarray:
    """Which rows have something in which columns: (R, F) bool."""
    columns = [np.diff(bag.offsets) > 0 for bag in features.bags.values()]
    columns += [~np.isnan(values) for values in features.numbers.values()]
    columns += [~np.isnan(values[:, 0]) for values in features.vectors.values()]
    return np.stack(columns, 1)


def mutual_information(features: Features, rows: np.ndarray) -> np.ndarray:
    """Mutual information in nats of every pair of columns over some rows: (F, F), with each column's entropy on the diagonal.

    A row with several words has a share of each; rows where one of the two is missing do not count for the pair. Numbers are
    cut at their deciles. Vectors are not counted: what they tell of others is given as 0.
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
    """Mutual information of a table of counts, in nats."""
    total = joint.data.sum()
    if not total:
        return 0.0
    share = joint.data / total
    left = np.bincount(joint.row, weights=share, minlength=joint.shape[0])[joint.row]
    right = np.bincount(joint.col, weights=share, minlength=joint.shape[1])[joint.col]
    kept = share > 0
    return float((share[kept] * np.log(share[kept] / (left * right)[kept])).sum())


def incidence(one: Bag, rows: np.ndarray) -> sparse.csr_matrix:
    """Rows by words, each row's words sharing 1: (n, V)."""
    sizes = np.diff(one.offsets)
    shares = np.repeat(1 / np.maximum(sizes, 1), sizes)
    return sparse.csr_matrix((shares, one.ids, one.offsets), shape=(len(sizes), max(len(one.names), 1)))[rows]


def deciles(values: np.ndarray, rows: np.ndarray) -> Bag:
    """Numbers as words, cut at the deciles of some rows; NaN as none."""
    known, counted = ~np.isnan(values), values[rows]
    counted = counted[~np.isnan(counted)]
    cuts = np.unique(np.quantile(counted, np.linspace(0, 1, BINS + 1)[1:-1])) if len(counted) else np.empty(0)
    places = np.searchsorted(cuts, values[known], side="right")
    offsets = np.concatenate(([0], np.cumsum(known))).astype(np.int64)
    return Bag(offsets, places.astype(np.int64), [str(place) for place in range(len(cuts) + 1)])
