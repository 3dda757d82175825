"""Values that nobody would type, in YAML files, on the command line and in tables: each is refused in one short line."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import seqcl
from seqcl import config
from seqcl.cli.main import main
from seqcl.data.attributes import read_attributes
from seqcl.data.tables import read_columns
from seqcl.errors import UserError
from seqcl.integrations.recbole_yaml import options

LISTS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MAPS = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{{', '.join(f'k{number}: *{old}' for number in range(10))}}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: null", "dataset: expected a value, not null"),
        ("device: null", "device: expected a value, not null"),
        ("encoder: {dim: null}", r"encoder.dim: expected a value, not null"),
        ("dataset: !foo markov", "could not determine a constructor for the tag"),
        ("dataset: !!python/object/apply:os.getcwd []", "could not determine a constructor for the tag"),
        ("seed: 2020-13-45", "month must be in 1..12"),
        ("dataset: 2020-01-01", "option dataset"),
        ("data: &a {x: *a}", "a value holds itself"),
        ("eval: {ks: &a [*a]}", "a value holds itself"),
        ("train: &a\n  <<: *a\n  epochs: 1", "a value holds itself"),
        (LISTS, "aliases .* stand for more than"),
        (MAPS, "aliases .* stand for more than"),
        ("dataset: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("seed: " + "1" * 5000, "seed: Exceeds the limit"),
        ("train: {epochs: " + "9" * 30 + "}", "train.epochs: the number is too large"),
        ("train: f.yaml", "option train: expected its options by name"),
    ],
)
def test_a_value_of_a_yaml_file(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "f.yaml"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1 and len(error) - len(str(tmp_path)) < 300
    with contextlib.suppress(UserError):  # null is no value there
        options(tmp_path / "f.yaml")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train", "f.yaml"], "option train: expected its options by name, not 'f.yaml'"),
        (["--device", "meta"], "--device meta: not here"),
        (["--data.max_len", "9" * 30], "data.max_len: the number is too large"),
        (["--encoder.dim", str(10**9)], "no memory left"),
        (["--seed", "1" * 5000], "seed"),
        (["--" + "x" * 2000, "1"], "unknown option"),
        (["--dataset", "x" * 3000], "xxx"),
        (["--dataset", "\ud800"], "unknown data set"),
        (["--model", "x" * 2000], "unknown model"),
    ],
)
def test_a_word_of_the_command_line(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text("epochs: 1")
    assert main(["train", "--dataset", "markov", "--runs", "runs", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # after what the protocol says
    assert said in error and len(error) <= 300
    assert not Path("runs").exists()


def test_more_negatives_than_items_are_refused_before_they_are_drawn(tmp_path: Path) -> None:
    sizes = {"train": {"epochs": 1}, "eval": {"candidates": "uniform", "sampled": 10**9}}
    with pytest.raises(UserError, match=r"--eval\.sampled 1000000000: there are \d+ items"):
        seqcl.train("markov", model="Popularity", progress=False, runs=str(tmp_path), **sizes)


def test_a_limit_of_the_norm_with_sparse_tables_leaves_no_folder(tmp_path: Path) -> None:
    options = {"towers": {"sparse": True}, "train": {"clip": 1.0}, "ssl": {"weight": 0}}
    with pytest.raises(UserError, match=r"train\.clip .* sparse"):
        seqcl.train("markov", model="TwoTower", progress=False, runs=str(tmp_path / "runs"), **options)
    assert not (tmp_path / "runs").exists()


IDS = np.arange(5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((5, 0)), "vectors of no numbers"),
        (np.zeros((5, 2), complex), "only numbers and text"),
        (np.zeros(5, complex), "only"),
    ],
)
def test_an_array_that_is_no_feature(tmp_path: Path, values: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "t.npz", ids=IDS, v=values)
    with pytest.raises(UserError, match=said):
        read_columns(tmp_path / "t.npz", IDS, "items")


@pytest.mark.parametrize(
    "cells",
    [[1 + 2j] * 5, ["\ud800"] * 5, [object()] * 5, [[10**5000]] * 5, [np.zeros((2, 2))] * 5, [1, "a", None, {1}, b"x"]],
    ids=["complex", "surrogate", "object", "huge", "matrix", "mixed"],
)
def test_a_frame_that_a_run_could_not_keep_is_refused_before_the_run(tmp_path: Path, cells: list[Any]) -> None:
    rows = np.random.default_rng(0).integers(0, 5, (60, 2))
    log = pd.DataFrame({"user_id": rows[:, 0] + 10, "item_id": rows[:, 1], "timestamp": np.arange(60)})
    table = pd.DataFrame({"v": pd.Series(cells, dtype=object)}, index=IDS)
    source = replace(config.experiment({}).data.from_frame(log), item_features=table)
    with pytest.raises(UserError, match="column 'v' cannot be kept as Parquet"):
        seqcl.train(source, model="SASRec", progress=False, runs=str(tmp_path / "runs"), train={"epochs": 1})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"1": [' + "1" * 5000 + "]}", '{"1": ["\\ud800"]}', '{"\\ud800": ["a"]}']
)
def test_attributes_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: (it cannot be read|a word holds half a letter)"):
        read_attributes(tmp_path / "a.json")
