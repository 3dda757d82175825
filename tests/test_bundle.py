"""An exported retriever answers as the run that it came from, without the log."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow import parquet

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.encoders import ENCODERS, Scoring, TableEncoder
from seqcl.errors import UserError
from seqcl.experiment import Run
from seqcl.plugins import load
from seqcl.retrieval import FaissIndex
from seqcl.retrieval.bundle import Bundle, write_bundle
from seqcl.retrieval.manifest import sha256
from seqcl.retrieval.onnx import write_onnx
from seqcl.retrieval.query import Query
from seqcl.types import SeqBatch
from tests import processes

MODELS: dict = {
    "SASRec": {},
    "SASRec with a bias": {"start": "spectral", "next_item": {"bias": True}},
    "NARM": {},
    "GRU4Rec": {},
    "CL4Rec": {"encoder": {"name": "HSTU", "dim": 8}},
    "BSARec": {},
    "TapRec": {},
    "BERT4Rec": {},
    "S3Rec": {"pretrain": {"epochs": 0}},
    "SimCLRv2Rec": {"pretrain": {"epochs": 1, "keep": 1}},
    "TwoTower": {},
    "TwoTower without ids": {"towers": {"item_id": False}},
    "TwoTower that reads items and has a bias": {"towers": {"reads": "items"}, "next_item": {"bias": True}},
}


def trained(folder, model, size=20, **more):
    log = markov(users=60, items=size, length=8, branching=2, seed=1).interactions
    items = pd.DataFrame({"kind": [f"k{item % 7}" for item in range(size)], "price": np.arange(float(size))})
    users = pd.DataFrame({"age": np.arange(60.0), "taste": [f"t{user % 3} t{user % 5}" for user in range(60)]})
    values = {
        "encoder": {"dim": 8},
        "data": {"max_len": 5},
        "train": {"epochs": 2, "batch_size": 16},
        "eval": {"exclude_seen": True},
        **MODELS[model],
        **more,
    }
    log = replace(log, item_features=items, user_features=users)
    return seqcl.train(log, model=model.split()[0], runs=str(folder), progress=False, **values)


def test_a_known_user_is_recommended_what_the_evaluation_ranked(tmp_path):
    run = trained(tmp_path, "TwoTower")
    user = run.sequences.user_ids[7]
    row = 7
    history = run.sequences.row(row)[-5:].astype(np.int64)
    batch = SeqBatch(torch.from_numpy(history)[None], torch.tensor([5]), users=torch.tensor([row]))
    with torch.no_grad():
        scores = (run.model.queries(batch) @ run.model.vectors().T)[0]
    found = run.recommend(user=user, k=20, exclude_seen=False)
    assert [score for _, score in found] == pytest.approx(sorted(scores.tolist(), reverse=True), rel=1e-5)
    unknown = run.recommend(items=[run.sequences.item_ids[item - 1] for item in history], k=20, exclude_seen=False)
    assert [score for _, score in unknown] != pytest.approx([score for _, score in found], rel=1e-5)


def test_weights_are_not_read_with_other_features(tmp_path):
    run = trained(tmp_path, "TwoTower")
    table = run.sequences.item_features
    other = replace(run.sequences, item_table=table.assign(kind=table["kind"].to_numpy()[::-1]))
    other.save(run.folder / "other")
    shutil.rmtree(run.folder / "sequences")
    (run.folder / "other").rename(run.folder / "sequences")
    with pytest.raises(UserError, match="was made from other data: features is"):
        Run.load(run.folder)


@pytest.mark.parametrize("model", MODELS)
def test_a_bundle_recommends_what_the_run_does(tmp_path, model):
    run = trained(tmp_path, model)
    bundle = Bundle(run.export(tmp_path / "out", index="flat"), check=True)
    for history in ([3], [5, 9], [1, 2, 3, 4, 5, 6, 7]):
        for seen in (True, False):
            mine = bundle.recommend(history, k=20, exclude_seen=seen)
            theirs = run.recommend(items=history, k=20, exclude_seen=seen)
            assert [item for item, _ in mine] == [item for item, _ in theirs]
            assert [score for _, score in mine] == pytest.approx([score for _, score in theirs], rel=1e-4)
    table = parquet.read_table(tmp_path / "out" / "items.parquet").to_pydict()
    assert table["item"] == bundle.item_ids.tolist() == run.sequences.item_ids.tolist()
    np.testing.assert_array_equal(np.array(table["vector"], np.float32), np.load(tmp_path / "out" / "items.npy"))
    assert (
        bundle.manifest["protocol"] == run.metrics["protocol"] and bundle.manifest["items"] == run.sequences.num_items
    )


ONE_LAYER = {"encoder": {"dim": 8, "layers": 1}}
"""Sizes of an encoder that is written as ONNX: a second layer has the same operations again."""


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("NARM", {}),
        pytest.param("CL4Rec", {"encoder": {"name": "HSTU", "dim": 8, "layers": 1}}, marks=pytest.mark.once),
        pytest.param("TapRec", {"encoder": {**ONE_LAYER["encoder"], "gate": 4, "kernels": 2}}, marks=pytest.mark.once),
        pytest.param("BSARec", ONE_LAYER, marks=pytest.mark.once),
        pytest.param("BERT4Rec", ONE_LAYER, marks=pytest.mark.once),
        pytest.param("TwoTower that reads items and has a bias", ONE_LAYER, marks=pytest.mark.once),  # over SASRec
    ],
)
def test_the_onnx_graph_asks_for_the_same_items(tmp_path, model, sizes, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    run = trained(tmp_path, model, **sizes)
    folder = run.export(tmp_path / "out", index="flat", onnx=True)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert "query.onnx" in manifest["files"]
    graph = runtime.InferenceSession(str(folder / "query.onnx"), providers=["CPUExecutionProvider"])
    items, vectors = np.zeros((3, 5), np.int64), np.load(folder / "items.npy")
    histories = ([3], [5, 9, 9, 2], [7, 6, 5, 4, 3])
    for row, history in enumerate(histories):
        items[row, : len(history)] = run.sequences.encode(history)
    lengths = np.array([len(history) for history in histories])
    scores = graph.run(["queries"], {"items": items, "lengths": lengths})[0] @ vectors.T
    for history, row in zip(histories, scores, strict=True):
        wanted = run.recommend(items=history, k=20, exclude_seen=False)
        best = run.sequences.item_ids[np.argsort(-row)]
        assert np.sort(row)[::-1] == pytest.approx([score for _, score in wanted], abs=1e-4, rel=1e-4)
        assert best[0] == wanted[0][0]
    asked = recipe_of_documentation(folder, monkeypatch)["recommend"]
    for history in (*histories, [7, 6, 5, 4, 3, 2, 1]):
        wanted = run.recommend(items=history, k=6, exclude_seen=False)
        found = asked(history, 6)
        assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-4, rel=1e-4)
        assert found[0][0] == wanted[0][0]


@pytest.mark.once
@pytest.mark.parametrize("kind", ["ivf", "hnsw", "ivfpq"])
def test_the_onnx_graph_and_the_index_give_the_lists_of_the_bundle(tmp_path, kind, monkeypatch):
    pytest.importorskip("onnxruntime")
    run = trained(tmp_path, "GRU4Rec", size=300)
    folder = run.export(tmp_path / "out", index=kind, onnx=True, recall=0.7)
    bundle = Bundle(folder)
    monkeypatch.setattr(bundle.index, "rerank", 1)  # the page says that it does not rank again
    ids = run.sequences.item_ids
    histories = [ids[[item, item // 2, item // 3]].tolist() for item in range(0, len(ids), 3)]
    wanted = bundle.recommend_many(histories, k=6, exclude_seen=False)
    page = recipe_of_documentation(folder, monkeypatch)
    width = page["index"].hnsw.efSearch if kind == "hnsw" else page["index"].nprobe
    assert width == (bundle.index.search_width if kind == "hnsw" else bundle.index.probes)
    for history, best in zip(histories, wanted, strict=True):
        found = page["recommend"](history, 6)
        assert [score for _, score in found] == pytest.approx([score for _, score in best], abs=1e-4, rel=1e-4)


def recipe_of_documentation(bundle, monkeypatch):
    """Run the Python of docs/serve.md, which asks the graph and the index; give its names."""
    text = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict = {}
    bundle.rename(bundle.with_name("bundle"))
    monkeypatch.chdir(bundle.parent)
    exec(block, names)
    return names


@pytest.mark.once
def test_a_graph_that_differs_is_not_exported(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    run = trained(tmp_path, "GRU4Rec")
    monkeypatch.setattr("seqcl.retrieval.onnx.TOLERANCE", -1.0)
    with pytest.raises(UserError, match="the queries of the ONNX graph differ from torch's"):
        run.export(tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


class Plain(TableEncoder):
    def forward(self, batch):
        return self.table(batch.items)


class OfFixedRows(Plain):
    def last(self, batch):
        return self(batch)[torch.arange(len(batch.lengths)), batch.lengths - 1]


def test_an_encoder_of_ones_own_is_written_as_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    sizes = {"max_len": 5, "num_items": 9}
    write_onnx(tmp_path / "one.onnx", Plain(**sizes, dim=4), Scoring(), **sizes)
    assert (tmp_path / "one.onnx").is_file()
    with pytest.raises(UserError, match=r"fixes the number of rows; take sizes from x\.shape, not from len\(x\)"):
        write_onnx(tmp_path / "two.onnx", OfFixedRows(**sizes, dim=4), Scoring(), **sizes)


def test_what_onnx_needs_is_asked_for_before_any_work(tmp_path, monkeypatch):
    run = trained(tmp_path, "GRU4Rec")
    monkeypatch.setattr("seqcl.retrieval.onnx.find_spec", lambda name: None)
    monkeypatch.setattr("seqcl.retrieval.bundle.FaissIndex", None)  # no index is built
    with pytest.raises(UserError, match=r"an ONNX graph needs onnx: pip install 'seqcl\[onnx\]'"):
        run.export(tmp_path / "out", onnx=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    return trained(folder, "SASRec").export(folder / "out")


def test_the_command_exports_and_answers_in_another_process_without_the_log(tmp_path, capsys):
    run = trained(tmp_path, "SASRec")
    assert main(["export", str(run.folder), str(tmp_path / "out"), "--index", "ivf"]) == 0
    capsys.readouterr()
    run.folder.rename(tmp_path / "gone")
    words = ["recommend", str(tmp_path / "out"), "--items", "1,2,3", "--k", "4"]
    shown = processes.run(processes.command, words, cwd=tmp_path).stdout.splitlines()
    assert len(shown) == 4 and not {"1", "2", "3"} & {line.split("\t")[0] for line in shown}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--items", "no"], "has no item 'no'; ids are such as"),
        (["--items", "no,nor"], "has none of the 2 items, such as no, nor; ids are such as"),
        (["--user", "3"], "was exported and knows no users: give --items"),
        (["--items", "1", "--k", "0"], "k must be 1 or more"),
        (["--items", ""], "has no item ''"),
    ],
)
def test_a_wrong_question_is_said(out, words, message, capsys):
    assert main(["recommend", str(out), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_has_not_ended_is_exported_with_a_warning(tmp_path, caplog):
    run = trained(tmp_path, "SASRec", train={"epochs": 1, "batch_size": 64})
    run.export(tmp_path / "whole", index="flat")
    assert "no figures" not in caplog.text
    (run.folder / "metrics.json").unlink()  # it is written last
    made = seqcl.load(run.folder).export(tmp_path / "half", index="flat")
    assert f"{run.folder} has no figures, so its bundle has none: it has not ended" in caplog.text
    assert Bundle(made).recommend([3], k=2) == Bundle(tmp_path / "whole").recommend([3], k=2)


def test_what_cannot_be_exported_or_read_is_said(tmp_path, out, capsys):
    run = trained(tmp_path, "SASRec")
    with pytest.raises(UserError, match="is there already: give a new folder"):
        run.export(out)
    with pytest.raises(UserError, match="did you mean hnsw"):
        run.export(tmp_path / "other", index="hsnw")
    assert not (tmp_path / "other").exists()
    with pytest.raises(UserError, match=r"is no bundle: manifest\.json"):
        Bundle(tmp_path)
    copy = run.export(tmp_path / "copy")
    (copy / "items.npy").write_bytes(b"other")
    Bundle(copy)
    with pytest.raises(UserError, match=r"items.npy is not the file that was exported"):
        Bundle(copy, check=True)
    (copy / "query.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"query.safetensors is not the file that was exported"):
        Bundle(copy)
    (copy / "index.json").unlink()
    with pytest.raises(UserError, match=r"is not whole: index\.json is missing"):
        Bundle(copy)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    for broken in ("[]", json.dumps({"format": "seqcl-bundle-1"})):
        (copy / "manifest.json").write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match=r"has the format None|cannot be read: KeyError: 'files'"):
            Bundle(copy)
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": "seqcl-bundle-9"}), encoding="utf-8")
    with pytest.raises(UserError, match="has the format 'seqcl-bundle-9'"):
        Bundle(copy)


def test_what_is_missing_of_the_features_is_counted_in_the_log_of_the_run(tmp_path):
    run = trained(tmp_path, "TwoTower")
    text = (run.folder / "log.txt").read_text(encoding="utf-8")
    assert "feature price: a number; 0 of 20 rows have none" in text and "feature taste: 5 words" in text


def test_bundles_of_earlier_formats_are_read(tmp_path):
    for name, model in (("plain", "SASRec"), ("towers", "TwoTower")):
        run = trained(tmp_path / name, model)
        folder = run.export(tmp_path / name / "out", index="flat")
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for version in ("seqcl-bundle-1", "seqcl-bundle-2"):
            older = manifest | {"format": version}
            del older["plugins"]  # neither knew of plugins
            if version == "seqcl-bundle-1":  # the first exports had no biases
                older["query"] = {key: value for key, value in manifest["query"].items() if key != "bias"}
                if model == "SASRec":  # nor towers
                    del older["query"]["towers"]
            (folder / "manifest.json").write_text(json.dumps(older), encoding="utf-8")
            mine, theirs = Bundle(folder, check=True).recommend([5, 9], k=20), run.recommend(items=[5, 9], k=20)
            assert [item for item, _ in mine] == [item for item, _ in theirs]


PLUGIN = """
from pathlib import Path

import seqcl.registry
from seqcl.encoders import GRU

Path(__file__).with_suffix(".imported").touch()


@seqcl.registry.register("encoder")
class Doubled(GRU):
    \"\"\"States twice as long.\"\"\"

    def forward(self, batch):
        return 2 * super().forward(batch)

    def last(self, batch):
        return 2 * super().last(batch)
"""


def write(plugin: Path, out: Path) -> None:
    """Write a bundle of the plugin's encoder, and print what it recommends."""
    load(str(plugin))
    torch.manual_seed(0)
    encoder = ENCODERS.find("Doubled")(num_items=9, max_len=4, dim=8)
    query = Query(
        encoder="Doubled", options={"dim": 8}, longest=4, max_len=4, num_items=9, similarity="dot", temperature=1.0
    )
    write_bundle(
        out,
        query=query,
        weights=encoder.state_dict(),
        vectors=[encoder.item_embeddings()[1:-1].detach()],
        item_ids=np.arange(9),
        kind="flat",
        about={"model": "Mine"},
    )
    print(Bundle(out).recommend([1, 2]))


def read(out: Path, *plugins: str) -> None:
    """Print what the bundle recommends, or why not, where the plugin could be imported by its name."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        print(Bundle(out, plugins=plugins).recommend([1, 2]))
    except UserError as error:
        print(error)


@pytest.mark.once
def test_an_encoder_of_a_plugin_is_found_in_the_plugin_that_is_given_and_never_because_the_bundle_says_so(tmp_path):
    plugin, out, mark = tmp_path / "doubled.py", tmp_path / "out", tmp_path / "doubled.imported"
    plugin.write_text(PLUGIN, encoding="utf-8")
    written = processes.run(write, plugin, out, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["plugins"] == ["doubled.py"] and str(tmp_path) not in json.dumps(manifest)
    mark.unlink()
    for source in ("doubled.py", str(plugin), "doubled", None):
        known = {} if source is None else {"plugins": [source]}
        rest = {key: value for key, value in manifest.items() if key != "plugins"}
        (out / "manifest.json").write_text(json.dumps(rest | known), encoding="utf-8")
        said = processes.run(read, out, cwd=tmp_path).stdout
        assert not mark.exists(), f"imported {source} because the manifest says so"
        if source is None:
            assert f"{out}: unknown encoder 'Doubled'" in said
        else:
            assert f"{out}: the encoder 'Doubled' is unknown here; it came from '{source}'" in said
            assert "--plugin FILE" in said and "plugins=[FILE]" in said
    for given in (str(plugin), "doubled.py", "doubled"):
        assert processes.run(read, out, given, cwd=tmp_path).stdout == written.stdout
    assert mark.exists()


def test_the_biases_of_the_first_format_count_once(tmp_path):
    run = trained(tmp_path, "SASRec with a bias")
    folder = run.export(tmp_path / "out", index="flat")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["query"]["bias"] and manifest["query"]["temperature"] == 0.1
    vectors = np.load(folder / "items.npy")
    vectors[:, -1] /= 0.1  # the first format kept the bias itself
    FaissIndex(torch.from_numpy(vectors)).save(folder / "index.faiss")
    manifest["files"] |= {name: sha256(folder / name) for name in ("index.faiss", "index.json")}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": "seqcl-bundle-1"}), encoding="utf-8")
    mine, theirs = Bundle(folder).recommend([5, 9], k=20), run.recommend(items=[5, 9], k=20)
    assert [item for item, _ in mine] == [item for item, _ in theirs]
    assert [score for _, score in mine] == pytest.approx([score for _, score in theirs], rel=1e-4)


def test_a_bundle_of_seqcls_own_encoder_needs_no_plugin(out):
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["plugins"] == []


def test_a_plugin_that_is_not_there_is_named(out):
    with pytest.raises(UserError, match=r"plugin .*missing\.py: no such file"):
        Bundle(out, plugins=["missing.py"])
