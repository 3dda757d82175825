"""`seqcl benchmark`: the grid of a file, keys, runs side by side, a kill, a failure, and contrast switched off."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl import config
from seqcl.cli.benchmark import Screen
from seqcl.cli.main import main
from seqcl.config.settings import of_words
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.experiment import benchmark, kept, keys, versions
from seqcl.experiment import tasks as tasks_room
from seqcl.experiment.benchmark import run_all, time_left
from seqcl.experiment.compare import compare_runs
from seqcl.experiment.grid_file import read_grid
from seqcl.experiment.tasks import tasks_of
from seqcl.experiment.verdicts import verdicts
from seqcl.models import MODELS
from tests import processes

pytestmark = pytest.mark.once

OPTIONS = "options: {encoder: {dim: 8, layers: 1, heads: 1}, train: {lr: 0.01, warmup: 0, patience: 0}, eval.exclude_seen: false}"
GRID = f"""
data: [{{dataset: log.csv, name: small}}]
models: [SASRec, CL4Rec]
seeds: 2
budget: {{epochs: 2}}
{OPTIONS}
"""


class Forked:
    """A run in a process that is forked from one with torch in it, as `subprocess.Popen` would show it."""

    def __init__(self, words, output, cwd):
        self.process = processes.start(processes.command, words, cwd=cwd, stdout=output, stderr=output)

    def poll(self):
        self.returncode = self.process.exitcode
        return self.returncode

    def wait(self, seconds=None):
        self.process.join(seconds)
        return self.poll()

    def terminate(self):
        self.process.terminate()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a small log, from which the tests are run."""
    log = markov(users=80, items=20, length=7, branching=2, seed=1).interactions
    columns = {"user_id": log.users, "item_id": log.items, "timestamp": log.times}
    pd.DataFrame(columns).to_csv(tmp_path / "log.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQCL_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def begun(folder, monkeypatch):
    """The words of every run that is begun; the runs start at once."""
    found = []

    def start(words, output, *, threads, handle):
        found.append(words)
        return Forked(words, output, folder)

    monkeypatch.setattr(benchmark, "start", start)
    monkeypatch.setattr(benchmark, "PAUSE", 0.02)
    return found


def grid_of(text):
    Path("grid.yaml").write_text(text)
    return read_grid(Path("grid.yaml"))


def run(text, *words):
    Path("grid.yaml").write_text(text)
    return main(["benchmark", "grid.yaml", "--runs", "runs", *words])


def named(rows):
    return [(row.data, row.name) for row in rows]


def test_a_grid_is_every_model_on_every_data_set_and_its_plain_form(folder):
    Path("configs").mkdir()
    Path("configs/base.yaml").write_text(
        "model: CL4Rec\ndataset: Beauty\nencoder: {dim: 24}\ntrain: {lr: 0.5, epochs: 9}\n"
    )
    Path("configs/wide.yaml").write_text("base: base.yaml\nobjective: {weight: 0.7}\n")
    grid = grid_of(
        """
data: [markov, {dataset: log.csv, name: small, data.max_len: 7, train: {lr: 0.25}}]
models:
  - EASE
  - {model: GRU4Rec, encoder: {dim: 12}}
  - configs/wide.yaml
  - {config: configs/wide.yaml, name: lighter, objective.weight: 0.1}
  - {model: CL4Rec, name: over TapRec, encoder: TapRec}
seeds: [3, 5]
options: {encoder.dim: 8, encoder.dropout: 0.25, train.lr: 0.125}
budget: {epochs: 4}
"""
    )
    rows = grid.rows()
    assert named(rows) == [
        (data, name)
        for data in ("markov", "small")
        for name in ("EASE", "GRU4Rec", "wide", "lighter", "over TapRec", "SASRec", "TapRec")
    ]
    found = {(row.data, row.name): row for row in rows}
    assert found["markov", "EASE"].seeds == [3] and found["markov", "wide"].seeds == [3, 5]
    flat = {key: row.experiment.flat for key, row in found.items()}
    assert flat["small", "wide"]["dataset"] == "log.csv" and flat["small", "wide"]["data.max_len"] == 7
    assert [flat["markov", name]["encoder.dim"] for name in ("GRU4Rec", "wide", "over TapRec")] == [12, 8, 8]
    assert [flat[data, "wide"]["train.lr"] for data in ("markov", "small")] == [0.125, 0.25]
    assert [flat["markov", name]["objective.weight"] for name in ("wide", "lighter")] == [0.7, 0.1]
    assert {(one["train.epochs"], one["train.patience"]) for one in flat.values()} == {(4, 0)}
    plain = {row.name: row.plain.name for row in rows if row.plain and row.data == "small"}
    assert plain == {"wide": "SASRec", "lighter": "SASRec", "over TapRec": "TapRec"}
    assert named(grid.rows(["lighter"])) == [
        (data, name) for data in ("markov", "small") for name in ("EASE", "lighter", "SASRec")
    ]
    tasks = tasks_of(rows, folder / "runs")
    assert [(task.row.name, task.seed) for task in tasks if task.row.data == "small"][:3] == [
        ("EASE", 3), ("GRU4Rec", 3), ("wide", 3),
    ]  # fmt: skip
    assert len({task.folder for task in tasks}) == len(tasks) == 2 * (1 + 6 * 2)


def test_sets_of_options_are_rows_of_their_own_and_plain_forms_may_be_left_out(folder):
    grid = grid_of("data: markov\nmodels: [SASRec, CL4Rec]\noptions: [{encoder.dim: 8}, {encoder.dim: 16}]\n")
    assert [row.name for row in grid.rows()] == [
        f"{model} (encoder.dim {dim})" for model in ("SASRec", "CL4Rec") for dim in (8, 16)
    ]
    grid = grid_of("data: markov\nmodels: [CL4Rec, EASE]\ncontrast: as-is\nbudget: {minutes: 2.5}\n")
    assert [row.name for row in grid.rows()] == ["CL4Rec", "EASE"]
    train = grid.rows()[0].experiment.train
    assert (train.max_minutes, train.patience) == (2.5, 0) and train.epochs > 10_000


CONTRASTIVE = [name for name in MODELS if getattr(MODELS[name], "contrast_off", None) is not None]


def test_these_recipes_contrast():
    others = {
        "SASRec",
        "BSARec",
        "TapRec",
        "GRU4Rec",
        "NARM",
        "BERT4Rec",
        "HSTU",
        "EASE",
        "SLIST",
        "ItemKNN",
        "Popularity",
    }
    others |= {"SKNN", "VSKNN", "Markov", "Ensemble", "Blend", "Distil", "DirectAU"}
    assert set(MODELS) - set(CONTRASTIVE) == others


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_contrast_off_leaves_the_same_model_and_configuration_without_the_term(name):
    log = seqcl.data.pack(markov(users=40, items=20, length=7, branching=2, seed=1).interactions)
    tables = {"item_table": pd.DataFrame({"kind": ["odd", "even"] * 10}, index=log.item_ids)}
    tables |= {"user_table": pd.DataFrame({"age": ["old", "young"] * 20}, index=log.user_ids)}
    small = {"encoder": {"dim": 8, "dropout": 0.2}, "train": {"lr": 0.5, "patience": 3}, "data": {"max_len": 6}}
    having = config.experiment({"model": name, "start": "spectral", **small})
    off = config.without_contrast(having)
    same = {
        key: value
        for key, value in having.flat.items()
        if key in off.flat and key not in ("model", *(having.recipe.model.contrast_off))
    }
    assert (
        same == {key: off.flat[key] for key in same}
        and {"train.lr", "encoder.dropout", "next_item.temperature"} <= same.keys()
    )
    assert config.without_contrast(off) is None
    split = having.data.split_windows(replace(log, **tables))
    with_it, without = having.build(split.train), off.build(split.train)
    assert set(without.objective.parts) == {"next_item"} and without.pretraining() is None
    assert set(with_it.objective.parts) > {"next_item"} or with_it.pretraining() is not None
    ours, theirs = with_it.encoder.state_dict(), without.encoder.state_dict()
    ours = {
        key.removeprefix("below."): one for key, one in ours.items() if not key.startswith("top.")
    }  # kept of a head
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    batch = next(iter(seqcl.data.Loader(split.train, batch_size=16, times=True).epoch(0)))
    terms = [model.eval()(batch) for model in (with_it, without)]
    same = torch.equal(terms[0]["next_item"], terms[1]["next_item"])
    assert terms[1].keys() == {"next_item"} and same == (not having.flat.get("pretrain.keep"))


def test_a_recipe_of_ones_own_must_say_what_is_left_without_its_term(monkeypatch):
    class Longer(MODELS["CL4Rec"]):
        """Rows of one item more."""

        more_items = 1

    monkeypatch.setitem(MODELS.others, "Longer", Longer)
    with pytest.raises(UserError, match=r"Longer differs from the plain recipes .* contrast_off"):
        config.without_contrast(config.experiment({"model": "Longer"}))
    Longer.contrast_off = ("objective.weight",)
    off = config.without_contrast(config.experiment({"model": "Longer"}))
    assert off.options.model == "Longer" and off.flat["objective.weight"] == 0


def test_what_is_done_is_not_done_again_and_one_changed_option_reruns_its_runs_alone(begun, capsys):
    one = GRID.replace("seeds: 2", "seeds: [7]")
    assert run(one, "--jobs", "2", "--json", "first.json") == 0
    assert len(begun) == 2
    printed = capsys.readouterr()
    assert "CL4Rec on small, seed 7 done in" in printed.err and "With and without contrast" in printed.out
    first = json.loads(Path("first.json").read_text())
    told = [(found["model"], found["seed"], found["state"]) for found in first["runs"]]
    assert told == [("SASRec", 7, "done"), ("CL4Rec", 7, "done")]
    assert run(one + "baseline: SASRec\n") == 0
    assert len(begun) == 2
    changed = one.replace("CL4Rec]", "{model: CL4Rec, objective.weight: 0.3}]")
    assert run(changed, "--json", "second.json", "--html", "page.html", "--csv", "rows.csv") == 0
    assert len(begun) == 3 and "CL4Rec-log-seed7" in begun[2][-1]
    second = json.loads(Path("second.json").read_text())
    runs = {found["model"]: found["run"] for found in second["runs"]}
    assert runs["SASRec"] == first["runs"][0]["run"] and runs["CL4Rec"] != first["runs"][1]["run"]
    # The tables are those of `seqcl compare` on the same runs.
    (found,) = second["comparisons"]
    rows = compare_runs([*runs.values()], baseline=runs["SASRec"]).records()
    for record, told in zip(rows, found["rows"], strict=True):
        assert record.keys() == told.keys()
        assert told["ndcg@10"] == pytest.approx(record["ndcg@10"]) and told["p (Holm)"] == pytest.approx(
            record["p (Holm)"]
        )
    (pair,) = found["contrast"]
    assert (pair["model"], pair["without contrast"]) == ("CL4Rec", "SASRec")
    assert pair["difference"] == pytest.approx(rows[1]["difference"]) and pair["p (Holm)"] == pytest.approx(
        rows[1]["p"]
    )
    assert list(pd.read_csv("rows.csv")["name"]) == ["SASRec", "CL4Rec"]
    assert "With and without contrast" in Path("page.html").read_text()


def test_a_longer_log_or_another_seed_is_another_run_and_so_is_other_code(begun, monkeypatch, capsys):
    one = GRID.replace("seeds: 2", "seeds: 1").replace("CL4Rec", "EASE")
    assert run(one) == 0 and len(begun) == 2
    monkeypatch.setattr(tasks_room, "code_version", lambda: "other")
    assert run(one, "--plan") == 0
    assert "2 of 2 runs are there, made by other code, and are run anew" in capsys.readouterr().err
    assert run(one, "--accept-older", "--json", "older.json") == 0 and len(begun) == 2
    assert all(one["older code"] for one in json.loads(Path("older.json").read_text())["runs"])
    assert "are taken, though other code made them: SASRec on small, seed 0; EASE" in capsys.readouterr().err
    assert run(one) == 0 and len(begun) == 4
    monkeypatch.setattr(tasks_room, "code_version", lambda: "third")
    assert run(one, "--keep", "kept", "--json", "anew.json") == 0 and len(begun) == 6
    assert not any(one["older code"] for one in json.loads(Path("anew.json").read_text())["runs"])
    shutil.rmtree("runs")
    capsys.readouterr()
    assert run(one, "--keep", "kept") == 0 and len(begun) == 6  # what was made anew is kept with its key
    assert "other code" not in capsys.readouterr().err
    with Path("log.csv").open("a") as log:
        log.write("0,0,90000000\n")
    assert run(one, "--accept-older", "--plan") == 0
    assert Counter(line.split(": ")[1] for line in capsys.readouterr().out.splitlines()[-2:]) == {"waiting": 2}


def test_kept_results_count_as_runs_and_those_of_another_configuration_are_refused(begun, capsys):
    one = GRID.replace("seeds: 2", "seeds: 1").replace("CL4Rec", "EASE")
    assert run(one, "--keep", "kept") == 0 and len(begun) == 2
    assert sorted(path.name for path in Path("kept").iterdir()) == ["EASE-0.parquet", "SASRec-0.parquet"]
    before = capsys.readouterr().out
    shutil.rmtree("runs")
    assert run(one, "--keep", "log.csv") == 2 and "--keep log.csv: File exists" in capsys.readouterr().err
    assert run(one, "--keep", "kept") == 0 and len(begun) == 2 and not Path("runs").exists()
    assert capsys.readouterr().out == before
    other = one.replace("encoder: {dim: 8", "encoder: {dim: 12")
    assert run(other, "--keep", "kept") == 2
    assert "SASRec-0.parquet was kept with another encoder.dim (8, now 12): remove it" in capsys.readouterr().err
    assert run(f"{one}metric: ndcg@50\n", "--keep", "kept") == 2
    assert "keeps ranks of at most 20, so nothing is known of ndcg@50: choose another" in capsys.readouterr().err
    about, _ = kept.read(Path("kept/SASRec-0.parquet"))
    task = tasks_of(grid_of(one).rows(), Path("runs"))[0]
    earlier = {**about["config"], "encoder": {k: v for k, v in about["config"]["encoder"].items() if k != "activation"}}
    tasks_room.check_same(task, {**about, "config": earlier}, Path("somewhere"))  # a newer option has its default
    gone = {**about["config"], "encoder": {**about["config"]["encoder"], "colour": "red"}}
    with pytest.raises(UserError, match=r"somewhere was kept with options that are no more: .*colour"):
        tasks_room.check_same(task, {**about, "config": gone}, Path("somewhere"))


def test_kept_results_of_other_tables_files_or_teachers_are_refused(begun, capsys, monkeypatch):
    pd.DataFrame({"item_id": range(20), "kind": list("ab") * 10}).to_csv("more.csv", index=False)
    one = GRID.replace("seeds: 2", "seeds: 1").replace(
        "[SASRec, CL4Rec]", "[{model: TwoTower, features: {items: kind, item_table: more.csv}}]\ncontrast: as-is"
    )
    assert run(one, "--keep", "kept") == 0 and len(begun) == 1
    shutil.rmtree("runs")
    capsys.readouterr()
    monkeypatch.setattr(tasks_room, "code_version", lambda: "other")
    assert run(one, "--keep", "kept", "--accept-older") == 0 and len(begun) == 1
    assert "do not say which tables" not in capsys.readouterr().err
    pd.DataFrame({"item_id": range(20), "kind": list("abcd") * 5}).to_csv("more.csv", index=False)
    assert run(one, "--keep", "kept", "--accept-older") == 2
    assert re.search(r"TwoTower-0.parquet was kept with another hash of \w+-more.csv \(", capsys.readouterr().err)
    file = Path("kept/TwoTower-0.parquet")
    about, _ = kept.read(file)
    task = tasks_of(grid_of(one).rows(), Path("runs"))[0]
    now = {**about, "beside": tasks_room.read_now(task)}
    tasks_room.check_same(task, now, file)
    with pytest.raises(UserError, match="kept with another hash of tables"):
        tasks_room.check_same(task, {**now, "beside": {**now["beside"], "tables": "0"}}, file)
    taught = {**now["metrics"], "training": {"teachers": "runs/x (0)"}}
    with pytest.raises(UserError, match=r"kept with another teachers \(runs/x"):
        tasks_room.check_same(task, {**now, "metrics": taught}, file)
    monkeypatch.setattr(tasks_room.kept, "read", lambda path: ({**about, "beside": {}}, None))
    (task,) = tasks_of(grid_of(one).rows(), Path("runs"), kept_in=Path("kept"), accept_older=True)
    assert task.older and task.unsaid


def test_a_result_that_cannot_be_kept_is_named_and_stops_nothing(begun, capsys, monkeypatch):
    one = GRID.replace("seeds: 2", "seeds: 1").replace("CL4Rec", "EASE")
    keep = tasks_room.keep

    def full(task, folder):
        if task.row.name == "SASRec":
            raise OSError(28, "No space left on device")
        keep(task, folder)

    with monkeypatch.context() as patch:
        patch.setattr(tasks_room, "keep", full)
        assert run(one, "--keep", "kept") == 1 and len(begun) == 2
    told = capsys.readouterr()
    assert "--keep kept: SASRec on small, seed 0 is not kept: No space left on device" in told.err
    assert "EASE" in told.out and [file.name for file in Path("kept").iterdir()] == ["EASE-0.parquet"]
    assert run(one, "--keep", "kept") == 0 and len(begun) == 2 and Path("kept/SASRec-0.parquet").is_file()


def test_a_model_alone_has_a_table_of_one_row(begun, capsys):
    one = "data: log.csv\nmodels: EASE\n"
    assert run(one, "--keep", "kept", "--html", "page.html", "--csv", "rows.csv") == 0
    assert "EASE" in capsys.readouterr().out and "1 model on" in Path("page.html").read_text()
    assert len(pd.read_csv("rows.csv")) == 1
    shutil.rmtree("runs")
    assert run(one, "--keep", "kept", "--html", "page.html") == 0 and len(begun) == 1


def test_options_and_seeds_of_the_command_line_win_and_no_model_may_lack_them(folder, capsys):
    words = ["--plan", "--only", "CL4Rec", "--seeds", "3"]
    assert run(GRID, *words, "--encoder.dim", "4") == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    (row, _) = grid_of(GRID).rows(["CL4Rec"], of_words(["--train.epochs", "7", "--objective.weight=0.5"]))
    assert row.name == "SASRec" and row.experiment.train.epochs == 7
    assert run(GRID, *words, "--encoder.dmi", "4") == 2
    assert "did you mean" in capsys.readouterr().err
    assert run(GRID, *words, "--eval.sampled", "9") == 2
    assert "--eval.sampled 9: is for sampled candidates" in capsys.readouterr().err
    shared = grid_of(GRID.replace("CL4Rec]", "S3Rec]")).rows([], of_words(["--pretrain.lr", "0.1"]))  # S3Rec reads it
    assert shared[1].experiment.flat["pretrain.lr"] == 0.1
    assert run(GRID, *words, "--test", "false") == 2
    assert "--test: a benchmark compares ranks of test" in capsys.readouterr().err
    assert run(GRID, *words, "--seed", "4") == 2
    assert "--seed: seed does nothing here: a benchmark has seeds: [4], or --seeds" in capsys.readouterr().err


def test_the_version_of_the_code_is_what_it_does(tmp_path):
    root = tmp_path / "seqcl"
    for room in keys.ROOMS:
        (root / room).mkdir(parents=True)
    (root / "experiment").mkdir()
    for name in keys.FILES:
        (root / name).touch()
    loss = root / "losses" / "softmax.py"
    loss.write_text('"""A loss."""\n\n\ndef loss(x):\n    """Two."""\n    return 2 * x  # two\n')
    before = keys.code_version.__wrapped__(root)
    loss.write_text('"""The loss."""\ndef loss(x):\n    return (2\n        * x)\n')
    (root / "report").mkdir()
    (root / "report" / "page.py").write_text("x = 1\n")
    assert keys.code_version.__wrapped__(root) == before
    loss.write_text("def loss(x):\n    return 3 * x\n")
    assert keys.code_version.__wrapped__(root) != before
    assert keys.code_version() == keys.code_version.__wrapped__()


CHANGE_NO_FIGURE = {
    "disk", "errors", "plugins", "registry",  # files, messages, and names of parts
    "machine",  # says what there is
    "experiment/finished", "experiment/keys", "experiment/spoken",  # tell of runs
    "experiment/folder", "experiment/keeping", "experiment/run",  # write and read what was made
    "experiment/unseen",  # refuses or lets pass
    "experiment/geometry",  # curves beside the figures
}  # fmt: skip


def test_what_the_hashed_files_import_is_hashed_too_or_changes_no_figure():
    root = Path(seqcl.__file__).parent
    hashed = [*(root / name for name in keys.FILES), *(file for room in keys.ROOMS for file in (root / room).rglob("*.py"))]  # fmt: skip
    found = set()
    for file in hashed:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "seqcl":
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                found |= {name.removeprefix("seqcl.").replace(".", "/") for name in names}
    own = {file.relative_to(root).with_suffix("").as_posix() for place in ("*.py", "experiment/*.py") for file in root.glob(place)}  # fmt: skip
    assert {name for name in found & own if f"{name}.py" not in keys.FILES} == CHANGE_NO_FIGURE


def test_tables_and_files_that_options_name_belong_to_the_key(folder):
    log = seqcl.data.load_sequences("log.csv")
    tables = [None, *(pd.DataFrame({"kind": [kind] * log.num_items}, index=log.item_ids) for kind in ("a", "b"))]
    assert len({versions.data_version(replace(log, item_table=table)) for table in tables}) == 3
    tables[1].to_parquet("table.parquet")
    assert versions.data_version(replace(log, item_table=folder / "table.parquet")) == versions.data_version(
        replace(log, item_table=tables[1])
    )
    cells = {
        "price": [0.1, np.nan] * (log.num_items // 2),
        "small": np.arange(log.num_items, dtype=np.float32),
        "title": ["a", None] * (log.num_items // 2),
        "seen": [True, None] * (log.num_items // 2),
        "day": pd.to_datetime(["2026-01-01"] * log.num_items),
        "vector": [[0.1, 0.5], None] * (log.num_items // 2),
        "kinds": [["a", "b"], ["c"]] * (log.num_items // 2),
    }
    table = pd.DataFrame(cells, index=log.item_ids)
    table.to_parquet("mixed.parquet")
    one, of_file = (
        versions.data_version(replace(log, item_table=found)) for found in (table, folder / "mixed.parquet")
    )
    assert one == of_file
    for column, value in (("price", 0.1 + 1e-13), ("vector", [0.1, 0.5 + 1e-13]), ("title", "b"), ("kinds", ["a,b"])):
        other = table.copy()
        other.iat[0, list(table).index(column)] = value
        assert versions.data_version(replace(log, item_table=other)) != one, column
    assert versions.data_version(replace(log, item_table=table.rename(columns={"price": "cost"}))) != one
    one = config.experiment({"model": "S3Rec", "mutual.attributes": "kinds.json"})
    found = set()
    for text in ("{}", '{"1": []}'):
        Path("kinds.json").write_text(text)
        found.add(keys.key_of(one, "data", "code"))
    assert len(found) == 2 and keys.key_of(one, "data", "other") not in found


def test_a_failed_run_stops_no_other_and_is_named_with_its_last_line(begun, capsys, monkeypatch):
    failing = GRID.replace("CL4Rec]", "EASE, {model: SASRec, name: wild, train: {lr: 1.0e+30, clip: 0}}]")
    assert run(failing.replace("seeds: 2", "seeds: 1"), "--json", "found.json") == 1
    printed = capsys.readouterr()
    last = printed.err.splitlines()[-1]
    assert last.startswith("seqcl: wild on small, seed 0 failed: seqcl: ") and "output.txt" in last
    found = json.loads(Path("found.json").read_text())
    assert [row["name"] for row in found["comparisons"][0]["rows"]] == ["SASRec", "EASE"]
    assert {one["model"]: one["state"] for one in found["runs"]} == {"SASRec": "done", "EASE": "done", "wild": "failed"}
    alone = failing.replace("[SASRec, ", "[").replace("seeds: 2", "seeds: 1") + "baseline: wild\n"

    def full(*_):
        raise OSError(28, "No space left on device", "page.html")

    monkeypatch.setattr("seqcl.cli.benchmark.write", full)
    assert run(alone) == 2
    told = capsys.readouterr().err
    assert "there is no comparison on small: wild, the baseline, has no finished run" in told
    assert "wild on small, seed 0 failed: " in told and told.endswith("page.html: No space left on device\n")


def test_runs_of_other_benchmarks_are_waited_for(begun, monkeypatch):
    (task,) = tasks_of(grid_of("data: log.csv\nmodels: EASE\n").rows(), Path("runs"))
    task.folder.mkdir(parents=True)
    (task.folder / "lock").touch()
    states = []

    class Watcher:
        def show(self, tasks, left):
            if states[-1:] == ["elsewhere"] and held:
                held.pop().terminate()

        def say(self, task, tasks, left):
            states.append(task.state)

    hold = "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-S", "-c", hold, str(task.folder / "lock")], stdout=subprocess.PIPE)
    holder.stdout.readline()
    held = [holder]
    run_all([task], Watcher())
    holder.communicate()
    assert states == ["elsewhere", "running", "done"]


class Quiet:
    def show(self, tasks, left):
        pass

    def say(self, task, tasks, left):
        pass


def test_a_budget_of_trials_tunes_each_row_first_and_once(begun, capsys):
    pytest.importorskip("optuna")
    text = GRID.replace("budget: {epochs: 2}", "budget: {trials: 2}").replace("seeds: 2", "seeds: 1")
    text = text.replace("lr: 0.01", "lr: 0.01, epochs: 1")
    assert run(text, "--plan") == 0
    assert capsys.readouterr().out == "2 trials of SASRec on small: waiting\n2 trials of CL4Rec on small: waiting\n"
    assert run(text, "--json", "first.json") == 0
    assert [words[0] for words in begun] == ["tune", "tune", "train", "train"]
    capsys.readouterr()
    assert run(text, "--json", "second.json") == 0 and len(begun) == 4
    first, second = (json.loads(Path(f"{name}.json").read_text()) for name in ("first", "second"))
    assert first["runs"] == second["runs"]
    for found, study in zip(first["runs"], sorted(Path("runs").glob("tune-*/study"), reverse=True), strict=True):
        best = config.resolve(["--config", str(study / "best.yaml")])
        assert config.of_run(Path(found["run"]), []).flat | {"runs": ""} == best.flat | {"runs": ""}
    assert run(text.replace("trials: 2", "trials: 3"), "--only", "SASRec") == 0
    assert begun[4][:2] == ["tune", "--study"]  # the study goes on
    count = len(begun)
    assert run(text, "--json", "third.json") == 0 and len(begun) == count  # of its three trials the first two count
    assert json.loads(Path("third.json").read_text())["runs"] == first["runs"]


def test_a_study_of_another_space_or_pruner_is_another_study(folder, monkeypatch):
    pytest.importorskip("optuna")
    from seqcl.experiment import spaces, tuned

    rows = grid_of(GRID.replace("budget: {epochs: 2}", "budget: {trials: 2}")).rows(["SASRec"])
    found = [tuned.tunings_of(rows, Path("runs"), 2)[0]]
    Path("space.yaml").write_text("encoder.dropout: {low: 0.0, high: 0.9}\n")
    with monkeypatch.context() as patch:
        patch.setattr(spaces, "DEFAULT", Path("space.yaml"))
        found += tuned.tunings_of(rows, Path("runs"), 2)
    with monkeypatch.context() as patch:
        patch.setattr(tuned, "PRUNER", "none")
        found += tuned.tunings_of(rows, Path("runs"), 2)
        assert found[2].command()[-2:] == ["--pruner", "none"]
    assert (
        len({one.folder for one in found}) == 3 and tuned.tunings_of(rows, Path("runs"), 2)[0].folder == found[0].folder
    )


def test_a_row_that_cannot_be_tuned_stops_no_other_and_a_killed_beginning_of_a_study_begins_anew(begun, capsys):
    pytest.importorskip("optuna")
    text = GRID.replace("budget: {epochs: 2}", "budget: {trials: 1}").replace("seeds: 2", "seeds: 1")
    text = text.replace("lr: 0.01", "lr: 0.01, epochs: 1").replace(
        "CL4Rec]", "{model: SASRec, name: bad, train.lr: 1.0e+30}]"
    )
    assert run(text, "--plan") == 0
    from seqcl.experiment.tuned import tunings_of

    first = tunings_of(grid_of(text).rows(), Path("runs"), 1)[0].study
    first.mkdir(parents=True)
    (first / "space.yaml").write_text("train.lr: [0.01]\n")  # what a kill leaves
    assert run(text, "--json", "found.json") == 1
    assert "1 trials of bad on small failed" in capsys.readouterr().err
    assert [one["model"] for one in json.loads(Path("found.json").read_text())["runs"]] == ["SASRec"]


def test_a_baseline_that_cannot_be_tuned_is_named_and_its_plain_form_does_not_stand_in(begun, capsys):
    pytest.importorskip("optuna")
    text = GRID.replace("budget: {epochs: 2}", "budget: {trials: 1}").replace("seeds: 2", "seeds: 1")
    text = text.replace("lr: 0.01", "lr: 0.01, epochs: 1").replace(
        "[SASRec, CL4Rec]", "[{model: CL4Rec, name: bad, objective.weight: 1.0e+39}]"
    )
    assert run(text) == 1
    said = capsys.readouterr().err
    assert "1 trials of bad on small failed" in said and "no comparison: bad, the baseline, could not be tuned" in said
    assert [words[0] for words in begun] == ["tune", "tune"]
    from seqcl.experiment.tuned import tuned, tunings_of

    text = text.replace("data: [", "data: [{dataset: log.csv, name: other, data.max_len: 5}, ").replace(
        "1.0e+39", "0.1"
    )
    rows = grid_of(text).rows()
    tunings = tunings_of(rows, Path("runs"), 1)
    for one in tunings:  # as if the study of the baseline had failed on one data set alone
        one.best = None if one.row.baseline and one.row.data == "small" else one.experiment
    tasks = tasks_of(tuned(rows, tunings), Path("runs"))
    problems = {one.data: one.problem for one in verdicts(tasks, baseline="bad", metric="ndcg@10")}
    assert problems == {
        "other": "bad, the baseline, has no finished run",
        "small": "bad, the baseline, could not be tuned",
    }


def test_rows_that_are_tuned_to_one_configuration_are_one_row_with_both_names(folder, caplog):
    pytest.importorskip("optuna")
    from seqcl.experiment.tuned import tuned, tunings_of

    models = "[{model: CL4Rec, name: a}, {model: SASRec, name: b}, {model: SASRec, name: c, train.lr: 0.02}]"
    text = GRID.replace("[SASRec, CL4Rec]", models).replace("budget: {epochs: 2}", "budget: {trials: 2}")
    rows = grid_of(f"{text}baseline: c\n").rows()
    tunings = tunings_of(rows, Path("runs"), 2)
    for one in tunings:
        one.best = tunings[1].experiment if one.row.name == "c" else one.experiment
    found = tuned(rows, tunings)
    assert [(row.name, row.baseline) for row in found] == [("a", False), ("b = c", True)]
    assert found[0].plain.name == "b = c"
    assert "b and c were tuned to one configuration on small: they are one row" in caplog.text
    assert len({task.folder for task in tasks_of(found, Path("runs"))}) == len(tasks_of(found, Path("runs"))) == 4


def test_kept_files_of_several_data_sets_have_names_of_their_own(begun):
    text = GRID.replace("data: [", "data: [{dataset: log.csv, name: other, data.max_len: 5}, ")
    words = ["--html", "page.html", "--json", "found.json"]
    assert run(text, "--seeds", "1", "--only", "SASRec", "--keep", "kept", *words) == 0
    found = json.loads(Path("found.json").read_text())["comparisons"]
    assert [one["data"]["name"] for one in found] == ["other", "small"]
    assert all(f"model on {name}" in Path("page.html").read_text() for name in ("other", "small"))
    assert sorted(file.name for file in Path("kept").iterdir()) == ["other-SASRec-0.parquet", "small-SASRec-0.parquet"]


def test_two_rows_that_would_be_kept_in_one_file_are_refused(begun, capsys):
    names = "[{model: SASRec, name: a b}, {model: SASRec, name: a-b, train.lr: 0.02}]"
    assert run(GRID.replace("[SASRec, CL4Rec]", names), "--keep", "kept", "--plan") == 2
    told = "--keep: a b on small and a-b on small would both be kept as a-b-SEED.parquet: give one another name"
    assert told in capsys.readouterr().err
    data = "data: [{dataset: log.csv, name: x}, {dataset: log.csv, name: x-y}]"
    names = "[{model: SASRec, name: y-z}, {model: SASRec, name: z, train.lr: 0.02}]"
    text = GRID.replace("[SASRec, CL4Rec]", names).replace("data: [{dataset: log.csv, name: small}]", data)
    assert run(text, "--keep", "kept", "--plan") == 2 and run(text, "--plan") == 0
    assert "y-z on x and z on x-y would both be kept as x-y-z-SEED" in capsys.readouterr().err


def test_two_jobs_are_two_at_a_time(begun):
    most = []

    class Watcher(Quiet):
        def show(self, tasks, left):
            most.append(sum(task.state == "running" for task in tasks))

    tasks = tasks_of(grid_of(GRID.replace("seeds: 2", "seeds: 3").replace("CL4Rec", "EASE")).rows(), Path("runs"))
    told = []  # each run as it ends, and how often all were shown until then
    run_all(tasks, Watcher(), jobs=2, done=lambda task: told.append((task, len(most))))
    assert max(most) == 2 and all(task.state == "done" for task in tasks)
    assert {id(task) for task, _ in told} == {id(task) for task in tasks} and told[0][1] < told[-1][1]
    again = []
    run_all(tasks, Watcher(), done=again.append)
    assert again == list(tasks)


def test_time_left_is_that_of_finished_runs(folder):
    tasks = tasks_of(grid_of(GRID.replace("seeds: 2", "seeds: 3")).rows(), Path("runs"))
    assert time_left(tasks, 1) is None
    first = {task.row.name: task for task in tasks[:2]}
    first["SASRec"].state, first["SASRec"].figures = "done", {"seconds": 10.0}
    assert time_left(tasks, 1) == 50.0 and time_left(tasks, 2) == 25.0 and time_left(tasks, 9) == 10.0
    first["CL4Rec"].state, first["CL4Rec"].figures = "done", {"seconds": 30.0}
    tasks[2].state, tasks[2].began = "running", time.monotonic() - 4
    tasks[3].state = "failed"
    assert time_left(tasks, 1) == pytest.approx(6 + 10 + 30, abs=0.5)


def test_a_killed_benchmark_goes_on_where_it_was(folder, monkeypatch):
    text = (
        GRID.replace("[SASRec, CL4Rec]", "[SASRec, EASE]")
        .replace("seeds: 2", "seeds: 1")
        .replace("epochs: 2", "epochs: 60")
    )
    Path("grid.yaml").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(Path(seqcl.__file__).parents[1]))
    words = ["benchmark", "grid.yaml", "--runs", "runs"]
    first = processes.start(processes.command, words, cwd=folder, stderr=folder / "told.txt")
    deadline = time.monotonic() + 120
    while not list(Path("runs").glob("SASRec-*/*/history.csv")):
        assert first.exitcode is None and time.monotonic() < deadline
        time.sleep(0.02)
    first.terminate()
    first.join()
    assert first.exitcode == 130
    assert "0 of 2 runs are done, the same command goes on" in Path("told.txt").read_text()
    (output,) = Path("runs").glob("SASRec-*/output.txt")
    (history,) = Path("runs").glob("SASRec-*/*-*/history.csv")
    assert "stopped by SIGTERM" in output.read_text() and 1 < len(history.read_text().splitlines()) < 61
    again = processes.run(processes.command, words, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert len(history.read_text().splitlines()) == 61
    assert main(["train", "--config", str(output.parent / "asked.yaml"), "--runs", "whole"]) == 0
    (whole,) = Path("whole").glob("*-*")  # never stopped
    ranks = [pd.read_parquet(run / "ranks.parquet")["rank"] for run in (history.parent, whole)]
    assert np.array_equal(*ranks)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modles: [SASRec]\n", r":1: unknown key 'modles': did you mean models\?"),
        ("models: [SASRec]\n", "needs the key data"),
        ("models: []\ndata: markov\n", ":1: models is empty"),
        ("models: [SASRec]\nmodels: [EASE]\ndata: markov\n", ":2: models stands a second time"),
        ("data: markov\nmodels:\n  - SASRec\n  - SASReec\n", r":4: unknown model 'SASReec': did you mean SASRec"),
        ("data: markov\nmodels: [SASRec, SASRec]\n", ":2: models has SASRec twice"),
        ("data: markov\nmodels: [SASRec, {model: SASRec, name: b}]\n", "b and SASRec are one configuration on markov"),
        ("data: markov\nmodels: [{name: b}]\n", ":2: a model needs model: NAME or config: FILE"),
        ("data: markov\nmodels: [nothing.yaml]\n", "grid.yaml:2: --config nothing.yaml: No such file"),
        ("data: markov\nmodels: [{model: SASRec, encoder: {dmi: 8}}]\n", r":2: unknown option .*dim"),
        ("data: markov\nmodels: [SASRec, EASE]\noptions: {encoder.dmi: 8}\n", r":3: unknown option .*dim"),
        ("data: markov\nmodels: [{model: SASRec, encoder.dim: x}]\n", ":2: option encoder.dim"),
        ("data: nowhere\nmodels: [SASRec]\n", "grid.yaml:1: .*nowhere"),
        (
            "data: markov\nmodels: [SASRec]\nbaseline: SASReec\n",
            ":3: unknown model in baseline 'SASReec': did you mean SASRec",
        ),
        ("data: markov\nmodels: [SASRec]\ncontrast: off\n", ":3: unknown value of contrast"),
        ("data: markov\nmodels: [SASRec]\nmetric: ndgc@10\n", ":3: .*did you mean ndcg"),
        ("data: markov\nmodels: [SASRec]\nmetric: [ndcg@10, hr@10]\n", ":3: metric must be one name, such as ndcg@10"),
        ("data: markov\nmodels: [SASRec]\nseeds: 0\n", ":3: seeds must be a number of seeds"),
        ("data: markov\nmodels: [SASRec]\nseeds: [a]\n", ":3: seeds must be"),
        ("data: markov\nmodels: [SASRec]\nseeds: [0, -1]\n", "grid.yaml:3: seed -1 must be from 0 to"),
        (
            "data: markov\nmodels: [SASRec]\noptions:\n  train.lr: 1\n  train: {lr: 2}\n",
            "grid.yaml:5: train.lr stands on line 4 already",
        ),
        ("data: markov\nmodels: [SASRec]\nbudget: {epoch: 3}\n", r":3: unknown budget 'epoch': did you mean epochs"),
        ("data: markov\nmodels: [SASRec]\nbudget: 3\n", ":3: budget must be"),
        (
            "data: markov\nmodels: [SASRec]\nbudget: {trials: 2.5}\n",
            ":3: budget trials must be a whole number, not 2.5",
        ),
        ("data: markov\nmodels: [SASRec]\nbudget: {minutes: -1}\n", ":3: budget minutes must be a number above 0"),
        ("data: markov\nmodels: [SASRec]\nbudget: {epochs: 1.5}\n", ":3: .*epochs"),
        (
            "data: markov\nmodels: [{model: SASRec, train.schedule: cosine}]\nbudget: {minutes: 1}\n",
            ":3: budget minutes has no last epoch",
        ),
        (
            "data: markov\nmodels: [SASRec, {model: EASE, data.max_len: 3}]\n",
            "EASE has data.max_len 3 and SASRec has 50",
        ),
        ("data: markov\nmodels: [SASRec]\noptions: {test: false}\n", "grid.yaml:3: .* test cannot be false"),
        ("data: {dataset: markov, test: false}\nmodels: [SASRec]\n", "grid.yaml:1: .* test cannot be false"),
        ("data: markov\nmodels: [SASRec, {model: EASE, test: no}]\n", "grid.yaml:2: .* test cannot be false"),
        (
            "data: markov\nmodels: [SASRec]\noptions: {eval.sampled: 9}\n",
            "grid.yaml:3: --eval.sampled 9: .* all items are",
        ),
        ("data: markov\nmodels: [SASRec]\noptions: {eval.seed: 9}\n", "grid.yaml:3: --eval.seed 9: "),
        ("data: markov\nmodels: [{model: CL4Rec, pretrain.lr: 1}]\n", "grid.yaml:2: --pretrain.lr 1: .*epochs"),
        (
            "data: markov\nmodels: [SASRec, {model: CL4Rec, seed: 3}]\n",
            "grid.yaml:2: seed does nothing here: .*seeds: ",
        ),
        (
            "data: markov\nmodels: [{model: SASRec, dataset: ml-100k}]\n",
            "grid.yaml:2: dataset does nothing here: .*key data",
        ),
        (
            "data: {dataset: markov, model: EASE}\nmodels: [SASRec]\n",
            "grid.yaml:1: model does nothing here: .*key models",
        ),
        ("data: markov\nmodels: [SASRec]\noptions: {runs: x}\n", "grid.yaml:3: runs does nothing here: .*--runs"),
        ("data: markov\nmodels: [SASRec]\noptions: {baseline: EASE}\n", "grid.yaml:3: baseline does nothing here"),
        ("data: markov\nmodels: [SASRec]\noptions: 3\n", ":3: options must be `key: value` lines"),
        ("- a\n", "the file must hold `key: value` lines"),
        ("models: [\n", "line 2"),
        ("", "the file must hold"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_nothing_is_run(folder, capsys, text, said):
    assert run(text) == 2
    assert re.search(said, capsys.readouterr().err) and not Path("runs").exists()


def test_every_benchmark_that_ships_resolves():
    files = sorted((Path(__file__).parents[1] / "configs" / "benchmarks").glob("*.yaml"))
    assert len(files) == 8
    for file in files:
        head = file.read_text().splitlines()
        assert f"# seqcl benchmark configs/benchmarks/{file.name}" in head[1]
        grid = read_grid(file)
        assert grid.contrast == ("as-is" if file.stem == "contrast" else "both")
        assert grid.baseline == grid.models[0].name
        if file.stem != "ml-1m-200":  # the models of the other length
            own = [model for model in grid.models if "model" in model.settings]  # the files are tested by themselves
            if own:
                assert len(replace(grid, models=own, contrast="as-is", baseline=own[0].name).rows()) == len(own)


def test_a_missing_file_a_model_that_is_not_there_and_a_folder_that_cannot_be_made(folder, capsys):
    assert main(["benchmark", "nothing.yaml"]) == 2
    assert "nothing.yaml: No such file" in capsys.readouterr().err
    assert run(GRID, "--only", "CL4Re") == 2
    assert "unknown model in --only 'CL4Re': did you mean CL4Rec" in capsys.readouterr().err
    assert run(GRID, "--only", "CL4Rec", "SASRec") == 2
    assert "'SASRec' is not an option: each model has an --only of its own" in capsys.readouterr().err
    assert run(GRID, "--jobs", "0") == 2
    assert "jobs must be above 0" in capsys.readouterr().err
    Path("runs").write_text("")
    assert run(GRID) == 2
    assert "--runs runs: Not a directory" in capsys.readouterr().err


def test_the_table_on_a_terminal_has_a_row_for_each_model(folder, monkeypatch, capsys):
    tasks = tasks_of(grid_of(GRID).rows(), Path("runs"))
    tasks[0].state, tasks[0].figures = "done", {"seconds": 90.0, "valid": {"ndcg@10": 0.25}}
    tasks[1].state = "running"
    tasks[1].folder.joinpath("run").mkdir(parents=True)
    tasks[1].folder.joinpath("run", "history.csv").write_text("epoch\n1\n2\n")
    screen = Screen("ndcg@10")
    screen.show(tasks, 61.0)
    assert capsys.readouterr().err == ""  # no terminal: lines for events alone
    monkeypatch.setattr(screen.board, "live", True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen.show(tasks, 61.0)
    shown = capsys.readouterr().err
    assert "1 of 4 done, about 1:01 left" in shown
    lines = {
        line.split("│")[2].strip(): [cell.strip() for cell in line.split("│")]
        for line in shown.splitlines()
        if "small" in line
    }
    assert lines["SASRec"][3:7] == ["1 of 2", "", "0.2500", "1.5"]
    assert lines["CL4Rec"][3:7] == ["0 of 2", "seed 0: epoch 2", "", ""]
    screen.board.close()
