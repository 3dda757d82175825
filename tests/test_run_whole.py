"""A run folder is whole: everything asked of it later is in it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import seqcl
from seqcl import config
from seqcl.cli.main import main
from seqcl.data import Sequences, load_sequences, markov
from seqcl.disk import link_folder
from seqcl.experiment import Run
from seqcl.experiment.keeping import keep_files, keep_log, with_kept_files
from seqcl.retrieval.bundle import Bundle
from seqcl.training import load_checkpoint

QUICK = {"encoder": {"dim": 8}, "data": {"windows": "last"}, "train": {"epochs": 1, "batch_size": 64}}
WORDS = ["--encoder.dim", "8", "--data.windows", "last", "--train.batch_size", "64", "--train.epochs", "1"]


def write_log(path: Path, users: int = 80) -> None:
    log = markov(users=users, items=200, length=8, branching=2, seed=1).interactions
    frame = {"user_id": log.user_ids[log.users], "item_id": log.item_ids[log.items], "timestamp": log.times}
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(frame).to_csv(path, index=False)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.safetensors", prefix="model.")[0]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, a cache, and a run over the log by a relative path."""
    place = tmp_path_factory.mktemp("world")
    write_log(place / "log.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("SEQCL_DATA", str(place / "data"))
        assert main(["train", *WORDS, "--dataset", "log.csv", "--runs", "runs", "--baseline", "SASRec"]) == 0
    (run,) = (place / "runs").glob("*-*")
    return run.rename(place / "run").parent


@pytest.fixture(scope="module")
def doubled(world: Path) -> dict[str, torch.Tensor]:
    """The weights after two epochs without a break."""
    values = QUICK | {"train": {"epochs": 2, "batch_size": 64}}
    write_log(world / "again" / "log.csv")
    made = seqcl.train(world / "again" / "log.csv", runs=str(world / "again"), progress=False, **values)
    return weights(made.folder)


def harm(world: Path, how: str) -> None:
    """Take away what a run must not need."""
    log = world / "log.csv"
    if how == "log deleted":
        log.unlink()
    elif how == "log changed":
        log.write_text(log.read_text().replace("\n1,", "\n2,"))
    elif how == "log grown":
        log.write_text(log.read_text() + "3,4,99999999\n")
    elif how == "all deleted":
        shutil.rmtree(world / "data")
        log.unlink()


@pytest.mark.parametrize("how", ["log changed", "log grown", "all deleted"])
def test_a_run_needs_nothing_but_its_folder(
    how: str,
    world: Path,
    doubled: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = json.loads((world / "run" / "metrics.json").read_text())
    before = Run.load(world / "run").recommend(user=3, k=5)
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    harm(tmp_path / "world", how)
    run = (tmp_path / "world" / "run").rename(tmp_path / "moved")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("SEQCL_DATA", str(tmp_path / "world" / "data"))
    assert main(["evaluate", "../moved"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"] == kept["test"] and found["protocol"] == kept["protocol"]
    assert main(["recommend", "../moved", "--user", "3", "--k", "5"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [str(item) for item, _ in before]
    assert main(["export", "../moved", "bundle", "--index", "flat"]) == 0
    assert len(Bundle("bundle").recommend([1, 2], k=3)) == 3
    if how == "all deleted":
        for name in ("SASRec", "Popularity"):
            baseline = Run.load(run / "baselines" / name)
            assert baseline.evaluate().metrics == pytest.approx(kept["baselines"][name]["test"])
    assert main(["train", "--resume", "../moved", "--train.epochs", "2"]) == 0
    assert equal(weights(run), doubled)
    assert {path.name for path in elsewhere.iterdir()} == {"bundle"}


def test_a_run_shares_its_log_with_the_cache_and_outlives_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQCL_DATA", str(world / "data"))
    (cache,) = (path for path in (world / "data" / "cache").iterdir() if path.is_dir())
    packed = world / "run" / "sequences"
    assert {file.name for file in packed.iterdir()} == {file.name for file in cache.iterdir()}
    assert all(os.path.samefile(file, cache / file.name) for file in packed.iterdir())
    before = {file.name: file.read_bytes() for file in packed.iterdir()}
    meta = (cache / "meta.json").read_text()
    (cache / "meta.json").unlink()
    (cache / "meta.json").write_text(meta.replace('"k_core": 0', '"k_core": 7'))
    load_sequences(world / "log.csv")  # makes the cache again
    assert {file.name: file.read_bytes() for file in packed.iterdir()} == before
    assert Sequences.load(packed).fingerprint == load_sequences(world / "log.csv").fingerprint
    assert not os.path.samefile(packed / "items.npy", cache / "items.npy")


def test_where_no_link_can_be_made_the_log_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setenv("SEQCL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_log(tmp_path / "log.csv")
    made = seqcl.train(tmp_path / "log.csv", model="Popularity", runs=str(tmp_path / "runs"), progress=False)
    shutil.rmtree(tmp_path / "data")
    assert (made.folder / "sequences" / "items.npy").stat().st_nlink == 1
    assert Run.load(made.folder).sequences.fingerprint == made.metrics["data"]["fingerprint"]


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ({"model": "SASRec"}, False),
        ({"model": "Popularity", "baseline": "TiCoSeRec"}, True),
        ({"model": "Popularity", "data": {"split": "temporal"}}, True),
    ],
    ids=str,
)
def test_a_large_log_is_kept_without_the_times_that_nothing_reads(
    values: dict[str, object], times: bool, tmp_path: Path
) -> None:
    log = markov(users=80, items=200, length=8, branching=2, seed=1).interactions
    common = {"keep_gib": 0.0, "runs": str(tmp_path), "train": {"epochs": 1}}
    made = seqcl.train(log, progress=False, **(common | values))
    assert (made.folder / "sequences" / "times.npy").exists() == times
    assert ("more than --keep_gib 0" in (made.folder / "log.txt").read_text()) != times
    again = Run.load(made.folder)
    assert again.evaluate().metrics == pytest.approx(made.metrics["test"])
    assert again.evaluate().protocol == made.metrics["protocol"]


@pytest.mark.parametrize("linked", [True, False])
def test_tables_beside_a_log_come_with_it(linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\nv\tb\n")
    (shop / "shop.item").write_text("item_id:token\tprice:float\ttags:token_seq\nb\t1.5\tred blue\na\t2\t\n")
    known = load_sequences(shop, cache=False).item_features
    monkeypatch.setattr("seqcl.disk.link_folder", link_folder if linked else lambda *_: False)
    keep_log(load_sequences(shop, cache=tmp_path / "cache"), tmp_path, most_gib=1.0, times_read=False)
    shutil.rmtree(shop)
    shutil.rmtree(tmp_path / "cache")
    pd.testing.assert_frame_equal(Sequences.load(tmp_path / "sequences").item_features, known)


def test_two_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "items.csv").write_text(folder)
    values = [
        {"model": "TwoTower", "features": {"item_table": str(tmp_path / name / "items.csv")}}
        for name in ("one", "other")
    ]
    experiments = [config.experiment(one) for one in values]
    keep_files(experiments, tmp_path)
    kept = [with_kept_files(one, tmp_path).recipe.parts["features"].options["item_table"] for one in experiments]
    assert [Path(place).read_text() for place in kept] == ["one", "other"]
    assert all(Path(place).is_relative_to(tmp_path / "tables") for place in kept)


def test_a_named_data_set_and_its_temporal_split_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"model": "Popularity", "data": {"split": "temporal", "targets": "all", "k_core": 5}}
    made = seqcl.train("markov", runs=str(tmp_path), progress=False, **values)
    monkeypatch.setattr("seqcl.data.datasets.MADE", {})
    assert Run.load(made.folder).evaluate().protocol == made.metrics["protocol"]


def test_the_files_that_options_name_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = markov(users=80, items=200, length=8, branching=2, seed=1).interactions
    table = pd.DataFrame({"item_id": log.item_ids, "price": log.item_ids * 0.5, "kind": log.item_ids % 2})
    table.to_csv("items.csv", index=False)
    Path("kinds.json").write_text(json.dumps({str(item): [f"k{item % 3}"] for item in log.item_ids}))
    towers = seqcl.train(log, model="TwoTower", features={"item_table": "items.csv"}, runs="t", progress=False, **QUICK)
    stage = {"mutual": {"attributes": "kinds.json"}, "pretrain": {"epochs": 1}}
    s3rec = seqcl.train(log, model="S3Rec", **stage, runs="s", progress=False, **QUICK)
    best = towers.recommend(user=3, k=5)
    runs = [run.folder.resolve() for run in (towers, s3rec)]
    Path("items.csv").unlink()
    Path("kinds.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Run.load(runs[0]).recommend(user=3, k=5) == best
    assert main(["train", "--resume", str(runs[0]), "--train.epochs", "2"]) == 0
    shutil.rmtree(runs[1] / "checkpoints")  # as if killed between the stage and training
    assert main(["train", "--resume", str(runs[1])]) == 0
    assert json.loads((runs[1] / "metrics.json").read_text())["test"] == s3rec.metrics["test"]
    assert "item_table: items.csv" in (runs[0] / "config.yaml").read_text()


def test_a_damaged_log_of_a_run_is_refused_with_a_way_out(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    monkeypatch.chdir(tmp_path / "world")
    items = Path("run/sequences/items.npy")
    broken = bytearray(items.read_bytes())
    broken[-4] ^= 1
    items.write_bytes(broken)
    for words in (["evaluate", "run"], ["train", "--resume", "run", "--train.epochs", "2"], ["data", "stats", "run"]):
        assert main(words) == 2
        printed = capsys.readouterr().err
        assert "items.npy is not as it was written" in printed and len(printed.splitlines()) == 1
    assert main(["recommend", "run", "--user", "3"]) == 2
    assert "delete this folder to read log.csv instead" in capsys.readouterr().err
    shutil.rmtree("run/sequences")
    assert main(["evaluate", "run"]) == 0


def test_a_configuration_that_was_emptied_is_not_taken_for_the_defaults(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    (tmp_path / "world/run/config.yaml").write_text("")
    assert main(["evaluate", str(tmp_path / "world/run")]) == 2
    assert "config.yaml holds no model, so it is not as its run wrote it" in capsys.readouterr().err


def test_a_run_without_a_packed_log_reads_its_data_set(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Version 0.1.0 kept the log of a data frame alone."""
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    monkeypatch.chdir(tmp_path / "world")
    monkeypatch.setenv("SEQCL_DATA", str(tmp_path / "data"))
    kept = json.loads(Path("run/metrics.json").read_text())
    shutil.rmtree("run/sequences")
    for file in Path("run").rglob("counted.json"):
        file.unlink()
    assert main(["evaluate", "run"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == kept["test"]
    assert main(["train", "--resume", "run", "--train.epochs", "2"]) == 0
    assert not Path("run/sequences").exists()
    harm(tmp_path / "world", "log grown")
    for words in (["evaluate", "run"], ["train", "--resume", "run", "--train.epochs", "3"]):
        assert main(words) == 2
        assert "fingerprint" in capsys.readouterr().err
        assert not Path("run/sequences").exists()
    harm(tmp_path / "world", "log deleted")
    assert main(["recommend", "run", "--user", "3"]) == 2
    printed = capsys.readouterr().err
    assert "run keeps no packed log and needs its data set: " in printed
    assert len(printed) <= 300


@pytest.mark.parametrize("model", ["Popularity", "ItemKNN"])
@pytest.mark.parametrize("states", ["its own file", "the results"])
def test_a_model_that_is_counted_is_not_counted_again_on_another_log(
    model: str, states: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "log.csv")
    made = seqcl.train(tmp_path / "log.csv", model=model, runs=str(tmp_path / "runs"), progress=False)
    shutil.rmtree(made.folder / "sequences")
    if states == "the results":
        (made.folder / "counted.json").unlink()
    assert Run.load(made.folder).evaluate().metrics == made.metrics["test"]
    write_log(tmp_path / "log.csv", users=81)
    places = [made.folder, *(made.folder / "baselines").iterdir()] if model == "ItemKNN" else [made.folder]
    for place in places:
        with pytest.raises(seqcl.UserError, match="counted on other data: the fingerprint"):
            Run.load(place)
    assert main(["train", "--resume", str(made.folder)]) == 2
    assert "counted on other data: the fingerprint" in capsys.readouterr().err
    (made.folder / "counted.json").write_text("{")
    with pytest.raises(seqcl.UserError, match="cannot be read"):
        Run.load(made.folder)


def test_a_run_killed_before_its_log_was_kept_goes_on_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_log(tmp_path / "log.csv")
    words = ["train", "--model", "Popularity", "--dataset", str(tmp_path / "log.csv"), "--runs", str(tmp_path / "runs")]
    with monkeypatch.context() as patch:
        patch.setattr("seqcl.experiment.pipeline.keep_log", killed)
        assert main(words) == 130
    (folder,) = (tmp_path / "runs").glob("*-*")
    assert not (folder / "sequences").exists()
    assert main(["train", "--resume", str(folder)]) == 0
    assert Sequences.load(folder / "sequences").fingerprint == Run.load(folder).metrics["data"]["fingerprint"]


def test_runs_in_a_folder_called_baselines_are_runs(tmp_path: Path) -> None:
    log = replace(markov(users=80, items=200, length=8, branching=2, seed=1).interactions, name="shop")
    (tmp_path / "sequences").mkdir()
    made = seqcl.train(log, model="Popularity", runs=str(tmp_path / "baselines"), progress=False)
    shutil.rmtree(made.folder / "sequences")
    with pytest.raises(seqcl.UserError, match="keeps no packed log"):
        Run.load(made.folder)


def test_stats_of_a_run_say_what_it_holds(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", str(world / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    kept = json.loads((world / "run" / "metrics.json").read_text())
    assert found["model"] == "CL4Rec" and found["dataset"] == "log.csv" and found["whole"] and found["finished"]
    assert {name: found["log"][name] for name in kept["data"]} == kept["data"]
    sizes = found["bytes"]
    assert {"sequences", "checkpoints", "metrics.json", "baselines"} <= sizes.keys()
    files = [file for file in (world / "run").rglob("*") if file.is_file()]
    assert sizes["all"] == sum(file.stat().st_size for file in files)
    assert main(["data", "stats", str(world / "run"), "--user", "x"]) == 2
    assert "is a run" in capsys.readouterr().err
    shutil.copytree(world / "run", tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "sequences")
    kept["protocol"] |= {"columns": {"user": "user_id"}, "order": "time", "dropped": {}}
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(kept))
    assert main(["data", "stats", str(tmp_path / "old")]) == 0
    old = json.loads(capsys.readouterr().out)
    assert not old["whole"] and old["log"] == kept["data"]
    assert old["read"] == {"columns": {"user": "user_id"}, "order": "time", "dropped": {}}
