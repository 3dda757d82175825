"""An index finds the share of the exact lists that was asked for, or says that it cannot."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from seqcl.blocks import block_rows
from seqcl.cli.main import main
from seqcl.errors import UserError, all_finite, not_finite
from seqcl.retrieval import ExactIndex, FaissIndex, pieces, promise
from seqcl.retrieval.bundle import Bundle
from seqcl.retrieval.promise import keep_promise, narrowest, rising
from tests.test_bundle import trained
from tests.test_retrieval import ALL, vectors_of

SIZE = 4000


def catalogue(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(SIZE + 600, 24, generator=generator)
    return draw[:SIZE], draw[SIZE:]


def found_by(index: FaissIndex, vectors: torch.Tensor, queries: torch.Tensor, k: int) -> float:
    truth, items = ExactIndex(vectors).search(queries, k)[1], index.search(queries, k)[1]
    return (truth[:, :, None] == items[:, None, :]).any(2).float().mean().item()


@pytest.mark.parametrize(("kind", "option"), [("hnsw", "search_width"), ("ivf", "probes"), ("ivfpq", "rerank")])
def test_the_narrowest_search_that_finds_the_share_is_set_and_strangers_get_it_too(kind, option):
    vectors, queries = catalogue()
    index = FaissIndex(vectors, kind=kind, links=8)
    told = keep_promise(index, vectors, queries[:400], recall=0.9, k=10)
    assert told[option] == getattr(index, option) and told["k"] == 10 and told["queries"] == 200
    assert found_by(index, vectors, queries[400:], 10) >= 0.88
    assert told["recall"] == pytest.approx(found_by(index, vectors, queries[1:400:2], 10), abs=0.002)
    assert told["queries_per_second"] > 0 and told["build_seconds"] > 0 and told["bytes_per_item"] > 4
    wide = getattr(index, option)
    lower = keep_promise(index, vectors, queries[:400], recall=0.5, k=10)
    assert lower[option] < wide and 0.45 < lower["recall"] < 0.8


def test_flat_has_nothing_to_choose_and_items_that_score_the_same_are_the_same():
    vectors, queries = catalogue()
    told = keep_promise(FaissIndex(vectors), vectors, queries[:20], recall=1.0, k=10)
    assert told["recall"] == 1.0 and "probes" not in told and "search_width" not in told
    same = vectors[torch.arange(SIZE) % 7]  # each stands there some 570 times: any of them will do
    assert keep_promise(FaissIndex(same, kind="hnsw"), same, queries[:20], recall=1.0, k=10)["recall"] == 1.0


def test_a_share_that_no_width_finds_is_refused_with_the_best_and_the_way_out(monkeypatch):
    monkeypatch.setattr(promise, "WIDEST", 10)
    monkeypatch.setattr(promise, "RERANKED", (10, SIZE))
    vectors, queries = catalogue()
    searched: list[int] = []
    real = FaissIndex.search
    monkeypatch.setattr(FaissIndex, "search", lambda self, *what: searched.append(1) or real(self, *what))
    for kind, way in (("hnsw", "ivf or flat"), ("ivfpq", "ivf, hnsw or flat")):
        searched.clear()
        with pytest.raises(UserError, match=rf"{kind} finds 0\.\d+ of the exact 10 best.*{way}") as caught:
            keep_promise(FaissIndex(vectors, kind=kind), vectors, queries[:100], recall=0.97, k=10)
        assert len(str(caught.value)) <= 300 and len(searched) == 1  # the widest search says so at once


@pytest.mark.parametrize(("kind", "option"), [("hnsw", "search_width"), ("ivfpq", "rerank")])
def test_a_share_that_the_mean_alone_reaches_takes_the_widest_search_and_says_so(monkeypatch, caplog, kind, option):
    monkeypatch.setattr(promise, "WIDEST", 10)
    monkeypatch.setattr(promise, "RERANKED", (20, SIZE))
    vectors, queries = catalogue()
    index = FaissIndex(vectors, kind=kind)
    plan = promise.steps(index, 10, 0.5)
    for name, values, _ in plan:
        setattr(index, name, values[-1])
    shares = promise.Recall(vectors, queries[:100:2], 10).of(index)
    asked = (float(shares.mean()) + promise.lower(shares)) / 2
    assert keep_promise(index, vectors, queries[:100], recall=asked, k=10)[option] == plan[-1][1][-1]
    assert f"{kind}: its widest search is taken: {float(shares.mean()):.4f} on average reaches" in caplog.text
    caplog.clear()
    keep_promise(index, vectors, queries[:100], recall=promise.lower(shares), k=10)
    assert "its widest search is taken" not in caplog.text


def test_a_larger_catalogue_ranks_more_items_again():
    index = FaissIndex(vectors_of(3000), kind="ivfpq")
    assert [values[-1] for _, values, _ in promise.steps(index, 10, 0.9)] == [index.lists, 300]
    few = promise.RERANKED
    try:
        promise.RERANKED = 100, 10
        assert promise.steps(index, 10, 0.9)[1][1][-1] == 30
    finally:
        promise.RERANKED = few


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(recall):
    vectors, queries = catalogue()
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        keep_promise(FaissIndex(vectors), vectors, queries[:4], recall=recall, k=10)


def test_the_first_good_value_is_found_without_trying_all():
    values = rising(1, 1000)
    assert values[0] == 1 and values[-1] == 1000 and all(0 < b - a <= 0.2 * a + 1 for a, b in pairwise(values))
    for least in (1, 2, 17, 500, 1000):
        tried: list[int] = []
        found = narrowest(values, lambda value, least=least, tried=tried: tried.append(value) or value >= least)
        assert found == min(value for value in values if value >= least) and len(tried) <= 3 + len(values) / 4
    assert narrowest(values, lambda value: False) is None


@pytest.mark.parametrize("kind", ALL)
def test_a_catalogue_in_pieces_gives_the_index_of_one_piece(kind, monkeypatch):
    vectors, queries = vectors_of(1500), vectors_of(20, seed=1)
    torch.set_num_threads(1)
    whole = FaissIndex(vectors, kind=kind).search(queries, 10)
    monkeypatch.setattr(pieces, "PIECE", 64)
    for mine, theirs in zip(FaissIndex(vectors, kind=kind).search(queries, 10), whole, strict=True):
        assert torch.equal(mine, theirs)


def test_cells_of_a_large_catalogue_are_learned_from_a_part_of_it(monkeypatch):
    monkeypatch.setattr(pieces, "TRAINED", 1000)
    vectors, queries = catalogue()
    learned: list[int] = []
    real = FaissIndex.longer
    monkeypatch.setattr(FaissIndex, "longer", lambda self, part: learned.append(len(part)) or real(self, part))
    index = FaissIndex(vectors, kind="ivf", lists=10)
    assert learned == [1000, SIZE] and index.index.ntotal == SIZE
    assert keep_promise(index, vectors, queries[:100], recall=0.9, k=10)["recall"] > 0.85


def test_the_best_scores_of_a_catalogue_in_pieces_are_those_of_all(monkeypatch):
    vectors, queries = catalogue()
    monkeypatch.setattr(pieces, "SCORED", 7)
    expected = (queries @ vectors.T).topk(10).values
    assert torch.allclose(pieces.best_scores(vectors, queries, 10), expected)


def test_ivfpq_ranks_again_by_the_vectors_and_so_does_its_bundle(tmp_path):
    run = trained(tmp_path, "SASRec")
    folder = run.export(tmp_path / "out", index="ivfpq", recall=1.0)
    told = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["search"]
    assert told["asked"] == told["recall"] == 1.0 and told["k"] == 20
    stored = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert stored["probes"] == told["probes"] and stored["rerank"] == told["rerank"]
    vectors, queries = catalogue()
    index = FaissIndex(vectors, kind="ivfpq", probes=SIZE, rerank=40)
    assert found_by(index, vectors, queries, 10) > 0.2 + found_by(
        FaissIndex(vectors, kind="ivfpq"), vectors, queries, 10
    )
    index.save(tmp_path / "index.faiss")
    with pytest.raises(ValueError, match="needs the vectors of its items"):
        FaissIndex.load(tmp_path / "index.faiss")
    again = FaissIndex.load(tmp_path / "index.faiss", vectors.numpy())
    for mine, theirs in zip(index.search(queries, 10), again.search(queries, 10), strict=True):
        assert torch.equal(mine, theirs)
    scores, items = again.search(queries, 10)
    assert torch.allclose(scores, (queries @ vectors.T).gather(1, items - 1), rtol=1e-4, atol=1e-4)


def test_a_bundle_that_ranks_by_its_vectors_compares_them_with_their_hash(tmp_path, monkeypatch):
    monkeypatch.setattr("seqcl.retrieval.promise.rising", lambda low, high: [high])  # ranks again as much as it can
    folder = trained(
        tmp_path, "SASRec", eval={"ks": [2, 3], "exclude_seen": True}, train={"epochs": 1, "monitor": "ndcg@3"}
    ).export(tmp_path / "out", index="ivfpq")
    assert Bundle(folder).index.rerank == 6
    shutil.copytree(folder, tmp_path / "copy")
    vectors = np.load(tmp_path / "copy" / "items.npy")
    np.save(tmp_path / "copy" / "items.npy", vectors + 1)
    with pytest.raises(UserError, match=r"items\.npy is not the file that was exported"):
        Bundle(tmp_path / "copy")


@pytest.mark.parametrize("model", ["SASRec with a bias", "TwoTower that reads items and has a bias", "CL4Rec"])
def test_vectors_in_pieces_are_those_of_the_model(tmp_path, model):
    run = trained(tmp_path, model)
    with torch.no_grad():
        assert torch.equal(torch.cat(list(run.model.vector_pieces())), run.model.vectors())


def test_the_command_takes_a_recall_and_leaves_nothing_where_it_cannot_be_had(tmp_path, capsys, monkeypatch):
    run = trained(tmp_path, "SASRec")
    assert main(["export", str(run.folder), str(tmp_path / "out"), "--index", "ivf", "--recall", "0.8"]) == 0
    told = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["search"]
    assert (
        told["asked"] == 0.8 and told["recall"] >= 0.75 and {"probes", "build_seconds", "bytes_per_item"} <= told.keys()
    )
    assert Bundle(tmp_path / "out").index.probes == told["probes"]
    capsys.readouterr()
    assert main(["evaluate", str(run.folder), "--index", "hnsw", "--recall", "0.9"]) == 0
    shown = json.loads(capsys.readouterr().out)["index"]
    assert shown["search"]["recall"] >= 0.85 and shown["overlap"]["overlap@20"] >= 0.85
    assert main(["evaluate", str(run.folder), "--recall", "0.9"]) == 2
    assert main(["evaluate", str(run.folder), "--index", "all", "--recall", "0.9"]) == 2
    assert main(["export", str(run.folder), str(tmp_path / "no"), "--recall", "1.5"]) == 2
    assert "--recall goes with one index" in (said := capsys.readouterr().err) and "at most 1" in said
    monkeypatch.setattr("seqcl.retrieval.promise.Recall.of", lambda self, index: torch.full((4,), 0.4))
    assert main(["export", str(run.folder), str(tmp_path / "no")]) == 2
    assert "--recall 0.95: hnsw finds 0.400" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"out", "latest", run.folder.name}


def test_a_block_of_scores_of_ten_million_items_takes_a_gigabyte_at_most():
    cpu = torch.device("cpu")
    assert [block_rows(columns, cpu) for columns in (10, 12_101, 1_000_000)] == [1024, 64, 64]
    assert block_rows(10_000_000, cpu) > 20 and block_rows(10_000_000, cpu) * 4 * 10_000_000 <= 1 << 30


def test_weights_are_looked_at_in_pieces_and_the_last_value_too():
    for bad in (float("nan"), float("inf"), -float("inf")):
        table = torch.zeros((1 << 24) + 3, 1)
        assert all_finite(table) and all_finite(table[:0]) and all_finite(table[0, 0])
        table[-1] = bad
        assert not all_finite(table) and not_finite({"fine": table[:9], "bad": table}) == "bad"
