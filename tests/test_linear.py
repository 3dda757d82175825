"""EASE and SLIST against slow references: loops over rows, splits and pairs, and least squares by normal equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from seqcl.data import leave_one_out, markov, pack
from seqcl.errors import UserError
from seqcl.models.ease import EASE
from seqcl.models.linear import closed_form, products
from seqcl.models.slist import SLIST
from seqcl.parts import part
from seqcl.types import SeqBatch

TRAIN = leave_one_out(pack(markov(users=40, items=9, length=7, branching=3, seed=3).interactions), max_len=50).train
ITEMS = TRAIN.num_items


def rows():
    """The items of each user that training may know, from 0 on."""
    return [TRAIN.items[start:end] - 1 for start, end in zip(TRAIN.offsets[:-1], TRAIN.ends, strict=True)]


def splits(decay):
    """S and T, a line for each split of each row."""
    past, future = [], []
    for row in rows():
        for split in range(1, len(row)):
            before, behind = np.zeros(ITEMS), np.zeros(ITEMS)
            for place, item in enumerate(row):
                if place < split:
                    before[item] += np.exp(-(split - 1 - place) / decay)
                else:
                    behind[item] += np.exp(-(place - split) / decay)
            past.append(before)
            future.append(behind)
    return np.array(past), np.array(future)


def sets():
    """X: 1 where a user has an item."""
    found = np.zeros((len(rows()), ITEMS))
    for user, row in enumerate(rows()):
        found[user, row] = 1
    return found


@pytest.mark.parametrize(("likeness", "decay"), [(0.0, 0.7), (0.0, 3.0), (0.3, 0.7), (0.3, 3.0), (1.0, 1.0)])
def test_weights_are_the_least_squares_of_every_split(likeness, decay):
    past, future = splits(decay)
    together = sets()
    left = likeness * together.T @ together + (1 - likeness) * past.T @ past + 2 * np.eye(ITEMS)
    right = likeness * together.T @ together + (1 - likeness) * past.T @ future
    made, beside, over = closed_form(TRAIN, likeness=likeness, decay=decay, ridge=2)
    assert beside is None and over is None
    tolerance = 5e-3 if decay > 1 else 1e-4  # weights below a thousandth are left out
    np.testing.assert_allclose(made.numpy(), np.linalg.solve(left, right), atol=tolerance)


def test_ease_is_the_best_of_those_without_a_diagonal():
    together = sets()
    made, *_ = closed_form(TRAIN, likeness=1, diagonal=0, ridge=5)
    for item in range(ITEMS):  # ridge regression on all other items
        others = [other for other in range(ITEMS) if other != item]
        left = together[:, others].T @ together[:, others] + 5 * np.eye(ITEMS - 1)
        expected = np.linalg.solve(left, together[:, others].T @ together[:, item])
        np.testing.assert_allclose(made.numpy()[others, item], expected, atol=1e-4)
        assert abs(made[item, item]) < 1e-5


def test_a_limit_of_the_diagonal_moves_only_what_is_above_it():
    free, *_ = closed_form(TRAIN, likeness=1, ridge=5)
    limit = float(free.diagonal().median())
    made, *_ = closed_form(TRAIN, likeness=1, ridge=5, diagonal=limit)
    over = free.diagonal() > limit + 1e-6
    torch.testing.assert_close(made.diagonal()[over], torch.full((int(over.sum()),), limit), atol=1e-5, rtol=0)
    torch.testing.assert_close(made[:, ~over], free[:, ~over])


def test_a_rank_solves_within_the_largest_eigenvectors():
    left, right = (one.toarray() for one in products(TRAIN, likeness=0, decay=1.0))
    values, vectors = np.linalg.eigh(left)
    values, vectors = values[-4:], vectors[:, -4:]
    expected = vectors @ np.diag(1 / (values + 3)) @ vectors.T @ right
    made, beside, over = closed_form(TRAIN, ridge=3, rank=4)
    assert made.shape == (ITEMS, 4) and over is None
    np.testing.assert_allclose((made @ beside).numpy(), expected, atol=1e-5)


def test_a_rank_of_likeness_alone_solves_without_the_pairs():
    left = sets().T @ sets()
    values, vectors = np.linalg.eigh(left)
    expected = vectors[:, -4:] @ np.diag(values[-4:] / (values[-4:] + 3)) @ vectors[:, -4:].T
    made, beside, _ = closed_form(TRAIN, likeness=1, ridge=3, rank=4)
    np.testing.assert_allclose((made @ beside).numpy(), expected, atol=1e-5)


def test_with_a_rank_no_item_is_scored_by_itself():
    made = EASE(TRAIN, weights=part(closed_form, likeness=1.0, diagonal=0.0, rank=4, recency=2.0))
    free = EASE(TRAIN, weights=part(closed_form, likeness=1.0, rank=4, recency=2.0))
    table, beside, _ = closed_form(TRAIN, likeness=1, rank=4)
    weights = (table @ beside).numpy()
    assert (np.diag(weights) > 0.1).any()  # else nothing would be cut off
    np.fill_diagonal(weights, np.minimum(np.diag(weights), 0))
    batch = SeqBatch(torch.tensor([[3, 1, 5, ITEMS + 1], [2, 0, 0, 0]]), torch.tensor([4, 1]))
    fall = np.exp(-np.arange(4) / 2.0)
    expected = np.stack([fall[3] * weights[2] + fall[2] * weights[0] + fall[1] * weights[4], weights[1]])
    np.testing.assert_allclose(made.scores(batch).numpy(), expected, atol=1e-5)
    assert not torch.allclose(free.scores(batch), made.scores(batch), atol=1e-3)


@pytest.mark.parametrize("users", [1.0, 1e6, 1e9])
def test_weights_of_many_users_are_exact_or_refused(monkeypatch, users):
    left = sets().T @ sets()
    monkeypatch.setattr("seqcl.models.linear.products", lambda train, **_: 2 * [sparse.csr_array(left * users)])
    expected = np.linalg.solve(left + np.eye(ITEMS) / users, left)
    made, *_ = closed_form(TRAIN, likeness=1, ridge=1)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-3)
    with pytest.raises(UserError, match=r"ridge 1e-12 is too small .* give \S+ or more"):
        closed_form(TRAIN, likeness=1, ridge=1e-12)


@pytest.mark.parametrize("model", [EASE, SLIST])
@pytest.mark.parametrize("recency", [0.0, 2.0])
def test_a_score_is_the_decayed_sum_of_weights(model, recency):
    made = model(TRAIN, weights=part(closed_form, recency=recency))
    items = torch.tensor([[3, 1, 3, 5], [2, 0, 0, 0]])
    found = made.scores(SeqBatch(items, torch.tensor([4, 1])))
    table = closed_form(TRAIN)[0]
    fall = [np.exp(-age / recency) if recency else 1.0 for age in range(4)]
    expected = fall[0] * table[4] + fall[1] * table[2] + fall[2] * table[0]  # the newer of the two 3s counts
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], table[1])


def test_too_many_items_and_bad_values_are_refused(monkeypatch):
    monkeypatch.setattr("seqcl.models.linear.DENSE", 5)
    with pytest.raises(UserError, match=r"weights\.rank"):
        closed_form(TRAIN)
    assert closed_form(TRAIN, rank=3)[0].shape == (ITEMS, 3)
    with pytest.raises(UserError, match=r"weights\.decay=7 needs weights\.likeness below 1"):
        closed_form(TRAIN, likeness=1, decay=7, rank=3)
    for options in ({"likeness": 1.5}, {"ridge": 0}, {"decay": -1}, {"recency": -1}, {"rank": -1}):
        with pytest.raises(UserError, match=next(iter(options))):
            closed_form(TRAIN, **options)
