"""Configuration files build on one another, are UTF-8 whatever the locale, and keep the names that options had."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seqcl import config
from seqcl.config.experiment import Experiment
from seqcl.errors import UserError

ROOT = Path(__file__).parents[1]


def resolve(*words):
    return config.resolve([str(word) for word in words])


@pytest.fixture
def files(tmp_path):
    """Write files by name and text; give the path of the last one."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_holds_only_what_it_changes(files):
    last = files(
        low="dataset: Beauty\ntrain: {lr: 0.01, epochs: 7}\n",
        middle="base: low.yaml\nmodel: SASRec\nencoder: {dim: 16}\n",
        deep__high="base: ../middle.yaml\nmodel: CL4Rec\ntrain: {epochs: 3}\n",
    )
    found = resolve("--config", last).flat
    assert [found[key] for key in ("model", "dataset", "encoder.dim", "train.lr", "train.epochs")] == [
        "CL4Rec", "Beauty", 16, 0.01, 3,
    ]  # fmt: skip


def test_a_base_is_a_layer_of_its_own_so_that_what_a_file_replaces_in_it_is_said(files, capsys):
    last = files(low="model: SASRec\nencoder: {dim: 16, heads: 4}\n", high="base: low.yaml\nencoder: GRU\n")
    found = resolve("--config", last).flat
    assert found["encoder.name"] == "GRU" and found["encoder.dim"] == 16
    assert "low.yaml: left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            {"a": "base: b.yaml\n", "b": "base: a.yaml\n"},
            r"build on each other in a circle: .*b\.yaml -> .*a\.yaml -> .*b\.yaml",
        ),
        ({"a": "base: a.yaml\n"}, "in a circle"),
        ({"a": "base: nowhere.yaml\n"}, r"a\.yaml:1: base: .*nowhere\.yaml: No such file"),
        ({"a": "seed: 1\nbase: [x, y]\n"}, r"a\.yaml:2: base must name one file"),
        ({"low": "encoder: {dmi: 3}\n", "high": "base: low.yaml\n"}, r"low\.yaml:1: unknown option 'encoder\.dmi'"),
        ({"a": "plugins: 3\n"}, r"a\.yaml:1: plugins must be a list"),
        ({"a": "seed: 1\nplugins: [gone.py]\n"}, r"a\.yaml: plugin .*gone\.py: no such file"),
        ({"a": "seed: 1\ntrain: {lr: !foo 3}\n"}, r"a\.yaml:2: train\.lr: could not determine a constructor"),
        ({"a": "dataset: 2020-99-99\n"}, r"a\.yaml:1: dataset: month must be in 1\.\.12"),
        ({"a": "train: &a\n  lr: *a\n"}, r"a\.yaml.*through an anchor"),
        ({"a": "model: CL4Rec\nseed: 1\nmodel: SASRec\n"}, r"a\.yaml:3: model stands on line 1 already"),
        ({"a": "train: {lr: 1, lr: 2}\n"}, r"a\.yaml:1: train\.lr stands on line 1 already"),
        ({"a": "? {a: 1}\n: 2\n"}, r"a\.yaml:1: a key must be one word"),
        ({"a": "seed: [1\nmodel: CL4Rec\n"}, r"a\.yaml: line 2: [^\n]*$"),
        ({"a": "\ntrain: {monitor: ndgc@10}\n"}, r"a\.yaml:2: unknown metric in --train\.monitor 'ndgc@10'"),
        ({"a": "\ntrain: {epochs: 0}\n"}, r"a\.yaml:2: train\.epochs is 0"),
        (
            {"a": "next_item:\n  loss: softmxa\n"},
            r"a\.yaml:2: option next_item\.loss: unknown \w+ 'softmxa': did you mean softmax",
        ),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_line(files, texts, message):
    with pytest.raises(UserError, match=message):
        resolve("--config", files(**texts))


def test_an_option_that_was_renamed_is_named_with_the_version_that_had_it(files, tmp_path):
    path = files(a="dataset: Beauty\neval: {cold_items: 0.1}\n")
    with pytest.raises(
        UserError, match=r"a\.yaml:2: option eval\.cold_items of version 0\.1\.0 is called data\.cold_items now"
    ):
        resolve("--config", path)
    with pytest.raises(UserError, match=r"is called data\.cold_items now"):
        resolve("--eval.cold_items", "0.1")
    said = []
    files(config="model: SASRec\neval: {cold_items: 0.1}\n")
    assert config.of_run(tmp_path, notify=said.append).data.cold_items == 0.1
    assert len(said) == 1 and "is called data.cold_items now; it is read as that" in said[0]


def test_what_was_called_bsarec_with_taps_is_read_as_taprec_where_a_run_wrote_it(tmp_path, files):
    said: list[str] = []
    files(config="model: CL4Rec\nencoder: {name: BSARec, taps: 4}\n")
    found = config.of_run(tmp_path, notify=said.append).recipe
    assert found.chosen["encoder"] == "TapRec" and found.parts["encoder"].options["taps"] == 4
    assert [line.partition(": ")[2] for line in said] == [
        "encoder BSARec of version 0.1.0 is called TapRec now; it is read as that"
    ]
    files(config="model: BSARec\nencoder: {name: BSARec, taps: 4}\n")
    assert config.of_run(tmp_path, notify=said.append).recipe.name == "TapRec"
    files(config="model: BSARec\nencoder: {filtered: 0.1}\n")
    assert config.of_run(tmp_path, notify=said.append).recipe.name == "BSARec"
    path = files(a="model: BSARec\nencoder: {taps: 4}\n")
    with pytest.raises(UserError, match=r"a\.yaml:1: model BSARec of version 0\.1\.0 is called TapRec now"):
        resolve("--config", str(path))


SPOKEN = """
import sys
from seqcl.cli.main import main

for file in sys.argv[1:]:
    assert main(["train", "--config", file, "--print_config"]) == 0
    print("\\0", end="")
main(["train", "--help"])  # ends the process
"""


def test_files_and_output_are_utf8_whatever_the_locale(files, tmp_path):
    given = [ROOT / "configs" / "beauty-cl4rec.yaml", files(a="runs: Läufe – π\n")]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SPOKEN, *map(str, given)], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    with_base, own_letters, help_text = done.stdout.split(b"\0")
    assert b"model: CL4Rec" in with_base and b"--encoder.dim" in help_text
    path = tmp_path / "again.yaml"
    path.write_bytes(own_letters)
    assert resolve("--config", path).options.runs == "Läufe – π"


def test_an_experiment_is_frozen_and_typed():
    found = resolve("--model", "CL4Rec", "--train.lr", "0.5")
    assert (
        isinstance(found, Experiment) and found.train.lr == 0.5 and found.recipe.parts["encoder"].options["dim"] == 64
    )
    with pytest.raises(AttributeError):
        found.train = None


def test_a_whole_number_stands_for_the_word_of_its_digits(files):
    assert resolve("--config", files(a="train: {precision: 32}\n")).train.precision == "32"
    assert config.experiment({"train": {"precision": 32}}).train.precision == "32"
    with pytest.raises(UserError, match="unknown value '16': did you mean"):
        resolve("--config", files(a="train: {precision: 16}\n"))


@pytest.mark.parametrize("number", ["1:30", "010", "-1:30", "1:30.5", "[1:30]"])
def test_numbers_that_yaml_reads_in_base_60_or_8_are_refused(files, number):
    option = "eval.ks" if "[" in number else "train.lr" if "." in number else "seed"
    section, _, name = option.rpartition(".")
    text = f"{section}: {{{name}: {number}}}" if section else f"{name}: {number}"
    with pytest.raises(UserError, match=rf"a\.yaml: line 2: {re.escape(number.strip('[]'))} may mean two numbers"):
        resolve("--config", files(a=f"model: SASRec\n{text}\n"))
    with pytest.raises(UserError, match=rf"option {option}: .* may mean two numbers"):
        resolve(f"--{option}={number}")


def test_text_and_plain_numbers_are_as_they_were(files):
    assert resolve("--config", files(a="dataset: '1:30'\nseed: 0\ntrain: {lr: 0.01}\n")).options.dataset == "1:30"
    assert resolve("--dataset", "1:30", "--seed", "0").options.dataset == "1:30"
    assert resolve("--eval.ks", "[5,10]", "--seed", "10").options.seed == 10


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["--new_items", "features"], "new_items: features", "--new_items features: .* give --warm_start RUN"),
        (["--eval.sampled", "50"], "eval: {sampled: 50}", "--eval.sampled 50: .* give --eval.candidates uniform or"),
        (["--eval.seed", "3"], "eval: {seed: 3}", "--eval.seed 3: .* give --eval.candidates uniform or .*, or --seed"),
        (["--pretrain.lr", "0.01"], "pretrain: {lr: 0.01}", "--pretrain.lr 0.01: .* give --pretrain.epochs"),
        (["--pretrain.batch_size", "8"], "pretrain: {batch_size: 8}", "--pretrain.batch_size 8: .* --pretrain.epochs"),
        (["--next_item.negatives", "8"], "next_item: {negatives: 8}", "--next_item.negatives 8: .* sampled_softmax"),
        (["--next_item.sampling", "popularity"], "next_item: {sampling: popularity}", "--next_item.sampling .* loss"),
        (["--next_item.shared", "false"], "next_item: {shared: false}", "--next_item.shared .* sampled_softmax"),
        (["--next_item.correction", "both"], "next_item: {correction: both}", "--next_item.correction both: corrects"),
        (["--next_item.t", "0.5"], "next_item: {t: 0.5}", "--next_item.t 0.5: .* give --next_item.loss gbce"),
    ],
)
def test_options_that_do_nothing_are_refused_where_they_were_given(files, words, text, said):
    with pytest.raises(UserError, match=f"^{said}"):
        resolve("--model", "CL4Rec", *words)
    with pytest.raises(UserError, match=rf"a\.yaml:2: {said}"):
        resolve("--config", files(a=f"model: CL4Rec\n{text}\n"))
    on = {"new_items": "warm_start: RUN", "eval": "eval.candidates: uniform", "pretrain": "pretrain.epochs: 5"}
    off = {"new_items": "warm_start: ''", "eval": "eval.candidates: full", "pretrain": "pretrain.epochs: 0"}
    on["next_item"] = "next_item.loss: " + ("gbce" if "t:" in text else "sampled_softmax")
    off["next_item"] = "next_item.loss: softmax"
    key = text.partition(":")[0]
    assert resolve("--config", files(a=f"model: CL4Rec\n{text}\n", b=f"base: a.yaml\n{on[key]}\n"))
    assert resolve("--config", files(b=f"base: a.yaml\n{off[key]}\n"))  # a file may turn off what it builds on
    whole = files(whole=resolve("--model", "CL4Rec").to_yaml())
    assert resolve("--config", whole)
    with pytest.raises(UserError, match=said):
        resolve("--config", whole, *words)
