"""Exact and faiss indexes: the same results where nothing is approximate, and never what is excluded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqcl.errors import UserError
from seqcl.retrieval import ExactIndex, FaissIndex
from tests.reference_evaluation import best_columns

KINDS = ("flat", "ivf", "hnsw")
ALL = (*KINDS, "ivfpq")


def vectors_of(size: int, dim: int = 16, seed: int = 0) -> Tensor:
    """Vectors of very different lengths, as those of popular and rare items are."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(size, dim, generator=generator), dim=1)
    return directions * torch.rand(size, 1, generator=generator).mul(3).exp()


def histories(queries: int, size: int, most: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows and item ids, up to `most` different ones a row and rows in no order."""
    generator = torch.Generator().manual_seed(seed)
    pairs = [(row, int(item) + 1) for row in range(queries)
             for item in torch.randperm(size, generator=generator)[: row % (most + 1)]]  # fmt: skip
    table = torch.tensor(pairs)[torch.randperm(len(pairs), generator=generator)]
    return table[:, 0], table[:, 1]


def by_sorting(vectors: Tensor, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor]) -> list[list[int]]:
    """Item ids of the k best that are not excluded."""
    seen = [set((exclude[1][exclude[0] == row] - 1).tolist()) for row in range(len(queries))]
    scores = (queries @ vectors.T).tolist()
    return [[column + 1 for column in best_columns(scores[row], k, seen[row])] for row in range(len(queries))]


def make(kind: str, vectors: Tensor, ids: Tensor | None = None) -> ExactIndex | FaissIndex:
    return ExactIndex(vectors, ids) if kind == "exact" else FaissIndex(vectors, ids, kind=kind)


@pytest.mark.parametrize("kind", ["exact", "flat", "all cells"])
def test_an_index_that_misses_nothing_gives_the_sorted_list(kind):
    vectors, queries = vectors_of(700), vectors_of(90, seed=1)
    exclude = histories(90, 700, most=60)
    index = FaissIndex(vectors, kind="ivf", lists=8, probes=8) if kind == "all cells" else make(kind, vectors)
    scores, items = index.search(queries, 10, exclude)
    expected = torch.tensor(by_sorting(vectors, queries, 10, exclude))
    assert (items != expected).float().mean() < 0.02  # neighbours within rounding may change places
    assert torch.equal(items.sort().values, expected.sort().values)
    assert torch.allclose(scores, (queries @ vectors.T).gather(1, items - 1), rtol=1e-4)
    assert scores.dtype == torch.float32 and items.dtype == torch.int64


def test_more_queries_than_a_block_holds_give_the_same_lists():
    vectors, queries = vectors_of(900), vectors_of(2100, seed=1)
    exclude = histories(2100, 900, most=5)
    _, items = ExactIndex(vectors).search(queries, 5, exclude)
    expected = torch.tensor(by_sorting(vectors, queries, 5, exclude))
    assert (items != expected).float().mean() < 0.01  # neighbours within rounding may change places


@pytest.mark.parametrize("kind", ALL)
def test_an_approximate_index_finds_nearly_all_of_the_exact_lists(kind):
    vectors, queries = vectors_of(3000), vectors_of(200, seed=1)
    exclude = histories(200, 3000, most=40)
    _, truth = ExactIndex(vectors).search(queries, 10, exclude)
    _, items = make(kind, vectors).search(queries, 10, exclude)
    found = (truth[:, :, None] == items[:, None, :]).any(2).float().mean()
    assert found >= {"flat": 1.0, "ivf": 0.7, "hnsw": 0.97, "ivfpq": 0.4}[kind]


@pytest.mark.parametrize("kind", ALL)
def test_excluded_items_are_never_found_and_lists_are_full_all_the_same(kind):
    vectors, queries = vectors_of(400), vectors_of(60, seed=1)
    best = (queries @ vectors.T).topk(300).indices + 1  # only what scores badly is left
    exclude = torch.arange(60).repeat_interleave(300), best.flatten()
    scores, items = make(kind, vectors).search(queries, 10, exclude)
    barred = set(zip(*(part.tolist() for part in exclude), strict=True))
    for row in range(60):
        assert len(set(items[row].tolist())) == 10
        assert not {(row, item) for item in items[row].tolist()} & barred
    assert (items > 0).all() and (scores.diff(dim=1) <= 1e-4).all()


@pytest.mark.parametrize("kind", ["exact", *ALL])
def test_where_fewer_than_k_are_left_the_list_ends_in_pad(kind):
    vectors, queries = vectors_of(12), vectors_of(3, seed=1)
    rows, items = torch.arange(3).repeat_interleave(9), torch.arange(1, 10).repeat(3)
    scores, found = make(kind, vectors).search(queries, 20, (rows, items))
    assert found.shape == scores.shape == (3, 20)
    assert [set(row[:3]) for row in found.tolist()] == [{10, 11, 12}] * 3
    assert (found[:, 3:] == 0).all() and scores[:, 3:].isneginf().all() and scores[:, :3].isfinite().all()


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_ids_of_ones_own_are_found_and_excluded(kind):
    vectors, ids = vectors_of(50), torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:50] + 1
    queries = vectors_of(5, seed=1)
    index = make(kind, vectors, ids)
    _, items = index.search(queries, 3)
    assert items.tolist() == [[int(ids[column - 1]) for column in row] for row in by_sorting_all(vectors, queries, 3)]
    strangers = torch.tensor(
        [int(ids.max()) + 1 + int(items[1, 1]), 0, -3]
    )  # the first would be row 1's, if rows ran on
    exclude = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]), torch.cat([items[:, 0], strangers])
    _, rest = index.search(queries, 2, exclude)
    assert rest.tolist() == items[:, 1:].tolist()


def by_sorting_all(vectors: Tensor, queries: Tensor, k: int) -> list[list[int]]:
    return by_sorting(vectors, queries, k, (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)))


@pytest.mark.parametrize("kind", ALL)
def test_an_index_built_twice_gives_the_same_lists(kind):
    vectors, queries = vectors_of(500), vectors_of(20, seed=1)
    torch.set_num_threads(1)
    assert torch.equal(make(kind, vectors).search(queries, 10)[1], make(kind, vectors).search(queries, 10)[1])


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_no_queries_give_no_lists(kind):
    scores, items = make(kind, vectors_of(50)).search(torch.zeros(0, 16), 5)
    assert scores.shape == items.shape == (0, 5)


def test_codes_of_a_single_vector_are_refused_and_other_kinds_find_it():
    alone = vectors_of(1)
    with pytest.raises(UserError, match="ivfpq has no codes of a single vector: use flat"):
        make("ivfpq", alone)
    for kind in KINDS:
        assert make(kind, alone).search(alone, 1)[1].tolist() == [[1]]


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_what_cannot_be_indexed_or_searched_is_refused(kind):
    good = vectors_of(10)
    bad = good.clone()
    bad[4, 2] = torch.inf
    with pytest.raises(ValueError, match="vector 4"):
        make(kind, bad)
    with pytest.raises(ValueError, match="at least one row"):
        make(kind, good[:0])
    with pytest.raises(ValueError, match=r"ids must be \(10,\)"):
        make(kind, good, torch.arange(1, 10))
    for ids in (torch.arange(10), torch.ones(10, dtype=torch.long)):
        with pytest.raises(ValueError, match="each stand once"):
            make(kind, good, ids)
    index = make(kind, good)
    with pytest.raises(ValueError, match=r"queries must be \(B, 16\)"):
        index.search(torch.zeros(2, 15), 3)
    with pytest.raises(ValueError, match="query 7"):
        index.search(bad[[0, 1, 2, 3, 5, 6, 7, 4]], 3)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="did you mean hnsw"):
        FaissIndex(vectors_of(10), kind="hsnw")


@pytest.mark.parametrize(("size", "lists"), [(1, None), (5, None), (38, None), (100, 50), (8, 8)])
def test_a_tiny_catalogue_is_clustered_without_a_warning_and_searched_right(size, lists, capfd):
    vectors, queries = vectors_of(size), vectors_of(4, seed=1)
    _, items = FaissIndex(vectors, kind="ivf", lists=lists, probes=lists).search(queries, min(size, 3))
    assert items.tolist() == by_sorting_all(vectors, queries, min(size, 3))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("option", ["links", "build_width", "search_width"])
def test_a_width_below_one_is_named(option):
    with pytest.raises(UserError, match=f"{option} 0"):
        FaissIndex(vectors_of(10), kind="hnsw", **{option: 0})


def test_wider_searches_find_more():
    vectors, queries = vectors_of(5000, dim=32), vectors_of(100, dim=32, seed=1)
    truth = ExactIndex(vectors).search(queries, 20)[1]

    def found(**options: object) -> float:
        items = FaissIndex(vectors, **options).search(queries, 20)[1]
        return (truth[:, :, None] == items[:, None, :]).any(2).float().mean().item()

    assert found(kind="ivf", lists=50, probes=2) < found(kind="ivf", lists=50, probes=20)
    assert found(kind="hnsw", links=4, search_width=20) < found(kind="hnsw", links=4, search_width=400)
    assert found(kind="hnsw", links=4, search_width=20) < found(kind="hnsw", links=16, search_width=20)
    assert found(kind="hnsw", links=4, search_width=20, build_width=4) < found(kind="hnsw", links=4, search_width=20)


@pytest.mark.parametrize("kind", ALL)
def test_an_index_that_was_saved_gives_the_same_lists(kind, tmp_path):
    vectors, queries = vectors_of(500), vectors_of(20, seed=1)
    index = make(kind, vectors)
    index.save(tmp_path / "index.faiss")
    again = FaissIndex.load(tmp_path / "index.faiss")
    exclude = histories(20, 500, most=10)
    for mine, theirs in zip(index.search(queries, 7, exclude), again.search(queries, 7, exclude), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ValueError, match=r"only an index of the items 1\.\.N"):
        make(kind, vectors, torch.arange(2, 502)).save(tmp_path / "other.faiss")


def test_codes_take_a_byte_for_four_coordinates_and_flat_four_for_each():
    vectors = vectors_of(10_000, dim=15)
    assert make("flat", vectors).bytes_per_item == pytest.approx(60, abs=1)
    assert make("ivfpq", vectors).bytes_per_item < 4 + 8 + 6  # codes, ids, and the cells and code books shared by all
