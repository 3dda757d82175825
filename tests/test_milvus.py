"""A collection in Milvus answers as the exact index; the tests use milvus-lite, which needs no server."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.evaluation import Questions
from seqcl.integrations.milvus import MilvusIndex, Target
from seqcl.retrieval import ExactIndex
from seqcl.retrieval.bundle import Bundle

lite = pytest.mark.skipif(
    find_spec("pymilvus") is None or find_spec("milvus_lite") is None,
    reason="pymilvus and milvus-lite are not installed; they are in the extra milvus",
)
NAMES = np.sort([f"it'em \"{n}\\ é" for n in range(200)])


def trained(folder, **values):
    log = markov(users=200, items=200, length=8, branching=2, seed=1).interactions
    log = replace(log, item_ids=NAMES[: len(log.item_ids)])
    plain = {"encoder": {"dim": 8}, "data": {"max_len": 6}, "train": {"epochs": 1}, "eval": {"exclude_seen": True}}
    return seqcl.train(log, model="GRU4Rec", runs=str(folder), progress=False, **plain | values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), next_item={"bias": True})


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A bundle and the store that its vectors were sent to."""
    folder = tmp_path_factory.mktemp("milvus")
    store = f"milvus:{folder / 'local.db'}"
    assert main(["export", str(run.folder), str(folder / "out"), "--index", "flat", "--to", store]) == 0
    return folder / "out", store


def quoted(name) -> str:
    """An id as --items takes it."""
    return '"' + name.replace('"', '""') + '"'


def target_of(store: str, collection: str = "seqcl_items") -> Target:
    return Target(uri=store.removeprefix("milvus:"), collection=collection)


def same_lists(mine, theirs, queries, vectors):
    """Equal scores place by place, and every item has its score: items that tie may stand in any order."""
    (scores, items), (wanted, known) = mine, theirs
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(items == 0, known == 0)
    own = (queries @ vectors.T).gather(1, (items - 1).clamp(min=0))
    torch.testing.assert_close(torch.where(items > 0, own, -torch.inf), scores, rtol=1e-5, atol=1e-5)
    assert all(len(set(row) - {0}) == sum(item > 0 for item in row) for row in items.tolist())


@lite
def test_a_thousand_histories_get_the_answers_of_the_exact_index(exported):
    folder, store = exported
    bundle, draw = Bundle(folder), np.random.default_rng(0)
    size = len(bundle.item_ids)
    histories = [draw.integers(1, size + 1, draw.integers(1, 9)) for _ in range(1000)]
    queries = torch.cat([bundle.queries(history.tolist()) for history in histories])
    vectors = torch.from_numpy(np.load(folder / "items.npy"))
    rows = np.repeat(np.arange(1000), [len(history) for history in histories])
    seen = torch.from_numpy(rows), torch.from_numpy(np.concatenate(histories))
    some = tuple(part[(seen[0] < 90) & (seen[0] % 3 == 0)] for part in seen)  # others exclude nothing
    exact = ExactIndex(vectors)
    with target_of(store).client() as client:
        index = MilvusIndex(client, target_of(store))
        for k, exclude in ((20, seen), (20, some), (7, None)):
            found = index.search(queries, k, exclude)
            same_lists(found, exact.search(queries, k, exclude), queries, vectors)
            assert exclude is None or not (found[1][exclude[0]] == exclude[1][:, None]).any()
        nearly_all = torch.zeros(size - 3, dtype=torch.long), torch.arange(1, size - 2)
        scores, items = index.search(queries[:1], 5, nearly_all)
        assert sorted(items[0].tolist()) == [0, 0, size - 2, size - 1, size] and scores[0, 3:].isneginf().all()
        with pytest.raises(UserError, match="query 0 holds a value that is not finite"):
            index.search(queries[:1] * torch.nan, 5)


@lite
def test_the_evaluation_can_ask_it(run, exported):
    _, store = exported
    windows, evaluator = run.split.test, run.experiment.eval
    batches = run_batches(run)
    asked = Questions.encode(evaluator, windows, batches, run.model, run.split.train.item_counts())
    with target_of(store).client() as client:
        mine = asked.result(MilvusIndex(client, target_of(store)))
    theirs = asked.result(ExactIndex(asked.vectors))
    np.testing.assert_array_equal(mine.result.ranks, theirs.result.ranks)
    assert mine.result.protocol["candidates"] == f"top {asked.ks[-1]} of milvus flat"


def run_batches(run):
    from seqcl.experiment.ranking import queries_of

    return queries_of(run.split.test, run.experiment.eval, run.device)


@lite
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_other_indexes_find_nearly_all(exported, kind, tmp_path, capsys):
    folder, _ = exported
    store = f"milvus:{tmp_path / 'local.db'}"
    assert main(["export", str(folder), "--to", store, "--index", kind, "--collection", "mine"]) == 0
    assert capsys.readouterr().out == f"{store}\n"
    vectors = torch.from_numpy(np.load(folder / "items.npy"))
    with target_of(store, "mine").client() as client:
        index = MilvusIndex(client, target_of(store, "mine"))
        assert index.name == f"milvus {kind}"
        found = index.search(vectors[:50], 10)[1]
    truth = ExactIndex(vectors).search(vectors[:50], 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]) > 0.4


@lite
def test_an_index_that_milvus_lite_has_not_is_refused_before_the_export(run, exported, tmp_path, capsys):
    store = f"milvus:{tmp_path / 'local.db'}"
    for words in ([str(run.folder), str(tmp_path / "new")], [str(exported[0])]):
        assert main(["export", *words, "--index", "ivfpq", "--to", store]) == 2
        assert "milvus-lite has no ivfpq; give --index flat, ivf or hnsw" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not (tmp_path / "local.db").exists()


@lite
def test_asking_makes_no_database_and_the_way_out_names_the_collection(exported, tmp_path, capsys):
    folder, store = exported
    words = ["recommend", str(folder), "--items", quoted(NAMES[3]), "--from"]
    assert main([*words, f"milvus:{tmp_path / 'no.db'}"]) == 2
    assert "no.db: there is no such file" in capsys.readouterr().err and not (tmp_path / "no.db").exists()
    assert main([*words, store, "--collection", "nosuch"]) == 2
    assert "write it with seqcl export DIR --to" in (said := capsys.readouterr().err) and "--collection nosuch" in said


@lite
def test_an_export_recommends_through_it(exported, capsys):
    folder, store = exported
    words = ["recommend", str(folder), "--k", "200", "--items", quoted(NAMES[3])]
    answers = []
    for more in ([], ["--from", store], ["--filter", "none", "--from", store]):
        assert main([*words, *more]) == 0
        answers.append([line.split("\t") for line in capsys.readouterr().out.splitlines()])
    assert [item for item, _ in answers[1]] == [item for item, _ in answers[0]]
    assert [float(score) for _, score in answers[1]] == pytest.approx(
        [float(score) for _, score in answers[0]], rel=1e-4
    )
    assert {item for item, _ in answers[2]} - {item for item, _ in answers[1]} == {NAMES[3]}


@lite
def test_an_export_replaces_another_when_it_is_asked_to(exported, tmp_path, capsys):
    folder, _ = exported
    store = f"milvus:{tmp_path / 'local.db'}"
    assert main(["export", str(folder), "--to", store]) == 0
    other = trained(tmp_path / "runs").export(tmp_path / "other", index="flat")
    assert main(["export", str(other), "--to", store]) == 2
    assert "has seqcl_items already: add --replace" in capsys.readouterr().err
    ask = ["recommend", str(other), "--items", quoted(NAMES[7]), "--from", store]
    assert main(ask) == 2
    assert "holds the items of another export" in capsys.readouterr().err
    assert main(["export", str(other), "--to", store, "--replace"]) == 0
    assert main(ask) == 0
    with target_of(store).client() as client:
        assert len(client.list_collections()) == 1
        client.create_alias(*client.list_collections(), "prod")
    assert main(["export", str(folder), "--to", store, "--replace"]) == 0
    with target_of(store).client() as client:  # what somebody else named is kept
        assert len(client.list_collections()) == 2
        assert client.describe_alias("prod") != client.describe_alias("seqcl_items")


@lite
def test_a_failed_export_leaves_the_old_collection(exported, tmp_path, monkeypatch):
    folder, _ = exported
    store = f"milvus:{tmp_path / 'local.db'}"
    assert main(["export", str(folder), "--to", store]) == 0
    with target_of(store).client() as client:
        before = client.list_collections()
    with monkeypatch.context() as patch:
        patch.setattr("seqcl.integrations.milvus.writing.build_options", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(["export", str(folder), "--to", store, "--replace"])
    with target_of(store).client() as client:
        assert client.list_collections() == before
        assert len(MilvusIndex(client, target_of(store)).search(torch.ones(1, 9), 3)[1].unique()) == 3


KILLED = """
import os, sys
from pymilvus import MilvusClient
from seqcl.cli.main import main
from seqcl.integrations.milvus import writing
words = ["export", sys.argv[1], "--to", sys.argv[2]]
assert main(words) == 0
writing.BATCH_BYTES, insert, sent = 2000, MilvusClient.insert, []
def die(self, *rest, **more):
    sent.append(insert(self, *rest, **more))
    if len(sent) == 3:
        os._exit(9)
MilvusClient.insert = die
main([*words, "--replace"])
"""


@lite
def test_a_killed_export_leaves_the_old_collection_and_is_swept_a_day_later(exported, tmp_path, monkeypatch):
    folder, _ = exported
    store = f"milvus:{tmp_path / 'local.db'}"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), store], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    with target_of(store).client() as client:
        assert len(client.list_collections()) == 2
        left = set(client.list_collections()) - {target_of(store).written(client)}
        assert len(MilvusIndex(client, target_of(store)).search(torch.ones(1, 9), 3)[1].unique()) == 3
    assert main(["export", str(folder), "--to", store, "--replace"]) == 0
    now = time.time()
    with target_of(store).client() as client:
        assert len(client.list_collections()) == 2 and left < set(client.list_collections())
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    assert main(["export", str(folder), "--to", store, "--replace"]) == 0
    with target_of(store).client() as client:
        assert len(client.list_collections()) == 1


@lite
def test_what_seqcl_did_not_write_is_not_replaced(exported, tmp_path, capsys):
    folder, _ = exported
    store = f"milvus:{tmp_path / 'local.db'}"
    with target_of(store).client() as client:
        client.create_collection("theirs", dimension=4)
        client.create_alias("theirs", "alias")
    for name in ("theirs", "alias"):
        words = ["export", str(folder), "--to", store, "--collection", name, "--replace"]
        assert main(words) == 2
        assert f"{name} is theirs, which seqcl did not write" in capsys.readouterr().err


@lite
def test_a_bundle_outlives_a_store_that_fails(run, tmp_path, capsys, monkeypatch):
    store = f"milvus:{tmp_path / 'local.db'}"
    with monkeypatch.context() as patch:
        patch.setattr("seqcl.integrations.milvus.writing.fill", lambda *_: (_ for _ in ()).throw(UserError("full")))
        assert main(["export", str(run.folder), str(tmp_path / "out"), "--to", store]) == 2
    said = capsys.readouterr().err
    assert f"full; {tmp_path / 'out'} is whole: seqcl export {tmp_path / 'out'} --to {store} sends it again" in said
    assert main(["export", str(tmp_path / "out"), "--to", store]) == 0


@lite
def test_a_server_that_is_not_there_is_one_line(run, tmp_path, capsys):
    for store in ("milvus:http://user:secret@127.0.0.1:9", f"milvus:{tmp_path / 'no' / 'folder' / 'local.db'}"):
        assert main(["export", str(run.folder), str(tmp_path / "out"), "--to", store]) == 2
        said = capsys.readouterr()
        assert not said.out and said.err.startswith("seqcl: milvus:") and said.err.count("\n") == 1
        assert len(said.err) < 300 and "secret" not in said.err
    assert not (tmp_path / "out").exists()


@lite
def test_a_file_that_another_process_has_open_is_said(exported, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "local.db").mkdir()
    with (tmp_path / "local.db" / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["export", str(exported[0]), "--to", f"milvus:{tmp_path / 'local.db'}"]) == 2
    said = capsys.readouterr().err
    assert "Open local milvus failed; is it open in another process?" in said and said.count("\n") == 1


@lite
def test_the_example_of_the_documentation_works(exported, capsys):
    folder, store = exported
    page = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    code = next(block for block in page.split("```python\n")[1:] if "pymilvus" in block).partition("```")[0]
    code = code.replace('"./items.db"', repr(store.removeprefix("milvus:"))).replace('"bundle"', repr(str(folder)))
    code = code.replace("[50, 181, 258]", repr(NAMES[[5, 18, 25]].tolist()))
    with target_of(store).client():  # whose connection the example shares
        exec(compile(code, "scale.md", "exec"), {})
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    wanted = Bundle(folder).recommend(NAMES[[5, 18, 25]].tolist(), k=10)
    assert [item for item, _ in lines] == [item for item, _ in wanted]
    assert [float(score) for _, score in lines] == pytest.approx([score for _, score in wanted], rel=1e-4)


@pytest.mark.parametrize(
    ("uri", "collection", "why"),
    [
        ("./local", "items", r"milvus:\./local: give a server, milvus:http://HOST:19530, or a file"),
        ("", "items", "milvus:: give a server"),
        ("ftp://host/x.db", "items", "give a server"),
        ("http://host", "my items", "--collection 'my items': a name has letters, digits and _"),
        (
            "http://user@shop:se/cret@host",
            "items",
            r"^milvus:http://host needs pymilvus: pip install 'seqcl\[milvus\]'",
        ),
        ("./local.db", "items", "needs pymilvus"),
    ],
)
def test_a_target_that_cannot_be_is_refused(uri, collection, why, monkeypatch):
    monkeypatch.setattr("seqcl.integrations.milvus.target.find_spec", lambda name: None)
    with pytest.raises(UserError, match=why):
        Target(uri=uri, collection=collection)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["export", "RUN"], "export needs a new folder: seqcl export RUN FOLDER"),
        (["export", "RUN", "OUT", "--replace"], "--replace has no use without --to"),
        (["export", "RUN", "OUT", "--collection", "a"], "--collection has no use without --to"),
        (
            ["export", "RUN", "OUT", "--to", "milbus:x.db"],
            "--to unknown store 'milbus': did you mean milvus? valid: milvus",
        ),
        (["recommend", "RUN", "--items", "a", "--from", "milvus:x.db"], "are for a RUN that was exported"),
        (["recommend", "BUNDLE", "--items", "it", "--collection", "a"], "--collection has no use without --from"),
        (["export", "BUNDLE", "--to", "milvus:x.db", "--onnx"], "--onnx has no use"),
    ],
)
def test_options_without_use_are_refused(run, tmp_path, capsys, words, why):
    if "BUNDLE" in words:
        run.export(tmp_path / "out", index="flat")
        words = [quoted(NAMES[0]) if word == "it" else word for word in words]
    names = {"RUN": run.folder, "OUT": tmp_path / "new", "BUNDLE": tmp_path / "out"}
    assert main([str(names.get(word, word)) for word in words]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
