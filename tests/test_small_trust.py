"""Small things that cost trust: ids with commas, the caller's random states, files under a locale that is not UTF-8."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl.cli.ids import ids_of
from seqcl.cli.main import main
from seqcl.errors import UserError

ROOT = Path(__file__).parents[1]
TINY = {"encoder": {"dim": 8}, "train": {"epochs": 1}}
FILMS = ["Alien", "Brazil", "Paris, Texas", "Paris", " Texas", 'He said "no"', "Gattaca", "Heat"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    draws = np.random.default_rng(0)
    rows = [(user, FILMS[item], place) for user in range(30) for place, item in enumerate(draws.permutation(8)[:6])]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return seqcl.train(table, model="SASRec", runs=str(tmp_path_factory.mktemp("runs")), progress=False, **TINY)


def asked(capsys, place, *words):
    assert main(["recommend", str(place), "--k", "3", *words]) == 0
    return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("exported", [False, True])
def test_ids_with_commas_are_quoted_or_given_alone_and_never_guessed(run, tmp_path, capsys, exported):
    place = run.export(tmp_path / "bundle", index="flat") if exported else run.folder
    wanted = [item for item, _ in run.recommend(items=["Paris, Texas", "Alien"], k=3)]
    assert asked(capsys, place, "--items", '"Paris, Texas",Alien') == wanted
    assert asked(capsys, place, "--items", '"Paris, Texas"', "--items", "Alien") == wanted
    plain = [item for item, _ in run.recommend(items=["Alien", "Heat"], k=3)]
    assert (
        asked(capsys, place, "--items", "Alien,Heat") == asked(capsys, place, "--items=Alien", "--items=Heat") == plain
    )
    assert main(["recommend", str(place), "--items", "Paris, Texas"]) == 2
    assert """write '"Paris, Texas"' for it""" in capsys.readouterr().err
    assert main(["recommend", str(place), "--items", '"Paris']) == 2
    assert "quote" in capsys.readouterr().err


def test_a_quote_inside_an_id_is_a_letter():
    assert ids_of('He said "no",Heat') == ['He said "no"', "Heat"]
    assert ids_of('"a ""b"", c"') == ['a "b", c'] and ids_of("") == [""]
    with pytest.raises(UserError, match="--items"):
        ids_of('"a" b')


def test_training_and_loading_leave_the_callers_random_states_as_they_were(run, tmp_path):
    def drawn():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]

    def seeded():
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)

    seeded()
    expected = drawn()
    seeded()
    rows = run.sequences
    table = pd.DataFrame({"user_id": np.repeat(rows.user_ids, 6), "item_id": rows.item_ids[rows.items - 1]})
    seqcl.train(table, model="SASRec", runs=str(tmp_path), progress=False, **TINY)
    seqcl.load(run.folder)
    with pytest.raises(UserError):
        seqcl.train(table, model="SASRec", runs=str(tmp_path), data={"max_len": 0}, **TINY)
    assert drawn() == expected


def test_a_configuration_is_read_under_a_locale_that_is_not_utf_8(tmp_path):
    (tmp_path / "grün.yaml").write_bytes("# Füße, 日本\nencoder: {dim: 24}\n".encode())
    (tmp_path / "mine.yaml").write_bytes(
        "# Füße\nbase: grün.yaml\nplugins: [öwn.py]\ntrain: {epochs: 3, monitor: größe@10}\n".encode()
    )
    (tmp_path / "öwn.py").write_bytes(
        "import seqcl\nseqcl.register('metric', lambda ranks, k: ranks * 0, name='größe')\n".encode()
    )
    (tmp_path / "recbole.yaml").write_bytes("# 日本\nMAX_ITEM_LIST_LENGTH: 20\n".encode())
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")} | locale
    words = [
        "--recbole-config",
        "recbole.yaml",
        "--config",
        "mine.yaml",
        "--config",
        "grün.yaml",
        "--print_config",
    ]
    command = [sys.executable, "-m", "seqcl", "train", *words]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "dim: 24" in text and "epochs: 3" in text and "max_len: 20" in text and "monitor: größe@10" in text
