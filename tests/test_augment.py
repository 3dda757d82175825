from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqcl.augment import (
    VIEWS,
    ByLength,
    Chain,
    Crop,
    EdgeDrop,
    Growing,
    Identity,
    Insert,
    Mask,
    NodeDrop,
    OneOf,
    Pair,
    Rated,
    Reorder,
    SameTarget,
    Subgraph,
    Substitute,
    View,
    by_embedding,
    by_length,
    crop_mask_reorder,
    dropout_and_same_target,
    evened_out,
    growing_crop_mask_reorder,
    halves,
    item_cf_iuf,
    similarity,
    stack,
    surer,
)
from seqcl.augment.operators import choose, crop, portion, reorder
from seqcl.errors import UserError
from seqcl.testing import check_view
from seqcl.testing.batches import same
from seqcl.types import PAD, SeqBatch, Windows
from tests import reference_augment as reference

N, MAX_LEN = 40, 12
TOKEN = N + 1
NEIGHBOURS = torch.tensor([PAD, *range(2, N + 1), 1, TOKEN])[:, None]  # (N + 2, 1), that of i is i + 1
NEXT = {item: int(NEIGHBOURS[item, 0]) for item in range(N + 2)}


def bound(view: View) -> View:
    return view.bind(num_items=N, max_len=MAX_LEN, neighbours=NEIGHBOURS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(rows: list[list[int]]) -> SeqBatch:
    """Right-padded rows with every optional field filled."""
    lengths = torch.tensor([len(row) for row in rows])
    items = torch.tensor([row + [PAD] * (int(lengths.max()) - len(row)) for row in rows])
    times = (items != PAD) * (torch.arange(items.shape[1], dtype=torch.float64) * 10 + 5)
    return SeqBatch(items, lengths, targets=items.clone(), users=torch.arange(len(rows)), times=times)


def rows_of(batch: SeqBatch) -> list[tuple[int, ...]]:
    return [tuple(row[:n]) for row, n in zip(batch.items.tolist(), batch.lengths.tolist(), strict=True)]


def train_windows(rows: list[list[int]]) -> Windows:
    """Training windows of whole rows but their last item, which is the last target."""
    sizes = np.array([len(row) for row in rows])
    ends = sizes.cumsum()
    return Windows(
        items=np.concatenate(rows).astype(np.int32),
        offsets=np.concatenate(([0], ends)),
        ends=ends,
        users=np.arange(len(rows)),
        start=ends - sizes,
        stop=ends - 1,
        first=ends - sizes,
        num_items=N,
        max_len=MAX_LEN,
        times=np.concatenate([np.arange(size) * 7.0 + 1 for size in sizes]),
    )


TRAIN = train_windows([list(np.random.default_rng(n).integers(1, N + 1, 2 + n % 7)) for n in range(200)])
EVERY = {
    "Identity": Identity(),
    "Crop": Crop(rate=0.6),
    "Mask": Mask(rate=0.5),
    "Reorder": Reorder(rate=0.6),
    "Substitute": Substitute(rate=0.5),
    "Insert": Insert(rate=0.5),
    "NodeDrop": NodeDrop(rate=0.4),
    "EdgeDrop": EdgeDrop(rate=0.4),
    "Subgraph": Subgraph(rate=0.6),
    "SameTarget": SameTarget(),
    "OneOf": OneOf(views=[Crop(rate=0.6), Mask(rate=0.3), Reorder(rate=0.6), Substitute(rate=0.3), Insert(rate=0.4)]),
    "Chain": Chain(views=[Insert(rate=0.4), Crop(rate=0.7), Reorder(rate=0.6), Mask(rate=0.3)]),
    "ByLength": ByLength(short=Mask(rate=0.5, least=1), long=Crop(rate=0.6)),
}
for each in EVERY.values():
    bound(each).prepare(TRAIN)
every_view = pytest.mark.parametrize("view", EVERY.values(), ids=EVERY.keys())
random_view = pytest.mark.parametrize("view", [v for k, v in EVERY.items() if k != "Identity"], ids=list(EVERY)[1:])
rows_strategy = st.lists(st.lists(st.integers(1, N), min_size=1, max_size=MAX_LEN), min_size=1, max_size=8)


def test_every_view_of_the_table_passes_the_suite() -> None:
    assert EVERY.keys() == VIEWS.keys()
    assert all(type(EVERY[name]) is VIEWS[name] for name in VIEWS)


# The suite that every view passes


@every_view
@settings(max_examples=25, deadline=None)
@given(num_items=st.integers(2, N), max_len=st.integers(1, MAX_LEN), seed=st.integers(0, 2**31), times=st.booleans())
def test_a_view_passes_the_check_that_anyone_can_run(
    view: View, num_items: int, max_len: int, seed: int, times: bool
) -> None:
    check_view(view, num_items=num_items, max_len=max_len, seed=seed, times=times)


@every_view
@settings(max_examples=30, deadline=None)
@given(rows=rows_strategy, seed=st.integers(0, 2**31))
def test_rows_of_any_items_give_a_trimmed_batch_and_stay_unchanged(
    view: View, rows: list[list[int]], seed: int
) -> None:
    source = batch_of(rows)
    result = view(source, seeded(seed))
    assert result.items.shape[1] == result.lengths.max() <= MAX_LEN and result.lengths.min() >= 1
    assert torch.equal(result.items != PAD, torch.arange(result.items.shape[1]) < result.lengths[:, None])
    assert result.times is not None and torch.equal(result.times != 0, result.items != PAD)
    assert same(source, batch_of(rows))


@random_view
def test_two_seeds_give_two_results_whatever_the_global_seed_is(view: View) -> None:
    source = batch_of([[*range(1, 13)], [*range(5, 14)], [3, 1, 2]] * 5)
    torch.manual_seed(1)
    first = view(source, seeded(1))
    torch.manual_seed(2)
    assert same(first, view(source, seeded(1)))
    assert not same(first, view(source, seeded(2)))


@every_view
def test_a_batch_without_times_and_users_gets_the_same_items(view: View) -> None:
    source = batch_of([[*range(1, 11)], [4, 5]])
    if isinstance(view, SameTarget):  # which cannot do without users and targets
        bare = view(source._replace(times=None), seeded())
    else:
        bare = view(SeqBatch(source.items, source.lengths), seeded())
        assert bare.users is None
    assert bare.times is None
    assert torch.equal(bare.items, view(source, seeded()).items)


@every_view
def test_an_untrimmed_batch_works(view: View) -> None:
    source = batch_of([[1, 2, 3, 4, 5], [6, 7]])
    wide = source._replace(
        items=torch.nn.functional.pad(source.items, (0, 5)), targets=source.last_targets(), times=None
    )
    result = view(wide, seeded())
    assert torch.equal(result.items != PAD, torch.arange(result.items.shape[1]) < result.lengths[:, None])


@every_view
def test_a_view_saves_its_neighbours_and_nothing_else(view: View) -> None:
    assert all(name.endswith("neighbours") for name in view.state_dict())


# Each operator against its whole distribution


def assert_law(view: View, row: list[int], law: reference.Law) -> None:
    """Many draws give the results of the law and no others, as often as it says (chi-squared, one in a million)."""
    draws = max(500, round(30 / min(law.values())))
    source = SeqBatch(torch.tensor(row).repeat(draws, 1), torch.full((draws,), len(row)))  # (draws, n)
    distinct, times = bound(view)(source, seeded(17)).items.unique(dim=0, return_counts=True)
    results = [tuple(item for item in result if item != PAD) for result in distinct.tolist()]
    counts = dict(zip(results, times.tolist(), strict=True))
    assert counts.keys() <= law.keys(), f"impossible: {counts.keys() - law.keys()}"
    expected = {result: float(probability) * draws for result, probability in law.items()}
    surprise = sum((counts.get(result, 0) - value) ** 2 / value for result, value in expected.items())
    freedom = len(law) - 1
    assert surprise <= freedom + 5 * math.sqrt(2 * freedom) + 24


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("rate", ["0", "0.3", "0.6", "1"])
def test_crop_has_the_law_of_its_reference(n: int, rate: str) -> None:
    row = [*range(1, n + 1)]
    assert_law(Crop(rate=float(rate)), row, reference.crop(tuple(row), rate))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("rate", ["0", "0.3", "0.6", "1"])
@pytest.mark.parametrize("least", [0, 2])
def test_mask_has_the_law_of_its_reference(n: int, rate: str, least: int) -> None:
    row = [*range(1, n + 1)]
    assert_law(Mask(rate=float(rate), least=least), row, reference.mask(tuple(row), rate, TOKEN, least))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("rate", ["0", "0.4", "0.6", "1"])
@pytest.mark.parametrize("least", [0, 2])
def test_reorder_has_the_law_of_its_reference(n: int, rate: str, least: int) -> None:
    row = [*range(1, n + 1)]
    assert_law(Reorder(rate=float(rate), least=least), row, reference.reorder(tuple(row), rate, least))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("rate", ["0", "0.3", "0.6", "1"])
@pytest.mark.parametrize("least", [0, 1])
def test_substitute_has_the_law_of_its_reference(n: int, rate: str, least: int) -> None:
    row = [*range(1, 2 * n + 1, 2)]
    assert_law(Substitute(rate=float(rate), least=least), row, reference.substitute(tuple(row), rate, NEXT, least))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize("rate", ["0", "0.2", "1"])
@pytest.mark.parametrize("least", [0, 1])
def test_insert_has_the_law_of_its_reference(n: int, rate: str, least: int) -> None:
    row = [*range(1, 2 * n + 1, 2)]
    assert_law(Insert(rate=float(rate), least=least), row, reference.insert(tuple(row), rate, NEXT, MAX_LEN, least))


@pytest.mark.parametrize("row", [[4], [4, 2], [1, 2, 3, 4, 5], [3, 1, 3, 2, 1, 3], [2, 2, 5, 2, 2, 5, 1]], ids=str)
@pytest.mark.parametrize("rate", ["0", "0.2", "0.5", "0.7", "1"])
@pytest.mark.parametrize("kind", [NodeDrop, EdgeDrop, Subgraph], ids=lambda kind: kind.__name__)
def test_the_operators_of_graphs_have_the_laws_of_their_references(kind: type[View], rate: str, row: list[int]) -> None:
    if kind is NodeDrop and rate == "1":
        with pytest.raises(UserError, match="NodeDrop: rate must be below 1"):
            NodeDrop(rate=1.0)
        return
    law = {NodeDrop: reference.node_drop, EdgeDrop: reference.edge_drop, Subgraph: reference.subgraph}[kind]
    assert_law(kind(rate=float(rate)), row, law(tuple(row), rate))
    if kind is not Subgraph:
        assert_law(kind(rate=float(rate), least=1), row, law(tuple(row), rate, 1))


def test_the_times_of_dropped_items_go_with_them() -> None:
    source = batch_of([[*range(1, 11)], [1, 2, 3]] * 20)
    for view in (NodeDrop(rate=0.5), Subgraph(rate=0.5)):
        result = view(source, seeded())
        assert torch.equal(result.times, torch.where(result.items == PAD, 0, (result.items - 1) * 10 + 5).double())
        assert result.users is not None and torch.equal(result.users, source.users)


def test_one_of_has_the_law_of_the_mixture() -> None:
    row = (1, 2, 3, 4, 5)
    laws = [reference.crop(row, "0.6"), reference.mask(row, "0.4", TOKEN), reference.reorder(row, "0.6")]
    assert_law(OneOf(views=[Crop(rate=0.6), Mask(rate=0.4), Reorder(rate=0.6)]), list(row), reference.mixture(laws))


def test_a_portion_is_the_floor_of_the_rate_as_written() -> None:
    counts = torch.arange(201)
    for percent in range(101):
        exact = counts * percent // 100  # 0.29 of 100 is 29, where floating point says 28
        assert torch.equal(portion(counts, percent / 100), exact)
        assert [portion(n, percent / 100) for n in range(201)] == exact.tolist()


# What DESIGN asks for by name, and the traps of the peers


def test_crop_reaches_every_window_the_newest_item_included() -> None:
    results = set(rows_of(Crop(rate=0.5)(batch_of([[1, 2, 3, 4, 5, 6]] * 500), seeded())))
    assert results == {(1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 6)}


def test_reorder_is_a_permutation_of_its_window_and_leaves_the_rest() -> None:
    row = [*range(1, 11)]
    for result in rows_of(Reorder(rate=0.4)(batch_of([row] * 500), seeded())):
        assert sorted(result) == row
        moved = [t for t, item in enumerate(result) if item != row[t]]
        assert not moved or moved[-1] - moved[0] < 4


def test_mask_writes_the_mask_token_and_not_the_padding_id() -> None:
    result = bound(Mask(rate=0.5))(batch_of([[*range(1, 11)], [1, 2, 3, 4]] * 50), seeded())
    assert ((result.items == TOKEN).sum(1) == result.lengths // 2).all()
    assert torch.equal((result.items != PAD).sum(1), result.lengths)


def test_substitute_keeps_length_and_what_it_does_not_replace() -> None:
    source = batch_of([[*range(1, 11)], [1, 2, 3, 4]] * 50)
    result = bound(Substitute(rate=0.5))(source, seeded())
    changed = result.items != source.items
    assert torch.equal(result.lengths, source.lengths) and torch.equal(changed.sum(1), source.lengths // 2)
    assert torch.equal(result.items[changed], source.items[changed] + 1)


def test_insert_keeps_the_newest_items_when_it_overflows() -> None:
    row = [*range(1, 24, 2)]  # as long as allowed
    source = batch_of([row] * 200)
    for result in rows_of(bound(Insert(rate=0.5))(source, seeded())):
        assert len(result) == MAX_LEN
        assert result[-1] == row[-1]
        kept = [item for item in result if item % 2]
        assert kept == row[-len(kept) :]


def test_an_inserted_item_has_the_time_of_the_item_it_stands_before() -> None:
    result = bound(Insert(rate=1.0))(batch_of([[1, 3, 5], [7, 9, 11]]), seeded())
    assert rows_of(result) == [(2, 1, 4, 3, 6, 5), (8, 7, 10, 9, 12, 11)]
    assert result.times is not None and result.times[0].tolist() == [5, 5, 15, 15, 25, 25]


def test_crop_takes_the_times_along() -> None:
    result = Crop(rate=0.5)(batch_of([[1, 2, 3, 4, 5, 6], [1, 2, 3]] * 20), seeded())
    assert result.times is not None
    assert torch.equal(result.times, torch.where(result.items == PAD, 0, (result.items - 1) * 10 + 5).double())


def test_no_view_aliases_the_batch_so_that_writing_to_it_damages_the_source() -> None:
    for name, view in EVERY.items():
        if name == "Identity":  # changes nothing, shares everything, and is written to by nobody
            continue
        source, copy = batch_of([[*range(1, 13)], [4, 5, 6]] * 4), batch_of([[*range(1, 13)], [4, 5, 6]] * 4)
        view(source, seeded()).items.fill_(9)
        assert same(source, copy), name


def test_the_second_view_starts_from_the_source_and_not_from_the_first() -> None:
    pair = Pair(views=[Crop(rate=0.5)])
    first, second = pair(batch_of([[*range(1, 9)]] * 500), seeded())
    windows = {tuple(range(start, start + 4)) for start in range(1, 6)}
    assert set(rows_of(first)) == set(rows_of(second)) == windows
    assert set(zip(rows_of(first), rows_of(second), strict=True)) == {(a, b) for a in windows for b in windows}


def test_mask_and_reorder_each_have_their_own_rate() -> None:
    views = [Mask(rate=0.2), Reorder(rate=0.8)]
    source = batch_of([[*range(1, 11)]] * 400)
    result = bound(OneOf(views=views))(source, seeded())
    masked = (result.items == TOKEN).sum(1)
    assert set(masked.tolist()) == {0, 2}
    moved = [(row != torch.arange(1, 11)).nonzero() for row in result.items[masked == 0]]
    assert max(int(at.max() - at.min()) + 1 for at in moved if len(at)) == 8


RATES = {"crop": 0.2, "mask": 0.3, "reorder": 0.4, "substitute": 0.5, "insert": 0.6}


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (crop_mask_reorder, ["crop", "mask", "reorder"]),
        (by_length, [*RATES]),
        (evened_out, [*RATES]),
    ],
)
def test_a_recipe_hands_every_operator_its_own_rate(recipe, names) -> None:
    pair = recipe(**{name: RATES[name] for name in names})
    found = {(type(view).__name__.lower(), view.rate) for view in pair.modules() if hasattr(view, "rate")}
    assert found == {(name, RATES[name]) for name in names}


def test_duorec_shows_what_its_positives_say() -> None:
    shown = {name: dropout_and_same_target(positives=name) for name in ("supervised", "unsupervised", "both")}
    kinds = {
        name: {key: [type(view).__name__ for view in pair.views] for key, pair in pairs.items()}
        for name, pairs in shown.items()
    }
    dropout, target = {"dropout": ["Identity"]}, {"same_target": ["Identity", "SameTarget"]}
    assert kinds == {"supervised": target, "unsupervised": dropout, "both": dropout | target}
    assert shown["supervised"]["same_target"].ordered


def test_item_correlation_knows_only_the_interactions_it_is_given() -> None:
    users, items = np.array([0, 0, 1, 1]), np.array([1, 2, 2, 3])
    ids, _ = item_cf_iuf(users[:3], items[:3], 3, top_k=2)
    assert ids.tolist() == [[0, 0], [2, 2], [1, 1], [3, 3], [4, 4]], "user 1's item 3 is held out and leaves no trace"


# Composition


def test_one_of_draws_every_view_for_every_row_independently() -> None:
    one_of = OneOf(views=[Crop(rate=0.1), Mask(rate=1.0), Identity()])
    drawn = []
    for seed in range(50):
        result = bound(one_of)(batch_of([[*range(1, 11)]] * 40), seeded(seed))
        kinds = torch.where(result.lengths == 1, 0, torch.where(result.items[:, 0] == TOKEN, 1, 2))
        drawn.append(kinds)
    table = torch.stack(drawn)  # (50, 40)
    for axis in (0, 1):
        assert all(table.select(1 - axis, i).unique().numel() == 3 for i in range(table.shape[1 - axis]))
    assert torch.bincount(table.flatten()).float().sub(2000 / 3).abs().max() < 110  # five standard deviations


def test_one_of_keeps_rows_in_their_order() -> None:
    source = batch_of([[item, item, item] for item in range(1, 41)])
    result = bound(OneOf(views=[Crop(rate=0.5), Reorder(rate=1.0), Identity()]))(source, seeded())
    assert torch.equal(result.items[:, 0], source.items[:, 0])


def test_one_of_names_the_users_of_the_rows_that_its_views_bring_in() -> None:
    rows = [[1, 2, 3], [4, 3], [3, 5, 3, 7], [9, 8], [6, 8]]
    view = OneOf(views=[SameTarget(), Identity()])
    view.prepare(train_windows(rows))
    source = SeqBatch(
        torch.tensor([[1, 2]] * 200), torch.tensor([2] * 200), torch.tensor([[2, 3]] * 200), torch.zeros(200).long()
    )
    made = view(source, seeded())
    assert made.users is not None and not view.keeps_users
    owners = {(1, 2): 0, (4,): 1, (3, 5): 2}
    assert made.users.tolist() == [owners[row] for row in rows_of(made)] and set(made.users.tolist()) == {0, 1, 2}


def test_other_neighbours_reach_every_view_that_uses_some() -> None:
    inner = Substitute(rate=1.0)
    group = bound(Chain(views=[Crop(rate=1.0), OneOf(views=[inner, inner])]))
    group.rebind(NEIGHBOURS.roll(1, 0))
    assert torch.equal(inner.table(), NEIGHBOURS.roll(1, 0))
    with pytest.raises(UserError, match="View: a view that uses neighbours needs rebind"):
        View().rebind(NEIGHBOURS)


def test_halves_are_the_two_batches_that_were_stacked() -> None:
    one, two = batch_of([[1, 2, 3], [4]]), batch_of([[5, 6], [7]])
    first, second = halves(stack(one, two))
    assert same(first, one._replace(targets=None))
    assert rows_of(second) == rows_of(two) and second.items.shape == first.items.shape


def test_chain_applies_its_views_in_order() -> None:
    source = batch_of([[1, 3, 5, 7]] * 50)
    masked_last = bound(Chain(views=[Substitute(rate=1.0), Mask(rate=0.5)]))(source, seeded())
    assert all(sorted({2, 4, 6, 8} & set(row)) == sorted(set(row) - {TOKEN}) for row in rows_of(masked_last))
    masked_first = bound(Chain(views=[Mask(rate=1.0), Substitute(rate=1.0)]))(source, seeded())
    assert (masked_first.items == TOKEN).all(), "MASK is its own neighbour"


@pytest.mark.parametrize("recipe", [by_length, evened_out])
def test_coserec_and_ticoserec_change_one_item_at_least_in_rows_of_any_length(recipe) -> None:
    operators = [part for part in recipe().modules() if isinstance(part, Substitute | Insert)]
    assert {type(part) for part in operators} == {Substitute, Insert} and all(part.least == 1 for part in operators)


def test_by_length_gives_short_rows_the_short_view() -> None:
    rows = [[1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5], [*range(1, 10)]]
    view = bound(ByLength(short=Mask(rate=1.0), long=Crop(rate=0.1), threshold=4))
    assert rows_of(view(batch_of([row[::-1] for row in rows]), seeded()))[:2] == [(TOKEN,) * 3, (TOKEN,) * 4]
    assert view(batch_of(rows), seeded()).lengths.tolist() == [3, 4, 1, 1]


def test_a_distinct_pair_never_uses_one_view_twice_and_an_independent_pair_does() -> None:
    views = [Crop(rate=0.1), Mask(rate=1.0), Identity()]

    def kinds(batch: SeqBatch) -> list[int]:
        return torch.where(batch.lengths == 1, 0, torch.where(batch.items[:, 0] == TOKEN, 1, 2)).tolist()

    source = batch_of([[*range(1, 11)]] * 900)
    distinct = Counter(zip(*map(kinds, bound(Pair(views=views, distinct=True))(source, seeded())), strict=True))
    assert distinct.keys() == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert all(abs(count - 150) < 60 for count in distinct.values())
    independent = Counter(zip(*map(kinds, bound(Pair(views=views))(source, seeded())), strict=True))
    assert independent.keys() == {(a, b) for a in range(3) for b in range(3)}
    assert all(abs(count - 100) < 50 for count in independent.values())


def test_three_views_of_a_row_are_all_different_if_distinct_and_any_if_not() -> None:
    views = [Crop(rate=0.1), Mask(rate=1.0), Identity()]
    source = batch_of([[*range(1, 11)]] * 900)

    def kinds(batch: SeqBatch) -> list[int]:
        return torch.where(batch.lengths == 1, 0, torch.where(batch.items[:, 0] == TOKEN, 1, 2)).tolist()

    distinct = Counter(
        zip(*map(kinds, bound(Pair(views=views, distinct=True, number=3))(source, seeded())), strict=True)
    )
    assert distinct.keys() == set(permutations(range(3)))
    assert all(abs(count - 150) < 60 for count in distinct.values())
    free = Counter(zip(*map(kinds, bound(Pair(views=views, number=3))(source, seeded())), strict=True))
    assert len(free) == 27 and all(abs(count - 900 / 27) < 25 for count in free.values())
    ordered = bound(Pair(views=views, ordered=True, number=3))(source, seeded())
    assert [set(kinds(one)) for one in ordered] == [{0}, {1}, {2}]


def test_a_pair_stacked_is_its_two_views_behind_one_another() -> None:
    pair = bound(Pair(views=[Crop(rate=0.6), Mask(rate=0.3), Reorder(rate=0.6)]))
    source = batch_of([[*range(1, 13)], [4, 5, 6]] * 4)
    both = pair.stacked(source, seeded())
    first, second = pair(source, seeded())
    assert both.users is not None and both.users.tolist() == [*range(8)] * 2
    assert both.targets is None and len(both.lengths) == 16
    assert torch.equal(both.items, torch.cat((first.items, second.items)))
    assert torch.equal(both.lengths, torch.cat((first.lengths, second.lengths)))
    assert rows_of(first) != rows_of(second)


def test_a_composed_view_needs_as_many_neighbours_as_its_neediest() -> None:
    assert OneOf(views=[Crop(), Mask()]).neighbours_needed == 0
    chain = Chain(views=[Crop(), Insert(top_k=3), Substitute(top_k=5)])
    assert ByLength(short=Mask(), long=chain).neighbours_needed == 5
    assert Pair(views=[Substitute(top_k=2), Crop()]).neighbours_needed == 2


def test_top_k_draws_among_that_many_neighbours() -> None:
    table = torch.arange(N + 2)[:, None].repeat(1, 4)
    table[5] = torch.tensor([6, 7, 8, 9])
    view = Substitute(rate=1.0, top_k=3).bind(num_items=N, max_len=MAX_LEN, neighbours=table)
    counts = Counter(item for row in rows_of(view(batch_of([[5, 5]] * 300), seeded())) for item in row)
    assert counts.keys() == {6, 7, 8}
    assert all(abs(count - 200) < 60 for count in counts.values())


# Mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop(rate=1.5), "Crop: rate must lie in"),
        (lambda: Mask(rate=-0.1), "Mask: rate must lie in"),
        (lambda: Reorder(least=-1), "Reorder: least must not be negative"),
        (lambda: Insert(top_k=0), "Insert: top_k must be at least 1"),
        (lambda: OneOf(views=[]), "OneOf: views must not be empty"),
        (lambda: Pair(views=[Crop()], distinct=True), "at least 2 views"),
        (lambda: Pair(views=[]), "at least 1 views"),
        (lambda: Mask()(batch_of([[1]]), seeded()), r"Mask: call bind\("),
        (lambda: Insert()(batch_of([[1]]), seeded()), r"Insert: call bind\("),
        (lambda: Substitute().bind(num_items=N, max_len=5), "Substitute: needs neighbours"),
        (lambda: Substitute().bind(num_items=N + 1, max_len=5, neighbours=NEIGHBOURS), r"of shape \(43, >= 1\)"),
        (lambda: Insert(top_k=2).bind(num_items=N, max_len=5, neighbours=NEIGHBOURS), r"of shape \(42, >= 2\)"),
    ],
)
def test_a_mistake_is_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]


# Item correlation


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 15)), max_size=60),
    top_k=st.integers(1, 6),
    block=st.sampled_from([1, 4, 100]),
)
def test_item_cf_iuf_equals_the_dense_reference(pairs: list[tuple[int, int]], top_k: int, block: int) -> None:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    ids, scores = item_cf_iuf(users, items, 15, top_k=top_k, block=block)
    dense = np.array(reference.item_cf_iuf(pairs, 15))
    assert ids.shape == scores.shape == (17, top_k) and ids.dtype == torch.int64 and scores.dtype == torch.float32
    for item in range(17):
        best = sorted((-np.float32(dense[item, j]), j) for j in range(17) if dense[item, j] > 0)[:top_k]
        np.testing.assert_allclose(scores[item].numpy(), [-s for s, _ in best] + [0.0] * (top_k - len(best)), rtol=1e-6)
        found = ids[item].tolist()
        assert len(set(found[: len(best)])) == len(best)
        np.testing.assert_allclose(dense[item, found[: len(best)]], [-s for s, _ in best], rtol=1e-6)
        assert found[len(best) :] == [found[0] if best else item] * (top_k - len(best))


def test_equal_scores_go_to_the_smaller_id() -> None:
    users, items = np.zeros(4, dtype=np.int64), np.array([4, 2, 3, 1])
    ids, _ = item_cf_iuf(users, items, 4, top_k=3)
    assert ids[1:5].tolist() == [[2, 3, 4], [1, 3, 4], [1, 2, 4], [1, 2, 3]]


def test_nearly_every_item_of_beauty_has_a_neighbour_that_is_not_itself() -> None:
    path = Path(__file__).parents[2] / "shared" / "data" / "Beauty.txt"
    if not path.exists():
        pytest.skip(f"no {path.name} beside the repository")
    rows = [np.array(line.split()[1:-2], dtype=np.int64) for line in path.read_text().splitlines()]
    users, items = np.repeat(np.arange(len(rows)), [len(row) for row in rows]), np.concatenate(rows)
    ids, scores = item_cf_iuf(users, items, 12_101, top_k=10)
    assert (scores[1:-1, 0] > 0).float().mean() > 0.99
    assert (ids[1:-1, 0] != torch.arange(1, 12_102)).float().mean() > 0.99


# Rows with the same target


def test_same_target_draws_every_row_of_another_user_with_that_target_and_no_other_equally_often() -> None:
    rows = [[1, 2, 3], [4, 3], [3, 5, 3, 7], [9, 8], [6, 8]]
    view = SameTarget()
    view.prepare(train_windows(rows))
    owner = {tuple(row[:end]): number for number, row in enumerate(rows) for end in range(1, len(row))}
    for user, row in ((0, [1, 2]), (2, [3, 5]), (1, [4]), (3, [9])):
        target = 8 if user == 3 else 3
        source = SeqBatch(
            torch.tensor([row] * 600),
            torch.full((600,), len(row)),
            targets=torch.tensor([[0] * (len(row) - 1) + [target]] * 600),
            users=torch.full((600,), user),
        )
        made = view(source, seeded())
        found = Counter(rows_of(made))
        assert made.users is not None and made.users.tolist() == [owner[row] for row in rows_of(made)]
        expected = reference.same_target_rows(rows, target, user)
        assert set(found) == set(expected)
        assert all(abs(count - 600 / len(expected)) < 100 for count in found.values())


def test_same_target_of_a_target_nobody_else_has_is_the_row_itself() -> None:
    view = SameTarget()
    view.prepare(train_windows([[1, 2, 3], [4, 5]]))
    source = SeqBatch(
        torch.tensor([[1, 2], [7, 0]]), torch.tensor([2, 1]), torch.tensor([[2, 3], [9, 0]]), torch.tensor([0, 1])
    )
    assert rows_of(view(source, seeded())) == [(1, 2), (7,)]


def test_same_target_cuts_rows_to_the_longest_length_and_refuses_rows_without_targets() -> None:
    view = SameTarget()
    long = [*range(1, 31)]
    view.prepare(train_windows([long, [5, 30]]))
    batch = SeqBatch(torch.tensor([[5]]), torch.tensor([1]), torch.tensor([[30]]), torch.tensor([1]))
    assert rows_of(view(batch, seeded())) == [tuple(long[-MAX_LEN - 1 : -1])]
    with pytest.raises(UserError, match="targets and users"):
        view(batch._replace(targets=None), seeded())
    with pytest.raises(UserError, match="prepare"):
        SameTarget()(batch, seeded())


def test_an_ordered_pair_gives_each_view_its_place() -> None:
    source = batch_of([[1, 2, 3, 4], [5, 6]])
    first, second = bound_pair(Pair(views=[Identity(), Mask(rate=1.0)], ordered=True))(source, seeded())
    assert torch.equal(first.items, source.items) and (second.items[0] == TOKEN).all()
    with pytest.raises(UserError, match="needs 2 views"):
        Pair(views=[Identity()], ordered=True)


def bound_pair(pair: Pair) -> Pair:
    return pair.bind(num_items=N, max_len=MAX_LEN, neighbours=NEIGHBOURS)


def test_stacked_batches_of_two_widths_keep_their_rows() -> None:
    one, two = batch_of([[1, 2, 3]]), batch_of([[4], [5, 6]])
    assert rows_of(stack(one, two)) == [(1, 2, 3), (4,), (5, 6)]
    assert stack(one, two).times is not None and stack(one._replace(times=None), two).times is None


# Correlation by embeddings


@pytest.mark.parametrize("tile, rows", [(4096, 64), (7, 64), (7, 5)])
@pytest.mark.parametrize("top_k", [1, 3, 50])
def test_neighbours_by_embedding_are_those_of_largest_cosine(top_k: int, tile: int, rows: int, monkeypatch) -> None:
    monkeypatch.setattr(similarity, "TILE", tile)
    monkeypatch.setattr(similarity, "block_rows", lambda columns, device: rows)
    table = torch.randn(N + 2, 5, generator=seeded())
    ids, scores = by_embedding(table, top_k=top_k)
    for item in range(1, N + 1):
        best = reference.nearest(table, item)[:top_k]
        assert ids[item, : len(best)].tolist() == [other for _, other in best]
        torch.testing.assert_close(scores[item, : len(best)], torch.tensor([score for score, _ in best]))
        assert (ids[item, len(best) :] == best[0][1]).all()
    assert (ids[0] == PAD).all() and (ids[-1] == TOKEN).all()


def test_the_surer_neighbour_is_taken_on_one_scale() -> None:
    one = torch.tensor([[0], [2], [1], [1], [4]]), torch.tensor([[0.0], [100.0], [50.0], [0.0], [0.0]])
    two = torch.tensor([[0], [3], [3], [2], [4]]), torch.tensor([[0.0], [0.9], [0.95], [0.7], [0.0]])
    assert surer(one, two)[:, 0].tolist() == [0, 2, 3, 1, 4]


@pytest.mark.parametrize("correlation", ["cooccurrence", "embedding", "hybrid"])
def test_the_correlation_of_a_pair_is_refreshed_by_epoch_after_its_warm_up(correlation: str) -> None:
    pair = Pair(views=[Substitute(rate=1.0), Crop()], correlation=correlation, warmup=2)  # type: ignore[arg-type]
    pair.prepare(TRAIN)
    counted = item_cf_iuf(*TRAIN.known(), N)
    table = torch.randn(N + 2, 5, generator=seeded())
    learned = by_embedding(table)
    expected = {"cooccurrence": counted[0], "embedding": learned[0], "hybrid": surer(counted, learned)}[correlation]
    pair.before_epoch(table, 1)
    assert torch.equal(pair.views[0].neighbours, counted[0])
    pair.before_epoch(table, 2)
    assert torch.equal(pair.views[0].neighbours, expected)
    assert torch.equal(pair.state_dict()["views.0.neighbours"], expected), "a resumed run needs it"
    pair.before_epoch(table, 0)  # of training, after pre-training
    assert torch.equal(pair.views[0].neighbours, counted[0])


# Time-aware operators

TIMES = [[0, 5, 6, 7, 20, 30, 40], [0, 1, 2, 3, 4, 5, 6], [0, 9, 10, 30], [3], [1, 1], [0, 4, 8, 9, 10, 20, 21]]


def timed_batch(times: list[float], copies: int) -> SeqBatch:
    items = torch.arange(1, len(times) + 1).expand(copies, -1)
    lengths = torch.full((copies,), len(times))
    clock = torch.tensor(times, dtype=torch.float64).expand(copies, -1)
    pad = torch.nn.functional.pad
    return SeqBatch(pad(items, (0, 2)), lengths, users=torch.arange(copies), times=pad(clock, (0, 2)))


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("rate", [0.3, 0.5, 1.0])
def test_an_even_crop_is_one_of_the_windows_whose_gaps_vary_least(times: list[float], rate: float) -> None:
    size = max(1, math.floor(rate * len(times)))
    row = [*range(1, len(times) + 1)]
    expected = {tuple(row[start : start + size]) for start in reference.even_starts(times, size)}
    assert set(rows_of(crop(timed_batch(times, 400), rate=rate, generator=seeded(), even=True))) == expected


@pytest.mark.parametrize("times", TIMES)
def test_an_even_reorder_shuffles_one_of_the_windows_whose_gaps_vary_least(times: list[float]) -> None:
    size = math.floor(0.5 * len(times))
    row = [*range(1, len(times) + 1)]
    allowed = set()
    for start in reference.even_starts(times, size):
        for inside in permutations(row[start : start + size]):
            allowed.add((*row[:start], *inside, *row[start + size :]))
    assert set(rows_of(reorder(timed_batch(times, 2000), rate=0.5, generator=seeded(), even=True))) == allowed


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("gaps", ["small", "large"])
@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("rate", [0.3, 0.5, 1.0])
def test_positions_are_those_at_the_smallest_or_largest_gaps(
    times: list[float], gaps: str, side: str, rate: float
) -> None:
    batch = timed_batch(times, 1000)
    marks = choose(batch, rate=rate, least=1, generator=seeded(), gaps=gaps, side=side)  # type: ignore[arg-type]
    assert not marks[:, len(times) :].any()
    found = {tuple(row.nonzero()[:, 0].tolist()) for row in marks}
    assert found == reference.gap_sets(times, max(1, math.floor(rate * len(times))), gaps == "large", side == "before")


@pytest.mark.parametrize(
    ("view", "after", "before"),
    [
        (lambda **options: Substitute(rate=0.2, gaps="small", **options), (1, 2, 4, 4, 5), (1, 3, 3, 4, 5)),
        (lambda **options: Mask(rate=0.2, gaps="large", **options), (1, 2, 3, 4, TOKEN), (1, 2, 3, TOKEN, 5)),
        (lambda **options: Insert(rate=0.2, gaps="large", **options), (1, 2, 3, 4, 6, 5), (1, 2, 3, 4, 5, 5)),
    ],
)
def test_a_time_aware_view_changes_the_item_after_a_gap_or_the_one_before_it(view, after, before) -> None:
    batch = timed_batch([0, 5, 6, 20, 40], 3)
    for options, expected in (({}, after), ({"side": "before"}, before)):
        found = set(rows_of(bound(view(**options))(batch, seeded())))
        assert found == {expected}


def test_tico_views_can_be_those_of_the_authors_command_for_beauty() -> None:
    pair = evened_out(masked="large", side="before")
    small, large, mask = pair.views[0].views[0].views  # of short rows
    assert (small.gaps, large.gaps, mask.gaps) == ("small", "large", "large")
    assert {view.side for view in (small, large, mask)} == {"before"}


@pytest.mark.parametrize(
    "view", [Crop(even=True), Reorder(even=True), bound(Insert(gaps="large")), bound(Mask(gaps="large"))]
)
def test_a_time_aware_view_without_times_is_refused(view: View) -> None:
    with pytest.raises(UserError, match="times of the items"):
        view(batch_of([[1, 2, 3]])._replace(times=None), seeded())
    pair = Pair(views=[OneOf(views=[Identity(), view])])
    with pytest.raises(UserError, match=r"--data\.time"):
        pair.prepare(dataclasses.replace(TRAIN, times=None))


def test_rows_of_one_item_can_be_left_alone_and_others_get_two_different_operators():
    batch = SeqBatch(torch.tensor([[7, 0, 0, 0], [1, 2, 3, 4]] * 40), torch.tensor([1, 4] * 40))
    for keep in (False, True):
        pair = crop_mask_reorder(crop=0.5, mask=1.0, reorder=0, distinct=True, keep_single=keep)
        pair.bind(num_items=N, max_len=MAX_LEN)
        first, second = pair(batch, seeded())
        whole = [(one.items[0::2, 0] == 7).all() for one in (first, second)]
        assert all(whole) == keep
        cropped = [one.lengths[1::2] == 2 for one in (first, second)]
        assert (cropped[0] ^ cropped[1]).all()


@pytest.mark.parametrize("make", [crop_mask_reorder, growing_crop_mask_reorder])
def test_a_pair_without_operators_says_which_to_give(make) -> None:
    with pytest.raises(UserError, match="no operator is left: give crop, mask or reorder above 0"):
        make(crop=0, mask=0, reorder=0)


# A curriculum


def test_the_rates_of_growing_views_climb_in_equal_stairs_and_stay() -> None:
    pair = growing_crop_mask_reorder(crop=0.5, mask=0.4, reorder=0.8, stairs=4, each=2)
    pair.bind(num_items=N, max_len=MAX_LEN)
    batch = batch_of([list(range(1, 11))])
    for epoch in range(10):
        pair.before_epoch(torch.zeros(N + 2, 4), epoch)
        pair(batch, seeded())
        part = min(epoch // 2 + 1, 4) / 4
        assert [view.rate for view in pair.views] == pytest.approx([1 - 0.5 * part, 0.4 * part, 0.8 * part])


@pytest.mark.parametrize("kind", [kind for kind in VIEWS.values() if issubclass(kind, Rated)])
def test_a_view_changes_an_item_at_most_near_strength_0_and_most_rows_at_its_whole_rate(kind: type[Rated]) -> None:
    row = list(range(1, 11))
    view = bound(kind(rate=0.5))
    assert isinstance(view, Rated)

    def made(strength: float) -> list[list[int]]:
        view.rate = view.weaker(0.5, strength)
        return [list(rows_of(view(batch_of([row]), seeded(seed)))[0]) for seed in range(20)]

    assert all(one == row for one in made(0.0))
    assert all([item for item in row if item in one] == one and len(one) >= 9 for one in made(0.01))
    assert sum(one != row for one in made(1.0)) > 15


def test_growing_views_are_those_of_a_pair_with_the_rates_of_the_epoch_also_after_a_break() -> None:
    batch = batch_of([list(range(1, 11))] * 200)
    growing = Growing(views=[Mask(rate=0.8), Chain(views=[Reorder(rate=0.4), Mask(rate=0.4)])], stairs=2, each=3)
    growing.bind(num_items=N, max_len=MAX_LEN)
    growing.before_epoch(torch.zeros(N + 2, 4), 2)
    plain = Pair(views=[Mask(rate=0.4), Chain(views=[Reorder(rate=0.2), Mask(rate=0.2)])])
    plain.bind(num_items=N, max_len=MAX_LEN)
    assert rows_of(growing(batch, seeded())[0]) == rows_of(plain(batch, seeded())[0])
    again = Growing(views=[Mask(rate=0.8), Chain(views=[Reorder(rate=0.4), Mask(rate=0.4)])], stairs=2, each=3)
    again.bind(num_items=N, max_len=MAX_LEN)
    growing.before_epoch(torch.zeros(N + 2, 4), 3)
    again.load_state_dict(growing.state_dict())  # what a run that goes on in the middle of an epoch has
    assert rows_of(growing(batch, seeded())[1]) == rows_of(again(batch, seeded())[1])
    assert rows_of(again(batch, seeded())[1]) != rows_of(plain(batch, seeded())[1])
    with pytest.raises(UserError, match="Growing: stairs must be above 0"):
        Growing(views=[Mask()], stairs=0)
