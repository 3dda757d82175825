"""Ranks, metrics, sampled candidates, diagnostics and significance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import seqcl
import seqcl.config
from seqcl.blocks import block_rows, over_blocks, top_k
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.evaluation import (
    METRICS,
    Evaluator,
    Questions,
    by_slice,
    compare,
    draw_negatives,
    effective_rank,
    list_metrics,
    rank_metrics,
    ranks,
    row_metric,
    singular_values,
    spectrum,
)
from seqcl.evaluation.candidates import draw_rest
from seqcl.evaluation.ranks import rank_block_, seen_before
from seqcl.evaluation.significance import by_user, standard_error
from seqcl.registry import register
from seqcl.retrieval import ExactIndex, FaissIndex
from seqcl.types import SeqBatch, Windows
from tests.reference_evaluation import (
    best_columns,
    crossed_error,
    gini_by_pairs,
    metrics_by_counting,
    rank_by_sorting,
    windows_of,
)

NUM_ITEMS = 40


class Table:
    """Scores written down beforehand, one row a user."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def queries(self, batch: SeqBatch) -> Tensor:
        raise AssertionError("it has no vectors, so nobody asks for queries")

    def vectors(self) -> None:
        return None

    def scores(self, batch: SeqBatch) -> Tensor:
        return self.table[batch.users]


class Vectors:
    """Queries and vectors of items written down beforehand."""

    def __init__(self, states: Tensor, table: Tensor) -> None:
        self.states, self.table = states, table

    def queries(self, batch: SeqBatch) -> Tensor:
        return self.states[batch.users]

    def vectors(self) -> Tensor:
        return self.table

    def scores(self, batch: SeqBatch) -> Tensor:
        raise AssertionError("it has vectors, so nobody asks for scores")


def batches(windows: Windows, size: int = 7) -> Iterator[SeqBatch]:
    """Rows of the windows in order; scorers here look at `users` alone."""
    targets = torch.from_numpy(windows.items[windows.stop].astype(np.int64))
    for rows in torch.arange(len(windows)).split(size):
        users = torch.from_numpy(windows.users)[rows]
        yield SeqBatch(items=users[:, None] + 1, lengths=torch.ones_like(users), targets=targets[rows], users=users)


def random_windows(users: int = 60, num_items: int = NUM_ITEMS, seed: int = 0, max_len: int = 50) -> Windows:
    """Rows without repeats, so that no target is in its own history."""
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(num_items)[: generator.integers(3, 12)] + 1 for _ in range(users)]
    return windows_of([row.tolist() for row in rows], num_items=num_items, max_len=max_len)


def history(windows: Windows, row: int) -> set[int]:
    """Columns of all items before the target."""
    return set((windows.items[windows.offsets[windows.users[row]] : windows.stop[row]] - 1).tolist())


def evaluate(windows: Windows, scorer: object, size: int = 7, **options: object) -> object:
    return Evaluator(**options)(windows, batches(windows, size), scorer, windows.item_counts())


# Ranks


@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=12, max_size=12), min_size=1, max_size=6),
    st.integers(0, 11),
    st.sets(st.integers(0, 11), max_size=11),
)
@settings(max_examples=100, deadline=None)
def test_a_rank_is_the_place_in_the_sorted_list_last_among_equals(scores, target, seen):
    rows = torch.arange(len(scores)).repeat_interleave(len(seen))
    columns = torch.tensor(sorted(seen), dtype=torch.long).repeat(len(scores))
    found = ranks(torch.tensor(scores).float(), torch.full((len(scores),), target), (rows, columns))
    expected = [rank_by_sorting(row, target, seen) for row in scores]
    if target in seen:
        expected = [12] * len(scores)
    assert found.tolist() == expected


def test_ties_count_against_us():
    assert ranks(torch.zeros(2, 9), torch.tensor([0, 8])).tolist() == [9, 9]


def test_ranking_leaves_the_scores_as_they_are():
    scores = torch.randn(3, 9)
    before = scores.clone()
    ranks(scores, torch.tensor([0, 1, 2]), (torch.tensor([0, 1]), torch.tensor([4, 5])))
    assert torch.equal(scores, before)


@pytest.mark.parametrize("column", [0, 3, 8])
def test_a_score_that_is_not_a_number_is_an_error(column):
    scores = torch.randn(3, 9)
    scores[1, column] = torch.nan
    with pytest.raises(ValueError, match=r"row 1.*NaN"):
        ranks(scores, torch.tensor([0, 1, 2]))


def test_infinite_scores_rank_like_any_other():
    scores = torch.tensor([[torch.inf, 1.0, torch.inf, -torch.inf]])
    assert [int(ranks(scores, torch.tensor([column]))) for column in range(4)] == [2, 3, 2, 4]


def test_scores_whose_rows_lie_apart_rank_like_any_other():
    apart = torch.full((7, 16), torch.nan)
    apart[:, :11] = scores = torch.randn(7, 11)
    targets, seen = torch.arange(7), (torch.tensor([0, 3, 6]), torch.tensor([10, 0, 10]))
    found = rank_block_(apart[2:, :11], targets[2:], (seen[0][1:] - 2, seen[1][1:]), k=3)
    assert found.ranks.tolist() == ranks(scores, targets, seen)[2:].tolist()
    without = scores.index_put(seen, torch.tensor(-torch.inf))[2:].topk(3)
    assert torch.equal(found.best, without.values) and torch.equal(found.columns, without.indices)


def test_no_rows_have_no_ranks():
    none = torch.empty(0, dtype=torch.long)
    assert ranks(torch.empty(0, 5), none, (none, none)).tolist() == []


# The k best


@pytest.mark.parametrize("columns", [1, 2, 5, 19, 60, 61, 500, 1000, 1681])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_the_k_best_are_those_of_a_full_sort(columns, k):
    scores = torch.randn(13, columns).round(decimals=1)  # with ties
    values, places = top_k(scores, k)
    assert torch.equal(values, scores.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(scores.gather(1, places), values)
    assert all(len(set(row)) == len(row) for row in places.tolist())


def test_the_k_best_of_rows_with_few_candidates_left_hold_all_of_them():
    scores = torch.full((4, 300), -torch.inf)
    scores[:, 299], scores[:, 17] = 1.0, 2.0
    values, places = top_k(scores, 5)
    assert places[:, :2].tolist() == [[17, 299]] * 4
    assert values[:, 2:].isneginf().all()


@pytest.mark.parametrize("column", [0, 150, 299])
def test_what_is_not_a_number_comes_first_among_the_k_best(column):
    scores = torch.randn(2, 300)
    scores[1, column] = torch.nan
    values, _ = top_k(scores, 5)
    assert values[:, 0].isnan().tolist() == [False, True]


def test_a_block_of_scores_stays_small_whatever_the_catalogue():
    cpu = torch.device("cpu")
    assert block_rows(12_101, cpu) * 12_101 * 4 <= 4 << 20
    assert block_rows(1_000_000, cpu) == 64
    assert block_rows(10_000_000, cpu) * 10_000_000 * 4 <= 1 << 30
    assert block_rows(1, cpu) == 1024


# Blocks over threads


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_block_is_worked_on_once_by_one_thread_each_and_the_setting_is_restored(threads):
    met, settings_met = [], set()

    def work(starts: Iterator[int]) -> None:
        for start in starts:
            met.append(start)
            settings_met.add((torch.get_num_threads(), torch.is_inference_mode_enabled()))

    with torch.inference_mode():
        over_blocks(work, 1000, 7, torch.device("cpu"))
    assert sorted(met) == list(range(0, 1000, 7))
    assert settings_met == {(1, True)}
    assert torch.get_num_threads() == threads


def test_an_error_in_a_block_is_raised_and_the_setting_restored(threads):
    def work(starts: Iterator[int]) -> None:
        if 14 in starts:
            raise RuntimeError("block 14")

    with pytest.raises(RuntimeError, match="block 14"):
        over_blocks(work, 21, 7, torch.device("cpu"))
    assert torch.get_num_threads() == threads


def test_ranks_lists_and_searches_do_not_depend_on_threads(threads):
    windows = random_windows(users=3000, num_items=500)
    vectors = Vectors(torch.randint(-3, 4, (3000, 8)).float(), torch.randint(-3, 4, (500, 8)).float())  # exact products
    result = evaluate(windows, vectors, size=1000)
    written = evaluate(windows, Table(vectors.states @ vectors.table.T), size=300)
    assert result.ranks.tolist() == written.ranks.tolist()
    scores, _ = ExactIndex(vectors.table).search(vectors.states, 9)
    assert torch.equal(scores, (vectors.states @ vectors.table.T).topk(9).values)


# The evaluator


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("num_items", [NUM_ITEMS, 700])
def test_every_rank_and_list_is_that_of_a_full_sort(exclude_seen, num_items):
    windows = random_windows(num_items=num_items)
    scores = torch.randn(len(windows), num_items)
    result = evaluate(windows, Table(scores), exclude_seen=exclude_seen, ks=(1, 3, 20))
    seen = [history(windows, row) if exclude_seen else set() for row in range(len(windows))]
    targets = windows.items[windows.stop] - 1
    expected = [rank_by_sorting(scores[row].tolist(), targets[row], seen[row]) for row in range(len(windows))]
    assert result.ranks.tolist() == expected
    assert result.targets.tolist() == (targets + 1).tolist()
    assert result.users.tolist() == list(range(len(windows)))
    counts = windows.item_counts()[1:-1]
    for k in (1, 3, 20):
        for name, value in metrics_by_counting(expected, k).items():
            assert result.metrics[f"{name}@{k}"] == pytest.approx(value, abs=1e-12)
        lists = [best_columns(scores[row].tolist(), k, seen[row]) for row in range(len(windows))]
        flat = [column for row in lists for column in row]
        assert result.metrics[f"coverage@{k}"] == pytest.approx(len(set(flat)) / num_items)
        assert result.metrics[f"popularity@{k}"] == pytest.approx(np.mean([counts[column] for column in flat]))
        often = np.bincount(flat, minlength=num_items)
        if num_items == NUM_ITEMS:
            assert result.metrics[f"gini@{k}"] == pytest.approx(gini_by_pairs(often.tolist()))


def test_scores_by_inner_product_rank_as_the_same_scores_written_down():
    windows = random_windows(users=1100, num_items=300)  # more rows than a block
    vectors = Vectors(torch.randn(1100, 8), torch.randn(300, 8))
    found = evaluate(windows, vectors, size=1050)
    written = evaluate(windows, Table(vectors.states @ vectors.table.T), size=33)
    assert block_rows(300, torch.device("cpu")) < 1050
    assert (found.ranks != written.ranks).mean() < 0.01  # another shape of product may round otherwise
    assert found.metrics["ndcg@10"] == pytest.approx(written.metrics["ndcg@10"], abs=1e-4)


def test_ranking_happens_in_float32_whatever_the_model_computes_in():
    windows = random_windows()
    vectors = Vectors(torch.randn(60, 8).bfloat16(), torch.randn(NUM_ITEMS, 8).bfloat16())
    wide = Vectors(vectors.states.float(), vectors.table.float())
    for options in ({}, {"candidates": "uniform", "sampled": 15}):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = evaluate(windows, vectors, **options)
        assert found.ranks.tolist() == evaluate(windows, wide, **options).ranks.tolist()


def test_without_lists_ranks_are_the_same_and_the_list_metrics_are_left_out():
    windows, scores = random_windows(), torch.randn(60, NUM_ITEMS)
    full = evaluate(windows, Table(scores))
    short = Evaluator()(windows, batches(windows), Table(scores), windows.item_counts(), lists=False)
    assert short.ranks.tolist() == full.ranks.tolist()
    assert short.metrics == {name: v for name, v in full.metrics.items() if name.split("@")[0] not in LIST_METRICS}
    assert {name.split("@")[0] for name in full.metrics.keys() - short.metrics.keys()} == LIST_METRICS


LIST_METRICS = {"coverage", "popularity", "gini"}


def test_seen_items_are_excluded_even_when_every_score_is_negative():
    windows = windows_of([[1, 2, 3]], num_items=5)
    scores = torch.tensor([[-1.0, -2.0, -3.0, -4.0, -5.0]])  # a seen item at score 0 would stay first
    assert evaluate(windows, Table(scores)).ranks.tolist() == [1]
    assert evaluate(windows, Table(scores), exclude_seen=False).ranks.tolist() == [3]


def test_exclusion_knows_the_items_before_those_that_the_window_reads():
    windows = windows_of([[1, 2, 3, 4, 5]], num_items=6, max_len=2)
    scores = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    assert evaluate(windows, Table(scores)).ranks.tolist() == [1]


def test_an_excluded_item_is_not_recommended_where_fewer_than_k_are_left():
    windows = windows_of([[1, 2, 3, 4], [1, 2, 3, 5]], num_items=6)
    metrics = evaluate(windows, Table(torch.randn(2, 6)), ks=(2, 6)).metrics
    counts = windows.item_counts()[4:7]
    assert metrics["coverage@6"] == pytest.approx(3 / 6)
    assert metrics["popularity@6"] == pytest.approx(counts.mean())


@pytest.mark.parametrize("ks", [(1, 2), (5, 10), (5, 6, 700)])
def test_a_target_that_is_in_the_history_is_never_a_hit_and_is_reported(ks):
    windows = windows_of([[1, 2, 1], [1, 2, 3]], num_items=5)
    result = evaluate(windows, Table(torch.tensor([[9.0, 1, 1, 1, 1], [0, 0, 9, 0, 0]])), ks=ks)
    assert result.ranks.tolist() == [max(5, ks[-1] + 1), 1]
    assert all(result.metrics[f"{name}@{k}"] == 0.5 for name in ("recall", "hr", "ndcg", "mrr", "map") for k in ks)
    assert result.protocol["unreachable_targets"] == 1
    assert evaluate(windows, Table(torch.randn(2, 5)), exclude_seen=False).protocol["unreachable_targets"] == 0


def test_a_target_that_the_model_itself_rules_out_is_missed_and_no_fault_of_the_protocol():
    windows = windows_of([[1, 2, 3], [1, 2, 4]], num_items=5)
    scores = torch.tensor([[1.0, 1, -torch.inf, 1, 1], [0, 0, 0, 9, 0]])
    result = evaluate(windows, Table(scores), exclude_seen=False)
    assert result.metrics["recall@5"] == 0.5 and result.protocol["unreachable_targets"] == 0


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_targets_seen_before_are_those_of_the_ranking(chunk):
    generator = np.random.default_rng(3)
    rows = [generator.integers(1, 10, generator.integers(2, 9)).tolist() for _ in range(50)]
    windows = windows_of(rows, num_items=9, max_len=2)
    assert seen_before(windows, chunk=chunk).tolist() == [row[-1] in row[:-1] for row in rows]
    ranked = evaluate(windows, Table(torch.randn(50, 9)))
    assert 0 < ranked.protocol["unreachable_targets"] == sum(row[-1] in row[:-1] for row in rows) < 50
    assert ranked.protocol["unreachable_targets"] == (ranked.ranks > 9).sum()
    assert Evaluator(exclude_seen=False).unreachable(windows) == 0
    assert Evaluator(candidates="uniform", sampled=2).unreachable(windows) == 0


@pytest.mark.parametrize("extra", [1, 2])
def test_pad_and_mask_are_refused_as_candidates(extra):
    windows = random_windows()
    with pytest.raises(ValueError, match="PAD and MASK"):
        evaluate(windows, Table(torch.randn(60, NUM_ITEMS + extra)))
    with pytest.raises(ValueError, match="PAD and MASK"):
        evaluate(windows, Vectors(torch.randn(60, 4), torch.randn(NUM_ITEMS + extra, 4)))


@pytest.mark.parametrize("candidates", ["full", "uniform"])
def test_a_model_that_gives_what_is_not_a_number_is_named_by_its_user(candidates):
    windows, states = random_windows(), torch.randn(60, 4)
    states[23] = torch.nan
    with pytest.raises(ValueError, match=r"user 23.*NaN"):
        evaluate(windows, Vectors(states, torch.randn(NUM_ITEMS, 4)), candidates=candidates, sampled=10)


def test_batches_in_another_order_are_refused():
    windows = random_windows()
    shuffled = list(batches(windows))[::-1]
    with pytest.raises(ValueError, match="do not follow the windows"):
        Evaluator()(windows, shuffled, Table(torch.randn(60, NUM_ITEMS)), windows.item_counts())


def test_batches_that_leave_rows_out_are_refused():
    windows = random_windows()
    with pytest.raises(ValueError, match="56 rows for 60 windows"):
        few = list(batches(windows))[:-1]
        Evaluator()(windows, few, Table(torch.randn(60, NUM_ITEMS)), windows.item_counts())


def test_a_part_without_targets_is_explained():
    windows = windows_of([], num_items=5)
    with pytest.raises(UserError, match="nothing to evaluate"):
        Evaluator()(windows, [], Table(torch.randn(0, 5)), np.zeros(7, dtype=int))


def test_a_model_is_evaluated_without_dropout_and_left_as_it_was():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.table = nn.Parameter(torch.randn(60, NUM_ITEMS))

        def vectors(self) -> None:
            return None

        def scores(self, batch: SeqBatch) -> Tensor:
            return self.drop(self.table)[batch.users]

    model, windows = Model(), random_windows()
    assert evaluate(windows, model).ranks.tolist() == evaluate(windows, Table(model.table.detach())).ranks.tolist()
    assert model.training and model.drop.training


def test_the_same_scores_for_everyone_may_be_one_expanded_row():
    windows, counts = random_windows(), torch.arange(NUM_ITEMS).float()
    one = evaluate(windows, Table(counts.expand(60, -1)))
    many = evaluate(windows, Table(counts.repeat(60, 1)))
    assert one.metrics == many.metrics
    assert counts.tolist() == list(range(NUM_ITEMS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": "unifrom"}, "did you mean uniform"),
        ({"ks": ()}, "at least one k"),
        ({"ks": (0, 5)}, "each at least 1"),
        ({"sampled": 0}, "eval.sampled 0"),
        ({"batch_size": 0}, "eval.batch_size 0"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        Evaluator(**options)


def test_an_evaluator_is_a_value_with_each_k_once_in_order():
    made = Evaluator(ks=(20, 5, 5))
    assert made.ks == (5, 20) and made == Evaluator(ks=(5, 20)) != Evaluator(ks=(5, 20), seed=1)
    with pytest.raises(FrozenInstanceError):
        made.seed = 3
    with pytest.raises(TypeError):
        Evaluator((5,))


def test_the_protocol_says_how_the_figures_were_made():
    windows, scores = random_windows(max_len=7), Table(torch.randn(60, NUM_ITEMS))
    full = evaluate(windows, scores).protocol
    assert (full["candidates"], full["exclude_seen"], full["max_len"], full["ties"]) == ("full", True, 7, "against")
    drawn = evaluate(windows, scores, candidates="popularity", sampled=9, seed=4, exclude_seen=False).protocol
    assert (drawn["candidates"], drawn["exclude_seen"], drawn["candidates_seed"]) == ("popularity-9", False, 4)


# Metrics


def test_a_row_metric_is_what_the_mean_is_taken_of():
    found = np.array([1, 2, 10, 11, 500])
    for name, value in rank_metrics(found, (1, 5, 10)).items():
        assert row_metric(name, found).mean() == pytest.approx(value)
    assert row_metric("ndcg@10", found).tolist() == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0, 0])


@pytest.mark.parametrize(("name", "message"), [("ndgc@10", "ndcg"), ("ndcg", "ndcg@k"), ("mrr@0", "at least 1")])
def test_a_misspelt_metric_names_the_right_one(name, message):
    with pytest.raises(UserError, match=message):
        row_metric(name, np.array([1]))


@pytest.mark.parametrize(("name", "ours"), [("hit@10", "hr@10"), ("Hit@5", "hr@5"), ("NDCG@20", "ndcg@20")])
def test_names_of_recboles_metrics_are_understood(name, ours):
    found = np.array([1, 7, 30])
    assert row_metric(name, found).tolist() == row_metric(ours, found).tolist()
    assert seqcl.config.experiment({"train": {"monitor": name}}).train.monitor == ours
    assert seqcl.config.resolve(["--train.monitor", name]).train.monitor == ours


def test_a_registered_metric_goes_before_another_name():
    register("metric", lambda ranks, k: ranks * 0.0, name="hit")
    try:
        assert row_metric("hit@10", np.array([1])).tolist() == [0.0]
        assert seqcl.config.experiment({"train": {"monitor": "hit@10"}}).train.monitor == "hit@10"
    finally:
        forget("hit")


@pytest.fixture
def top_half():
    """A metric of somebody else: 1 in the first half of the list, 0.5 in the second, else 0."""

    def half(ranks: np.ndarray, k: int) -> np.ndarray:
        return np.where(ranks <= k / 2, 1.0, np.where(ranks <= k, 0.5, 0.0))

    yield register("metric", half, name="half")
    forget("half")


def forget(name: str) -> None:
    METRICS.others.pop(name)
    METRICS.sources.pop(name)


def test_a_registered_metric_is_reported_sliced_and_tested_like_ours(top_half):
    windows, scores = random_windows(), torch.randn(60, NUM_ITEMS)
    result = evaluate(windows, Table(scores), ks=(4, 10))
    rows = row_metric("half@10", result.ranks)
    assert rows.tolist() == [1.0 if rank <= 5 else 0.5 if rank <= 10 else 0.0 for rank in result.ranks]
    assert result.metrics["half@10"] == rows.mean() and result.metrics["half@4"] <= result.metrics["half@10"]
    ours = {name: value for name, value in result.metrics.items() if not name.startswith("half")}
    for slices in by_slice(result, windows, windows.item_counts(), (10,)).values():
        total = sum(it["targets"] * it["metrics"].get("half@10", 0.0) for it in slices.values())
        assert total / 60 == pytest.approx(rows.mean())
    worse = evaluate(windows, Table(-scores), ks=(4, 10))
    found = compare([rows], [row_metric("half@10", worse.ranks)])
    assert found.difference == pytest.approx(rows.mean() - worse.metrics["half@10"])
    vectors = Vectors(torch.randn(60, 8), torch.randn(NUM_ITEMS, 8))
    assert "half@20" in through(ExactIndex(vectors.table), windows, vectors, windows.item_counts()).result.metrics
    forget("half")
    assert evaluate(windows, Table(scores), ks=(4, 10)).metrics == ours
    register("metric", top_half, name="half")


def test_a_registered_metric_can_be_monitored_and_is_in_the_tables_of_a_run(top_half, tmp_path, capsys):
    from seqcl.report import print_results, read_history

    log = markov(users=40, items=20, length=6, branching=2, seed=1).interactions
    options = {"train": {"epochs": 2, "monitor": "half@20", "batch_size": 16}, "encoder": {"dim": 8}}
    options["eval"] = {"exclude_seen": False}
    run = seqcl.train(log, model="GRU4Rec", runs=str(tmp_path), progress=False, **options)
    epochs = [row["valid_half@20"] for row in read_history(run.folder / "history.csv")]
    assert run.metrics["valid"]["half@20"] == max(epochs)
    assert "half@20" in run.metrics["test"] and "half@20" in run.metrics["baselines"]["Popularity"]["test"]
    print_results(run.metrics, run.folder)
    assert "half@10" in capsys.readouterr().out
    assert {"half@5", "half@20"} <= run.compare_indexes()[0].keys()
    with pytest.raises(UserError, match="did you mean half@20"):
        seqcl.train(log, runs=str(tmp_path), train={"monitor": "hafl@20"})


@pytest.mark.parametrize("values", [lambda ranks, k: 1.0, lambda ranks, k: ranks / 0.0, lambda ranks, k: ranks[1:]])
def test_a_registered_metric_must_give_a_number_for_each_row(values):
    register("metric", values, name="odd")
    try:
        with np.errstate(divide="ignore"), pytest.raises(UserError, match=r"odd@5: .*a finite number for each of 2"):
            row_metric("odd@5", np.array([1, 2]))
    finally:
        forget("odd")


def test_a_registered_metric_cannot_have_the_name_of_a_metric_of_the_lists():
    register("metric", lambda ranks, k: ranks, name="coverage")
    try:
        with pytest.raises(UserError, match="'coverage' is taken"):
            Evaluator()
    finally:
        forget("coverage")


def test_list_metrics_at_their_extremes():
    counts = np.array([5, 3, 1, 0])
    same = list_metrics(np.array([[7, 7, 7, 7]]), counts, (1,))
    assert same == {"coverage@1": 1.0, "popularity@1": 9 / 4, "gini@1": 0.0}
    one = list_metrics(np.array([[8, 0, 0, 0]]), counts, (1,))
    assert one == {"coverage@1": 0.25, "popularity@1": 5.0, "gini@1": 0.75}
    none = list_metrics(np.array([[0, 0, 0, 0]]), counts, (1,))
    assert none == {"coverage@1": 0.0, "popularity@1": 0.0, "gini@1": 0.0}


def test_metrics_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    windows = random_windows(users=200)
    scores = torch.randn(200, NUM_ITEMS, generator=torch.Generator().manual_seed(3))
    result = evaluate(windows, Table(scores), ks=(5, 10, NUM_ITEMS))
    relevant = np.zeros((200, NUM_ITEMS))
    relevant[np.arange(200), result.targets - 1] = 1
    masked = scores.numpy().copy()
    for row in range(200):
        masked[row, list(history(windows, row))] = -1e9
    for k in (5, 10):
        assert result.metrics[f"ndcg@{k}"] == pytest.approx(metrics.ndcg_score(relevant, masked, k=k), abs=1e-6)
        hits = metrics.top_k_accuracy_score(result.targets, masked, k=k, labels=np.arange(1, NUM_ITEMS + 1))
        assert result.metrics[f"recall@{k}"] == pytest.approx(hits, abs=1e-6)
    everywhere = metrics.label_ranking_average_precision_score(relevant, masked)
    assert result.metrics[f"mrr@{NUM_ITEMS}"] == pytest.approx(everywhere, abs=1e-6)


def recbole_metrics(scores: Tensor, targets: Tensor, seen: list[set[int]], counts: np.ndarray) -> dict[str, float]:
    """Metrics of the scores by RecBole's collector and evaluator; ids 1..N as ours, its PAD column in front."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("recbole.config", exc_type=ImportError)
        from recbole.config import Config
        from recbole.evaluator import Collector
        from recbole.evaluator import Evaluator as RecBoleEvaluator

        names = ["Recall", "Hit", "NDCG", "MRR", "MAP", "Precision", "ItemCoverage", "AveragePopularity", "GiniIndex"]
        options = {"topk": [5, 10, 20], "metrics": names, "metric_decimal_place": 9, "train_neg_sample_args": None}
        config = Config("SASRec", "ml-100k", config_dict=options)
        collector, evaluator = Collector(config), RecBoleEvaluator(config)
        for start in range(0, len(scores), 64):
            block = torch.cat([torch.full((len(scores), 1), -torch.inf), scores], 1)[start : start + 64]
            rows = [row for row in range(len(block)) for _ in seen[start + row]]
            block[rows, [column + 1 for row in range(len(block)) for column in seen[start + row]]] = -torch.inf
            collector.eval_batch_collect(block, None, torch.arange(len(block)), targets[start : start + 64])
        found = collector.get_data_struct()
        found.set("data.num_items", scores.shape[1])
        found.set("data.count_items", dict(enumerate(counts.tolist())))
        return dict(evaluator.evaluate(found))


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_metrics_equal_those_of_recbole_on_the_same_scores(exclude_seen, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])  # RecBole reads the command line
    pytest.importorskip("recbole")
    windows = random_windows(users=300, num_items=150, seed=5)
    scores = torch.randn(300, 150, generator=torch.Generator().manual_seed(5))
    scores += torch.arange(150) / 50  # some items are recommended more often
    result = evaluate(windows, Table(scores), exclude_seen=exclude_seen)
    seen = [history(windows, row) if exclude_seen else set() for row in range(300)]
    theirs = recbole_metrics(scores, torch.from_numpy(result.targets), seen, windows.item_counts())
    ours = {"hit": "hr", "itemcoverage": "coverage", "averagepopularity": "popularity", "giniindex": "gini"}
    assert len(theirs) == 27
    for name, value in theirs.items():
        kind, _, k = name.partition("@")
        assert result.metrics[f"{ours.get(kind, kind)}@{k}"] == pytest.approx(value, abs=1e-6), name
    assert result.metrics["ndcg@10"] > 0.01


# Sampled candidates


def negatives(windows: Windows, count: int, *, weights: np.ndarray | None = None, seed: int = 0, exclude_seen=True):
    weights = np.ones(windows.num_items) if weights is None else weights
    generator = np.random.default_rng(seed)
    return draw_negatives(windows, count, weights=weights, exclude_seen=exclude_seen, generator=generator)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_negatives_are_distinct_and_never_the_target_nor_what_is_excluded(exclude_seen):
    windows = random_windows()
    drawn = negatives(windows, 20, exclude_seen=exclude_seen)
    assert drawn.shape == (60, 20)
    met = 0
    for row in range(60):
        chosen = set(drawn[row].tolist())
        assert len(chosen) == 20 and chosen <= set(range(NUM_ITEMS))
        assert windows.items[windows.stop[row]] - 1 not in chosen
        met += len(chosen & history(windows, row))
    assert (met == 0) == exclude_seen


def test_all_that_is_left_can_be_drawn():
    windows = windows_of([[1, 2, 3], [4, 4, 5]], num_items=30)
    drawn = negatives(windows, 27)
    assert set(drawn[0].tolist()) == set(range(3, 30))
    assert set(drawn[1].tolist()) <= set(range(30)) - {3, 4} and len(set(drawn[1].tolist())) == 27


def test_too_few_candidates_are_explained():
    with pytest.raises(UserError, match=r"sampled 28: row 0 of the log has only 27"):
        negatives(windows_of([[1, 2, 3]], num_items=30), 28)
    weights = np.array([1, 1, 1, 1, 0, 0])
    with pytest.raises(UserError, match="only 1 candidates"):
        negatives(windows_of([[1, 2, 3]], num_items=6), 2, weights=weights)


def test_one_seed_gives_the_same_negatives_and_another_seed_others():
    windows = random_windows()
    assert np.array_equal(negatives(windows, 10), negatives(windows, 10))
    assert not np.array_equal(negatives(windows, 10), negatives(windows, 10, seed=1))


@pytest.mark.parametrize("rest", [True, False], ids=["completed row by row", "by drawing alone"])
def test_negatives_follow_their_weights_without_replacement(rest, monkeypatch):
    if rest:  # no draw is accepted, so that every row is completed from the noise
        monkeypatch.setattr("seqcl.evaluation.candidates.allowed", lambda pool, *_: np.zeros(pool.shape, dtype=bool))
    weights = np.array([1.0, 8.0, 4.0, 2.0, 1.0])
    drawn = negatives(windows_of([[1]] * 6000, num_items=5), 2, weights=weights)
    rest_of = weights[1:] / weights[1:].sum()
    for column in range(4):
        first = rest_of[column]
        second = sum(rest_of[other] * first / (1 - rest_of[other]) for other in range(4) if other != column)
        share = (drawn == column + 1).any(1).mean()
        assert share == pytest.approx(first + second, abs=0.03)  # five standard deviations


def test_what_was_drawn_stays_when_a_row_is_completed():
    barred, weights = np.array([10 + 3]), np.array([9.0, 9.0, 9.0, 9.0, 0.001, 9.0, 0.0, 0.0, 0.0, 0.0])
    for seed in range(20):
        chosen = draw_rest(np.array([4]), 1, barred, 3, weights, np.random.default_rng(seed)).tolist()
        assert 4 in chosen and len(set(chosen)) == 3 and set(chosen) <= {0, 1, 2, 4, 5}


@pytest.mark.parametrize("kind", ["table", "vectors"])
@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("candidates", ["uniform", "popularity"])
def test_sampled_ranks_are_those_among_the_target_and_its_negatives(kind, candidates, exclude_seen):
    windows = random_windows()
    vectors = Vectors(torch.randn(60, 8), torch.randn(NUM_ITEMS, 8))
    scores = vectors.states @ vectors.table.T
    scorer = vectors if kind == "vectors" else Table(scores)
    options = {"candidates": candidates, "sampled": 12, "seed": 3, "exclude_seen": exclude_seen}
    result = evaluate(windows, scorer, **options)
    weights = windows.item_counts()[1:-1] if candidates == "popularity" else None
    drawn = negatives(windows, 12, weights=weights, seed=3, exclude_seen=exclude_seen)
    for row in range(60):
        own = scores[row, windows.items[windows.stop[row]] - 1]
        assert result.ranks[row] == 1 + (scores[row, drawn[row].tolist()] >= own).sum()
    assert result.metrics.keys() == rank_metrics(result.ranks, (5, 10, 20)).keys()
    again = evaluate(windows, scorer, size=60, **options)
    assert again.ranks.tolist() == result.ranks.tolist()


# Through an index


def through(index, windows, scorer, counts, exact=None):
    """Ask an index for windows, beside an exact one if there is any."""
    asked = Questions.encode(Evaluator(), windows, batches(windows), scorer, counts)
    return asked.result(index, exact and asked.ask(exact)[1:])


def test_an_exact_index_gives_the_metrics_of_the_full_ranking():
    windows = random_windows(users=90, num_items=200)
    vectors = Vectors(torch.randn(90, 8), torch.randn(200, 8))
    full = evaluate(windows, vectors)
    index = ExactIndex(vectors.table)
    counts = windows.item_counts()
    found = through(index, windows, vectors, counts, exact=index)
    assert found.result.metrics == pytest.approx(full.metrics)
    assert found.result.ranks[full.ranks <= 20].tolist() == full.ranks[full.ranks <= 20].tolist()
    assert (found.result.ranks[full.ranks > 20] == 200).all()
    assert found.overlap == {"overlap@5": 1.0, "overlap@10": 1.0, "overlap@20": 1.0}
    assert found.result.protocol["candidates"] == "top 20 of exact"
    assert found.query_seconds > 0 and found.exact_seconds > 0


def test_a_target_that_an_index_does_not_list_is_no_hit_where_the_list_has_room_for_every_item():
    windows = windows_of([[1, 2, 1], [1, 2, 3]], num_items=4)
    found = through(ExactIndex(torch.eye(4)), windows, Vectors(torch.randn(2, 4), torch.eye(4)), np.ones(6))
    assert found.result.metrics["recall@20"] == found.result.metrics["recall@5"] == 0.5


def test_what_an_index_loses_is_reported():
    windows = random_windows(users=90, num_items=200)
    vectors = Vectors(torch.randn(90, 8), torch.randn(200, 8))
    half = ExactIndex(vectors.table[:100])
    exact = ExactIndex(vectors.table)
    counts = windows.item_counts()
    found = through(half, windows, vectors, counts, exact=exact)
    assert 0.3 < found.overlap["overlap@20"] < 0.7
    assert (found.result.ranks[found.result.targets > 100] == 200).all()


def test_an_index_does_not_break_ties_in_our_favour():
    windows = windows_of([[1, 2], [1, 3]], num_items=4)
    vectors = Vectors(torch.ones(2, 1), torch.tensor([[9.0], [1.0], [1.0], [0.5]]))
    found = through(ExactIndex(vectors.table), windows, vectors, np.ones(6))
    assert found.result.ranks.tolist() == [2, 2]


def test_a_model_without_vectors_cannot_be_searched():
    windows = random_windows()
    index = FaissIndex(torch.randn(NUM_ITEMS, 4))
    with pytest.raises(UserError, match="Table scores without vectors"):
        through(index, windows, Table(torch.randn(60, NUM_ITEMS)), np.ones(42))


# Diagnostics


def test_the_effective_rank_counts_directions():
    assert effective_rank(singular_values(torch.eye(7) * 3)) == pytest.approx(7)
    assert effective_rank(singular_values(torch.randn(20, 1) * torch.randn(1, 7))) == pytest.approx(1, abs=1e-6)
    assert effective_rank(singular_values(torch.zeros(4, 3))) == 0


def test_a_common_offset_is_no_direction_once_it_is_taken_off():
    vectors = torch.eye(5, dtype=torch.float64).repeat(3, 1) + 1000
    found = spectrum(vectors)
    assert found["effective_rank"] < 1.1
    assert found["effective_rank_centered"] == pytest.approx(4)
    assert found["top_share"] == pytest.approx(1, abs=1e-4)


def test_the_mean_cosine_is_that_of_all_pairs():
    vectors = torch.randn(30, 6, dtype=torch.float64)
    table = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    assert spectrum(vectors)["mean_cosine"] == pytest.approx(float(table[~torch.eye(30, dtype=torch.bool)].mean()))


def test_values_that_are_not_finite_have_no_spectrum():
    with pytest.raises(ValueError, match="not finite"):
        singular_values(torch.tensor([[1.0, torch.nan]]))


# Significance


def test_one_seed_is_the_paired_two_sided_t_test():
    generator = np.random.default_rng(0)
    first, second = generator.random(200), generator.random(200) - 0.05
    found = compare([first], [second])
    assert found.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue)
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_the_better_model_is_better_and_the_worse_one_is_not():
    generator = np.random.default_rng(0)
    good, bad = [generator.random(500) + 0.2 for _ in range(3)], [generator.random(500) for _ in range(3)]
    assert compare(good, bad).better and compare(good, bad).seeds_better == 3
    assert not compare(bad, good).better
    assert compare(bad, good).p_value == pytest.approx(compare(good, bad).p_value)
    assert compare(bad, good).difference == pytest.approx(-compare(good, bad).difference)


def test_repeating_a_seed_is_no_new_evidence():
    generator = np.random.default_rng(1)
    first, second = generator.random(100), generator.random(100)
    assert compare([first] * 9, [second] * 9).p_value == pytest.approx(compare([first], [second]).p_value)


def test_a_lead_that_one_seed_denies_is_not_called_better():
    rows = np.random.default_rng(2).normal(size=(60, 400))
    found = compare([*(rows[:59] + 1), rows[59] * 0.01 - 0.01], [*np.zeros((60, 400))])
    assert found.p_value < 0.05 and found.seeds_better == 59 and not found.better


def test_where_all_rows_of_a_seed_agree_it_is_the_t_test_over_seeds():
    lead = np.array([0.3, 0.1, 0.25, -0.02])
    found = compare([np.full(50, value) for value in lead], [np.zeros(50)] * 4)
    assert found.p_value == pytest.approx(stats.ttest_1samp(lead, 0).pvalue)
    interval = stats.ttest_1samp(lead, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """Of rows, of seeds and of the rest, by way of an analysis of variance over the cells."""
    seeds, rows = values.shape
    cells = values.ravel()
    seed, row = (np.eye(n)[which.ravel()] for n, which in zip(values.shape, np.indices(values.shape), strict=True))

    def left(*factors: np.ndarray) -> float:
        design = np.hstack([np.ones((len(cells), 1)), *factors])
        return float(np.square(cells - design @ np.linalg.lstsq(design, cells, rcond=None)[0]).sum())

    whole = left(seed, row)
    return (
        (left(seed) - whole) / (rows - 1),
        (left(row) - whole) / (seeds - 1),
        whole / ((rows - 1) * (seeds - 1)),
    )


CROSSED = np.random.default_rng(3).normal(size=(4, 30))
OF_SEEDS, OF_ROWS = np.array([0.5, -0.5, 0.2, 0.4])[:, None], np.random.default_rng(5).normal(size=30)


def test_the_error_of_a_mean_is_that_of_the_two_way_layout_with_random_rows_and_seeds():
    values = CROSSED + OF_SEEDS + OF_ROWS
    rows, seeds, rest = mean_squares(values)
    assert min(rows, seeds) > rest
    error, freedom = standard_error(values)
    assert error == pytest.approx(crossed_error(values.tolist()))
    assert error == pytest.approx(math.sqrt((rows + seeds - rest) / 120))
    assert freedom == pytest.approx((rows + seeds - rest) ** 2 / (rows**2 / 29 + seeds**2 / 3 + rest**2 / 87))


@pytest.mark.parametrize("rows_matter", [True, False])
@pytest.mark.parametrize("seeds_matter", [True, False])
def test_a_component_that_would_be_negative_is_left_out_of_the_error(rows_matter, seeds_matter):
    even = CROSSED - CROSSED.mean(0) - CROSSED.mean(1, keepdims=True)
    values = even + OF_ROWS * rows_matter + OF_SEEDS * seeds_matter
    rows, seeds, rest = mean_squares(values)
    assert (rows > rest, seeds > rest) == (rows_matter, seeds_matter)
    expected = {
        (True, True): (rows + seeds - rest, None),
        (True, False): (rows, 29),
        (False, True): (seeds, 3),
        (False, False): (rest, 87),
    }[rows_matter, seeds_matter]
    error, freedom = standard_error(values)
    assert error == pytest.approx(math.sqrt(expected[0] / 120))
    assert expected[1] is None or freedom == pytest.approx(expected[1])


@pytest.mark.parametrize(("row_spread", "seed_spread"), [(1.0, 0.0), (1.0, 0.2), (0.0, 0.3), (0.0, 0.0)])
def test_the_interval_holds_the_truth_some_nineteen_times_in_twenty(row_spread, seed_spread):
    # Users alone, both, seeds alone (where an interval over users alone holds it 4 times in 10), neither; noise in all.
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(1000):
        rows, seeds = generator.normal(size=(1, 40)) * row_spread, generator.normal(size=(3, 1)) * seed_spread
        values = rows + seeds + 0.5 * generator.normal(size=(3, 40))
        found = compare([*values], [*np.zeros((3, 40))])
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / 1000 <= 0.985


def test_rows_of_one_user_are_drawn_together():
    """Without a difference in truth, p below .05 comes in some 5 of 100 draws; over rows alone in more than half."""
    generator = np.random.default_rng(5)
    found, over_rows = [], []
    for _ in range(400):
        users = np.repeat(np.arange(60), generator.integers(1, 30, 60))
        values = [0.3 * generator.normal(size=60)[users] + generator.normal(size=len(users))]
        found.append(compare(values, [np.zeros(len(users))], users=users).p_value)
        over_rows.append(compare(values, [np.zeros(len(users))]).p_value)
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09 < np.mean(np.array(over_rows) < 0.05)


def test_values_by_user_have_the_mean_over_rows_and_the_error_of_a_ratio():
    users = np.array([7, 3, 7, 9, 3, 3])
    values = np.array([[1.0, 2.0, 4.0, -3.0, 0.5, 1.5]])
    found = by_user(values, users)
    assert found.shape == (1, 3) and found.mean() == pytest.approx(values.mean())
    sums, counts = np.array([4.0, 5.0, -3.0]), np.array([3, 2, 1])  # of users 3, 7 and 9
    rest = sums - counts * values.mean()
    assert found.std(ddof=1) / math.sqrt(3) == pytest.approx(math.sqrt(3 / 2 * (rest**2).sum()) / 6)
    two = np.concatenate((values, values + 1))
    np.testing.assert_allclose(by_user(two, users).mean(1), two.mean(1))
    assert by_user(values, np.arange(6)) is values


def test_equal_models_do_not_differ():
    rows = np.linspace(0, 1, 50)
    found = compare([rows], [rows])
    assert (found.difference, found.p_value, found.better) == (0, 1, False)


@pytest.mark.parametrize(
    ("first", "second"), [([np.ones(3)], []), ([np.ones(3)], [np.ones(4)]), ([np.ones(1)], [np.zeros(1)])]
)
def test_rows_that_do_not_pair_up_are_refused(first, second):
    with pytest.raises(ValueError, match=r"pair up|at least two"):
        compare(first, second)
