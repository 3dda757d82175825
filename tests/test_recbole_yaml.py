"""RecBole's files: its keys for data and evaluation as our options, atomic files that it reads, and where it is looked for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import seqcl
from seqcl.cli.main import main
from seqcl.data import Interactions, load_sequences, write
from seqcl.errors import UserError
from seqcl.experiment import resolve
from seqcl.integrations import recbole_stack
from seqcl.integrations.recbole_yaml import options
from tests.recbole_world import shop

ROOT = Path(seqcl.__file__).parent
WHOLE = """
dataset: shop
data_path: {folder}
USER_ID_FIELD: user_id
load_col:
    inter: [user_id, item_id, timestamp]
user_inter_num_interval: "[5,inf)"
item_inter_num_interval: "(2,inf)"
rm_dup_inter: first
MAX_ITEM_LIST_LENGTH: 20
eval_args:
    split: {{'LS': 'valid_and_test'}}
    group_by: user
    order: TO
    mode: uni50
topk: [5, 20]
metrics: ["Recall", "NDCG", "ItemCoverage"]
valid_metric: NDCG@20
eval_batch_size: 256
seed: 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "shop").mkdir()
    path = tmp_path / "recbole.yaml"

    def written(text):
        path.write_text(text)
        return path

    return written


def test_every_key_becomes_the_option_that_means_the_same(file, tmp_path):
    config = resolve(options(file(WHOLE.format(folder=tmp_path))))
    assert config.dataset == str(tmp_path / "shop") and config.seed == 3
    data, rank = config.data, config["eval"]
    assert (data.max_len, data.k_core, data.min_length, data.duplicates, data.user) == (20, 3, 5, "first", "user_id")
    assert (rank.ks, rank.candidates, rank.sampled, rank.exclude_seen) == ((5, 20), "uniform", 50, False)
    assert rank.batch_size == 256 and config.train.monitor == "ndcg@20"


def test_what_a_file_does_not_say_is_as_in_recbole(file):
    config = resolve(options(file("dataset: ml-100k\n")))
    assert (config.dataset, config.data.max_len, config.data.k_core, config.data.min_length) == ("ml-100k", 50, 0, 1)
    assert config["eval"].exclude_seen is False and config["eval"].ks == (10,) and config.train.monitor == "mrr@10"


def test_options_win_over_the_file(file, capsys):
    path = str(file("MAX_ITEM_LIST_LENGTH: 20\ntopk: 5\nvalid_metric: Hit@5\n"))
    assert main(["train", "--recbole-config", path, "--data.max_len", "7", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "max_len: 7" in printed and "monitor: hr@5" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "MAX_ITEM_LIST_LEN: 5",
            "unknown key for data or evaluation 'MAX_ITEM_LIST_LEN': did you mean MAX_ITEM_LIST_LENGTH",
        ),
        ("epochs: 5", r"epochs is not taken from RecBole's file: --train\.epochs"),
        ("val_interval: {rating: '[3,inf)'}", "val_interval is not taken from RecBole's file: drop these rows"),
        ("user_inter_num_interval: '[5,20]'", r"only a least number can be asked for, such as \[5,inf\)"),
        ("item_inter_num_interval: '[5,inf)'", "users need at least as many interactions as items"),
        ("eval_args: {split: {RS: [0.8, 0.1, 0.1]}}", r"of RecBole's splits there is \{'LS': 'valid_and_test'\}"),
        ("eval_args: {order: RO}", "sequences are in the order of time"),
        ("eval_args: {mode: labeled}", "there are full, uniN and popN"),
        ("eval_args: {mode: {valid: uni100, test: full}}", "among the same candidates"),
        ("eval_args: {splitt: 1}", "unknown key of eval_args 'splitt': did you mean split"),
        ("metrics: [Recal]", "unknown metric 'Recal': did you mean Recall"),
        ("metrics: GAUC", "unknown metric 'GAUC'"),
        ("repeatable: false", r"--eval\.exclude_seen true"),
        ("load_col: {item: [item_id, genre]}", r"--features\.items genre"),
        ("load_col: {kg: [head_id]}", "load_col kg"),
        ("rm_dup_inter: all", "there are first and last"),
        ("data_path: nowhere\ndataset: shop", "there is no folder nowhere/shop"),
        ("data_path: nowhere", "the name of the data set is missing"),
        ("field_separator: ','", "separated by tabs"),
        ("- 1", "must hold `key: value` lines"),
        ("a: [1", "recbole.yaml"),
    ],
)
def test_what_is_not_taken_is_named_with_the_reason(file, text, message):
    with pytest.raises(UserError, match=message) as caught:
        options(file(text))
    assert str(caught.value).startswith("--recbole-config ")


def test_a_run_with_recboles_file_is_under_its_protocol(file, tmp_path):
    shop(tmp_path)
    path = file(WHOLE.format(folder=tmp_path).replace("uni50", "full"))
    words = ["--encoder.dim", "8", "--train.epochs", "1", "--runs", str(tmp_path / "runs")]
    assert main(["train", "--recbole-config", str(path), *words]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    expected = {"split": "leave_one_out", "candidates": "full", "exclude_seen": False, "max_len": 20, "seed": 3}
    assert protocol.items() >= (expected | {"k_core": 3, "min_length": 5, "duplicates": "first"}).items()


def test_a_file_that_is_not_there_is_said(capsys):
    assert main(["train", "--recbole-config", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_log_converted_to_atomic_files_reads_back_the_same_with_its_tables(tmp_path, capsys):
    items = pd.DataFrame(
        {"kind": ["a b", "a", None], "price": [1.5, 2.0, 2.5], "tags": [["x", "y z"], ["x"], []]}, index=[1, 2, 3]
    )
    frame = pd.DataFrame({"user_id": [2, 1, 2, 1, 2], "item_id": [1, 3, 2, 1, 3]})
    log = Interactions.from_frame(frame, time=None, item_features=items)
    write(log, tmp_path / "shop" / "shop.inter")
    text = (tmp_path / "shop" / "shop.inter").read_text().splitlines()
    assert text[:3] == ["user_id:token\titem_id:token\torder:float", "2\t1\t0", "1\t3\t0"]
    assert (tmp_path / "shop" / "shop.item").read_text().splitlines() == [
        "item_id:token\tkind:token_seq\tprice:float\ttags:token_seq", "1\ta b\t1.5\tx y_z", "2\ta\t2.0\tx", "3\t\t2.5\t",
    ]  # fmt: skip
    one, two = load_sequences(log), load_sequences(tmp_path / "shop", cache=False)
    assert one.fingerprint == two.fingerprint and list(two.item_features["price"]) == [1.5, 2.0, 2.5]
    assert main(["data", "convert", str(tmp_path / "shop"), str(tmp_path / "again" / "again.inter")]) == 0
    assert (tmp_path / "again" / "again.item").read_text() == (tmp_path / "shop" / "shop.item").read_text()


def test_a_tab_in_a_cell_is_refused_and_leaves_no_file(tmp_path):
    log = Interactions.from_frame(
        pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1]}), time=None, item_features=pd.DataFrame({"kind": ["a\tb", "c"]}, index=[1, 2])
    )  # fmt: skip
    with pytest.raises(UserError, match="the item 1 has a tab"):
        write(log, tmp_path / "shop.inter")
    assert not (tmp_path / "shop.item").exists()


def test_nothing_but_the_integration_imports_recbole():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "recbole" for name in names):
                assert "integrations/recbole" in path.as_posix(), path


def test_recbole_is_not_imported_unless_it_is_asked_for():
    code = (
        "import sys, seqcl.cli.main, seqcl.experiment, seqcl.integrations.recbole_yaml; "
        "seqcl.experiment.resolve([]); assert 'recbole' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("python", "packages", "message"),
    [
        ((3, 13), {"recbole": "1.2.1"}, r"no wheel for Python 3\.13: pip install 'seqcl\[recbole\]' .* Python 3\.10 or 3\.11"),
        ((3, 11), {}, r"RecBole is not installed: pip install 'seqcl\[recbole\]'"),
        ((3, 11), {"recbole": "1.2.0"}, r"pip install recbole==1\.2\.1"),
        ((3, 11), {"recbole": "1.2.1", "numpy": "2.1.0", "pandas": "2.2.0", "setuptools": "80.1"}, r"numpy 2\.1\.0: .*pip install 'numpy<2'"),
        ((3, 11), {"recbole": "1.2.1", "numpy": "1.26.4", "pandas": "3.0.0", "setuptools": "82.0"}, r"'pandas<3' 'setuptools<81'"),
        ((3, 11), {"recbole": "1.2.1", "numpy": "1.26.4", "pandas": "2.2.0"}, "setuptools is missing"),
    ],
)  # fmt: skip
def test_what_cannot_work_says_what_to_install(monkeypatch, python, packages, message):
    monkeypatch.setattr(recbole_stack, "python", lambda: python)
    monkeypatch.setattr(recbole_stack, "installed", packages.get)
    with pytest.raises(ImportError, match=message) as caught:
        recbole_stack.bring("recbole.quick_start")
    assert isinstance(caught.value, UserError)


def test_without_recbole_an_encoder_of_its_is_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(recbole_stack, "installed", {}.get)
    monkeypatch.setattr(
        recbole_stack.sys, "version_info", type("Version", (tuple,), {"major": 3, "minor": 13})((3, 13))
    )
    from seqcl.integrations import recbole_encoders

    recbole_encoders.encoder.cache_clear()
    assert main(["train", "--encoder", "recbole:NARM"]) == 2
    error = capsys.readouterr().err
    assert "needs a ray that has no wheel" in error and len(error.strip().splitlines()) == 1
