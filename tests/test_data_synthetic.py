from __future__ import annotations

import itertools

import numpy as np
import pytest

from seqcl.data import Markov, leave_one_out, markov, pack, shuffled
from seqcl.errors import UserError
from seqcl.types import Windows
from tests.reference_data import markov_ceiling


def small(order: int) -> Markov:
    return markov(users=40, items=7, length=8, order=order, branching=3, seed=order)


def transitions(chain: Markov) -> dict[tuple[int, ...], dict[int, float]]:
    """The chain as a plain table: context, oldest first, to the chances of what follows."""
    items = chain.successors.shape[1]
    table = {}
    for context in itertools.product(range(items), repeat=chain.order):
        older = sum(state * items**place for place, state in enumerate(context[:-1]))
        followers = chain.successors[older, context[-1]]
        table[context] = dict(zip(followers.tolist(), chain.chances.tolist(), strict=True))
    return table


def histories(windows: Windows, item_ids: np.ndarray) -> list[list[int]]:
    return [
        item_ids[windows.items[windows.offsets[user] : stop] - 1].tolist()
        for user, stop in zip(windows.users, windows.stop, strict=True)
    ]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_ceiling_equals_trying_every_ranking(order: int, exclude_seen: bool) -> None:
    chain = small(order)
    packed = pack(chain.interactions)
    windows = leave_one_out(packed).test
    kept = windows.stop - windows.offsets[windows.users] >= order
    assert kept.all()
    found = chain.ceiling(windows, packed.item_ids, ks=(1, 2, 5), exclude_seen=exclude_seen)
    for k in (1, 2, 5):
        recall, ndcg = markov_ceiling(transitions(chain), histories(windows, packed.item_ids), k, order, exclude_seen)
        assert found[f"recall@{k}"] == pytest.approx(recall, abs=1e-12)
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_whoever_knows_the_chain_reaches_the_ceiling_and_no_more(order: int) -> None:
    chain = markov(users=4000, items=30, length=10, order=order, branching=4, seed=1)
    packed = pack(chain.interactions)
    windows = leave_one_out(packed).test
    table = transitions(chain)
    ranks = []
    for history, place in zip(histories(windows, packed.item_ids), windows.stop, strict=True):
        chances = table[tuple(history[-order:])]
        best = sorted(chances, key=chances.get, reverse=True)
        ranks.append(best.index(int(packed.item_ids[packed.items[place] - 1])) + 1)
    found = np.array(ranks)
    ceiling = chain.ceiling(windows, packed.item_ids, ks=(1, 2, 5))
    assert ceiling["recall@5"] == pytest.approx(1.0)
    for k in (1, 2):
        assert (found <= k).mean() == pytest.approx(ceiling[f"recall@{k}"], abs=0.03)
        assert np.where(found <= k, 1 / np.log2(found + 1.0), 0).mean() == pytest.approx(ceiling[f"ndcg@{k}"], abs=0.03)


@pytest.mark.parametrize("order", [1, 2])
def test_every_context_has_distinct_followers_and_every_item_follows_equally_often(order: int) -> None:
    chain = small(order)
    followers = np.sort(chain.successors, axis=-1)
    assert (np.diff(followers, axis=-1) > 0).all()
    for table in chain.successors:
        assert (np.bincount(table.ravel(), minlength=7) == 3).all()


def test_every_step_of_the_log_follows_the_chain() -> None:
    for order in (1, 2):
        chain = small(order)
        table = transitions(chain)
        packed = pack(chain.interactions)
        for user in range(packed.num_users):
            row = packed.item_ids[packed.row(user) - 1].tolist()
            assert all(row[t] in table[tuple(row[t - order : t])] for t in range(order, len(row)))


def test_a_chain_is_the_same_for_a_seed_and_popularity_tells_nothing() -> None:
    one, other, third = (markov(users=3000, items=50, seed=seed).interactions for seed in (0, 0, 1))
    assert one.items.tolist() == other.items.tolist()
    assert one.items.tolist() != third.items[: len(one)].tolist()
    counts = np.bincount(one.items, minlength=50)
    assert counts.max() / counts.mean() < 1.2
    sizes = np.bincount(one.users)
    assert (sizes.min(), sizes.max()) == (10, 30)


def test_shuffling_keeps_counts_and_users_and_loses_the_order() -> None:
    chain = markov(users=500, items=20)
    mixed = shuffled(chain.interactions, seed=3)
    assert np.bincount(mixed.items).tolist() == np.bincount(chain.interactions.items).tolist()
    assert mixed.users.tolist() == chain.interactions.users.tolist()
    packed = pack(mixed)
    windows = leave_one_out(packed).test
    table = transitions(chain)
    followed = [
        int(packed.item_ids[packed.items[place] - 1]) in table[(history[-1],)]
        for history, place in zip(histories(windows, packed.item_ids), windows.stop, strict=True)
    ]
    assert np.mean(followed) == pytest.approx(4 / 20, abs=0.06)


def test_sizes_that_do_not_fit_are_said() -> None:
    for wrong in ({"branching": 0}, {"branching": 600}, {"users": 1}, {"order": 0}, {"length": 0}):
        with pytest.raises(UserError, match="a chain needs"):
            markov(**wrong)
    with pytest.raises(UserError, match="at most"):
        markov(items=5000, order=3)
    chain = markov(users=30, items=5, length=3, order=3, branching=2)
    packed = pack(chain.interactions, min_length=3)
    windows = leave_one_out(packed).valid
    with pytest.raises(UserError, match="needs histories of 3 items"):
        chain.ceiling(windows, packed.item_ids)
