"""RecBole's files: its keys for data and evaluation as our options, atomic files that it reads, and where it is looked for."""

from __future__ import annotations

import ast
import importlib.util
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

import seqcl
from seqcl.cli.main import main
from seqcl.config import resolve
from seqcl.data import Interactions, load_sequences, write
from seqcl.errors import UserError
from seqcl.integrations import recbole_stack
from seqcl.integrations.recbole_yaml import options, values_of
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


def resolved(path, *words):
    return resolve(["--recbole-config", str(path), *words])


def test_every_key_becomes_the_option_that_means_the_same(file, tmp_path):
    config = resolved(file(WHOLE.format(folder=tmp_path)))
    assert config.options.dataset == str(tmp_path / "shop") and config.options.seed == 3
    data, rank = config.data, config.eval
    assert (data.max_len, data.k_core, data.min_length, data.duplicates, data.user) == (20, 3, 5, "first", "user_id")
    assert (rank.ks, rank.candidates, rank.sampled, rank.exclude_seen) == ((5, 20), "uniform", 50, False)
    assert rank.batch_size == 256 and config.train.monitor == "ndcg@20"


def test_what_a_file_does_not_say_is_as_in_recbole(file):
    config = resolved(file("dataset: ml-100k\n"))
    assert (config.options.dataset, config.data.max_len, config.data.k_core, config.data.min_length) == (
        "ml-100k",
        50,
        0,
        1,
    )
    assert config.eval.exclude_seen is False and config.eval.ks == (10,) and config.train.monitor == "mrr@10"


def test_options_win_over_the_file(file, capsys):
    path = str(file("MAX_ITEM_LIST_LENGTH: 20\ntopk: 5\nvalid_metric: Hit@5\n"))
    assert main(["train", "--recbole-config", path, "--data.max_len", "7", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "max_len: 7" in printed and "monitor: hr@5" in printed


def test_configuration_files_win_over_recboles_file_wherever_it_stands(file, tmp_path):
    path = file("dataset: shop\nuser_inter_num_interval: '[4,inf)'\nMAX_ITEM_LIST_LENGTH: 20\n")
    mine, later = tmp_path / "mine.yaml", tmp_path / "later.yaml"
    mine.write_text("data: {max_len: 7}\neval: {ks: [3]}\ntrain: {monitor: ndcg@3}\n")
    later.write_text("data: {max_len: 8}\n")
    for words in (["--config", str(mine), "--recbole-config", str(path)], [f"--recbole-config={path}", "--config", str(mine)]):  # fmt: skip
        config = resolve(words)
        assert (config.data.max_len, config.eval.ks, config.train.monitor) == (7, (3,), "ndcg@3")
        assert (config.options.dataset, config.data.min_length, config.eval.exclude_seen) == ("shop", 4, False)
        assert resolve([*words, "--config", str(later)]).data.max_len == 8
        assert resolve([*words, "--config", str(later), "--data.max_len", "9"]).data.max_len == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recbole-config", "a.yaml", "--recbole-config=b.yaml"], "--recbole-config is given 2 times: give one file"),
        (["--recbole-config", "--print_config"], "option --recbole-config needs a file"),
        (["--recbole-config", "--seed", "1"], "option --recbole-config needs a file, not --seed"),
        (["--recbole-config="], "option --recbole-config needs a file"),
        (["--recbole-config", ""], "option --recbole-config needs a file"),
        (["--config", "--seed", "1"], "option --config needs a file, not --seed"),
        (["--config="], "option --config needs a file"),
        (
            ["--resume", "run", "--recbole-config", "a.yaml"],
            "--recbole-config with --resume: a run goes on under its own",
        ),
    ],
)
def test_an_option_without_its_file_or_with_two_is_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("topk: 5\n")
    assert main(["train", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_value_that_does_not_fit_is_named_with_the_file(file):
    with pytest.raises(
        UserError, match=r"--recbole-config .*recbole\.yaml: unknown model 'SASRek': did you mean SASRec"
    ):
        resolved(file("model: SASRek\n"))


def test_a_misspelt_prefix_of_an_encoder_is_answered_with_the_right_one():
    with pytest.raises(UserError, match=r"unknown encoder 'reckbole:NARM': did you mean recbole:NAME"):
        resolve(["--encoder", "reckbole:NARM"])


def keys_of_recbole():
    """Every key of RecBole's general and dataset files and lists, with its value there."""
    found = importlib.util.find_spec("recbole")
    if found is None:
        return {}
    package = Path(found.origin).parent
    lists = runpy.run_path(str(package / "utils" / "argument_list.py"))
    names = ("general_arguments", "training_arguments", "evaluation_arguments", "dataset_arguments")
    keys = dict.fromkeys(key for name in names for key in lists[name])
    for place in ("overall.yaml", "dataset/ml-100k.yaml", "dataset/sample.yaml"):
        keys |= yaml.safe_load((package / "properties" / place).read_text())
    return keys


@pytest.mark.parametrize(("key", "value"), keys_of_recbole().items())
def test_every_key_of_recboles_own_files_is_taken_or_named_with_a_reason(key, value):
    try:
        assert values_of({key: "some" if value is None else value}, Path())
    except UserError as error:
        assert str(error).startswith(key) and len(str(error)) > len(key) + 10


def test_recboles_own_file_of_ml_100k_is_taken(file):
    found = importlib.util.find_spec("recbole")
    if found is None:
        pytest.skip("RecBole is not installed")
    text = (Path(found.origin).parent / "properties" / "dataset" / "ml-100k.yaml").read_text()
    config = resolved(file(text + "\ndataset: ml-100k\n"))
    assert (config.data.user, config.data.item, config.data.time) == ("user_id", "item_id", "timestamp")
    assert (config.options.dataset, config.data.max_len, config.data.k_core) == ("ml-100k", 50, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: 5", "metrics 5: expected text"),
        ("metrics: []", "expected at least one"),
        ("topk: [5, a]", "topk 'a': expected a whole number, at least 1"),
        ("topk: 0", "topk 0: expected a whole number, at least 1"),
        ("load_col: 5", "load_col 5: expected names with values"),
        ("load_col: {inter: 5}", "load_col inter 5: expected text"),
        ("data_path: 5", "data_path 5: expected text"),
        ("eval_args: {mode: [full]}", r"eval_args mode \['full'\]: expected text"),
        ("eval_args: {mode: {valid: [full], test: full}}", r"eval_args mode \['full'\]: expected text"),
        ("eval_args: {mode: {}}", "eval_args mode {}: expected names with values"),
        ("eval_args: {mode: {vald: full}}", "unknown part in eval_args mode 'vald': did you mean valid"),
        ("eval_args: {mode: uni0}", "there are full, uniN and popN"),
        ("eval_args: full", "eval_args 'full': expected names with values"),
        ("eval_args: [TO]", r"eval_args \['TO'\]: expected names with values"),
        ("seed: 2020-13-45", "recbole.yaml: month must be in"),
        ("seed: 2020-12-13", "seed .*: expected a whole number, at least 0"),
        ("seed: true", "seed True: expected a whole number"),
        ("dataset: [a, b]", r"dataset \['a', 'b'\]: expected text"),
        ("dataset: ''", "dataset '': expected text"),
        ("model: 5", "model 5: expected text"),
        ("MAX_ITEM_LIST_LENGTH: 0", "MAX_ITEM_LIST_LENGTH 0: expected a whole number, at least 1"),
        ("MAX_ITEM_LIST_LENGTH: '20'", "MAX_ITEM_LIST_LENGTH '20': expected a whole number"),
        ("eval_batch_size: many", "eval_batch_size 'many': expected a whole number"),
        ("valid_metric: 10", "valid_metric 10: expected text"),
        ("user_inter_num_interval: [5, 10]", r"only a least number can be asked for"),
        ("normalize_all: some", "normalize_all 'some': expected true or false"),
        ("RATING_FIELD: [a]", "RATING_FIELD .*: expected text"),
    ],
)
def test_a_value_of_another_type_is_named(file, text, message):
    with pytest.raises(UserError, match=message) as caught:
        options(file(text))
    assert str(caught.value).startswith("--recbole-config ")


def test_all_refused_keys_are_named_at_once(file):
    with pytest.raises(UserError) as caught:
        options(file("epochs: 5\nlearner: adam\nMAX_ITEM_LIST_LEN: 5\ntopk: 10\n"))
    text = str(caught.value)
    assert (
        "3 keys are refused: epochs (--train.epochs); learner (AdamW is the only optimizer); MAX_ITEM_LIST_LEN (unknown)"
        in text
    )
    many = [
        "epochs",
        "learner",
        "shuffle",
        "worker",
        "nproc",
        "transform",
        "weight_decay",
        "eval_step",
        "enable_amp",
        "state",
    ]
    with pytest.raises(UserError) as caught:
        options(file("".join(f"{key}: 1\n" for key in many)))
    assert "10 keys are refused" in str(caught.value) and all(key in str(caught.value) for key in many)
    assert len(str(caught.value)) < 300 + len(str(file("")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "MAX_ITEM_LIST_LEN: 5",
            "unknown key for data or evaluation 'MAX_ITEM_LIST_LEN': did you mean MAX_ITEM_LIST_LENGTH",
        ),
        (
            "encoder.dim: 32",
            r"encoder\.dim is no key of RecBole: give --encoder\.dim, or put it in a file for --config",
        ),
        ("encoder.dim: 32\nlearner: adam", r"encoder\.dim \(--encoder\.dim\)"),
        ("nproc: 2", "torchrun --nproc-per-node N starts several processes"),
        ("epochs: 5", r"epochs is not taken from RecBole's file: --train\.epochs"),
        ("val_interval: {rating: '[3,inf)'}", "val_interval is not taken from RecBole's file: --data.where"),
        ("user_inter_num_interval: '[5,20]'", r"only a least number can be asked for, such as \[5,inf\)"),
        ("item_inter_num_interval: '[5,inf)'", "users need at least as many interactions as items"),
        ("eval_args: {split: {RS: [0.8, 0.1, 0.1]}}", r"of RecBole's splits there is \{'LS': 'valid_and_test'\}"),
        ("eval_args: {order: RO}", "sequences are in the order of time"),
        (
            "eval_args: {order: TO, mode: full}",
            r"without split RecBole cuts by RS .* add split: \{LS: valid_and_test\}",
        ),
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
        ("data_path: nowhere\ndataset: ml-100k", "there is no folder nowhere/ml-100k, .* ml-100k is known by name"),
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
    (folder,) = (tmp_path / "runs").glob("*-*")
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    expected = {"split": "leave_one_out", "candidates": "full", "exclude_seen": False, "max_len": 20, "seed": 3}
    assert protocol.items() >= (expected | {"k_core": 3, "min_length": 5, "duplicates": "first"}).items()


def test_a_split_in_files_is_taken_by_their_names(file):
    text = "benchmark_filename: [train, valid, test]\neval_args: {order: TO, mode: full}"
    assert options(file(text))["data.split"] == "given"
    with pytest.raises(UserError, match="benchmark_filename"):
        options(file("benchmark_filename: [part1, part2, part3]"))


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


def test_a_cell_that_begins_with_a_quote_is_refused_as_recbole_reads_quotes(tmp_path):
    log = Interactions.from_frame(pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1]}), time=None)
    for name, fits in (('"Heroes" of 1990', False), ('the "Heroes"', True)):
        table = pd.DataFrame({"name": [name, "b"]}, index=[1, 2])
        if fits:
            assert write(replace(log, item_features=table), tmp_path / "shop.inter").exists()
        else:
            with pytest.raises(UserError, match="the item 1 has a quote before its name, and RecBole"):
                write(replace(log, item_features=table), tmp_path / "shop.inter")


def test_nothing_but_the_integration_imports_recbole():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "recbole" for name in names):
                assert "integrations/recbole" in path.as_posix(), path


def test_recbole_is_not_imported_unless_it_is_asked_for():
    code = (
        "import sys, seqcl.cli.main, seqcl.config, seqcl.integrations.recbole_yaml; "
        "seqcl.config.resolve([]); assert 'recbole' not in sys.modules"
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
