"""Callbacks, trackers, and runs that leave the test part alone."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.experiment import execute
from seqcl.experiment.job import Job
from seqcl.training import Interrupted

pytestmark = pytest.mark.once
SMALL = {
    "model": "SASRec",
    "encoder": {"dim": 8, "layers": 1},
    "data": {"windows": "last"},
    "train": {"epochs": 2, "batch_size": 32},
    "eval": {"exclude_seen": False},
}


def log() -> pd.DataFrame:
    found = markov(users=60, items=12, length=8, branching=2, seed=1).interactions
    rows = pd.DataFrame({"user_id": found.users, "item_id": found.items})
    return rows.assign(timestamp=10 + rows.groupby("user_id").cumcount())


def train(folder: Any, **options: Any) -> seqcl.Run:
    source = options.pop("source", None)
    return seqcl.train(log() if source is None else source, runs=str(folder), progress=False, **{**SMALL, **options})


class Recorder(seqcl.Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def begin(self, folder, options):
        self.heard.append(("begin", (folder, options)))

    def epoch(self, row):
        self.heard.append(("epoch", row))

    def end(self, metrics):
        self.heard.append(("end", metrics))


def test_a_callback_hears_of_the_model_alone_from_begin_to_end(tmp_path):
    recorder = Recorder()
    run = train(tmp_path, baseline="SASRec", model="CL4Rec", callbacks=[recorder])
    assert [kind for kind, _ in recorder.heard] == ["begin", "epoch", "epoch", "end"]
    folder, options = recorder.heard[0][1]
    assert folder == run.folder and options == run.experiment.flat
    assert [row["valid_ndcg@10"] for kind, row in recorder.heard if kind == "epoch"] == [
        pytest.approx(value) for value in pd.read_csv(run.folder / "history.csv")["valid_ndcg@10"]
    ]
    parts = {"best": run.metrics["valid"], "test": run.metrics["test"]}
    assert recorder.heard[-1][1] == {f"{part}/{name}": one for part in parts for name, one in parts[part].items()}


def test_what_a_callback_raises_ends_the_run_which_goes_on_as_if_nothing_had_been(tmp_path):
    class Stop(Recorder):
        def epoch(self, row):
            raise KeyError("enough")

    stop = Stop()
    with pytest.raises(KeyError, match="enough"):
        train(tmp_path / "a", callbacks=[stop])
    assert stop.heard[-1] == ("end", None)
    (folder,) = (tmp_path / "a").glob("*-*")
    resumed = execute(seqcl.config.of_run(folder), resume=folder, progress=False)
    assert resumed.metrics["test"] == train(tmp_path / "b").metrics["test"]


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_tensorboard_has_the_options_and_the_metrics_of_the_end(tmp_path):
    from tensorboard.plugins.hparams import plugin_data_pb2

    run = train(tmp_path)
    found = events(run.folder)
    told = plugin_data_pb2.HParamsPluginData.FromString(
        found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info.hparams
    assert told["train.batch_size"].number_value == 32 and told["model"].string_value == "SASRec"
    assert set(told) == set(run.experiment.flat)
    for part, name in (("valid", "best"), ("test", "test")):
        assert found.Scalars(f"{name}/ndcg@10")[0].value == pytest.approx(run.metrics[part]["ndcg@10"])


def test_no_tracker_writes_nothing(tmp_path):
    assert not (train(tmp_path, track="none").folder / "tensorboard").exists()


class Failing:
    """A stand-in for mlflow that fails at the second epoch, and says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def start_run(self, **options):
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def log_params(self, params, run_id):
        self.asked.append("params")

    def log_metrics(self, metrics, step, run_id):
        self.asked.append("metrics")
        if self.asked.count("metrics") == 2:
            raise ConnectionError("no\nnetwork")


def test_a_tracker_that_fails_is_said_once_and_costs_nothing(tmp_path, monkeypatch, caplog):
    mlflow = Failing()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    with caplog.at_level(logging.WARNING, logger="seqcl"):
        run = train(tmp_path / "a", track="mlflow,tensorboard", train={**SMALL["train"], "epochs": 4})
    said = [text for record in caplog.records if (text := record.getMessage()).startswith("--track")]
    assert said == ["--track mlflow fails, and the run goes on without it: no network"]
    assert mlflow.asked == ["params", "metrics", "metrics"]
    assert run.metrics["training"]["epochs"] == 4 and len(events(run.folder).Scalars("valid/ndcg@10")) == 4


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_said_before_training(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    words = ["train", "--dataset", "markov", "--runs", str(tmp_path / "runs"), "--track", f"tensorboard,{package}"]
    assert main(words) == 2
    assert f"pip install 'seqcl[{package}]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_tracker_names_the_nearest(capsys):
    assert main(["train", "--track", "wanbd"]) == 2
    assert "unknown tracker in --track 'wanbd': did you mean wandb?" in capsys.readouterr().err


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Trains with a tracker, stops in the second epoch, and goes on."""

    def both(tracker: str) -> seqcl.Run:
        class Stop(seqcl.Callback):
            def epoch(self, row):
                raise Interrupted(signal="SIGTERM")

        with pytest.raises(Interrupted):
            train(tmp_path / "runs", track=tracker, callbacks=[Stop()])
        (folder,) = (tmp_path / "runs").glob("*-*")
        return execute(seqcl.config.of_run(folder), resume=folder, progress=False)

    monkeypatch.chdir(tmp_path)
    return both


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own
def test_mlflow_has_one_run_with_options_rows_and_the_end(interrupted, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow, which no extra for tests brings")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    run = interrupted("mlflow")
    (found,) = mlflow.MlflowClient().search_runs(["0"])
    assert found.info.status == "FINISHED" and found.info.run_name == run.folder.name
    assert found.data.params == {key: str(value) for key, value in run.experiment.flat.items()}
    assert found.data.metrics["test/ndcg_at_10"] == run.metrics["test"]["ndcg@10"]
    rows = mlflow.MlflowClient().get_metric_history(found.info.run_id, "valid/ndcg_at_10")
    history = pd.read_csv(run.folder / "history.csv")
    assert {row.step: row.value for row in rows} == dict(zip(history["step"], history["valid_ndcg@10"], strict=True))


def test_wandb_writes_a_run_without_a_network(interrupted, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb, which no extra for tests brings")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = interrupted("wandb")
    folders = sorted((run.folder / "wandb").glob("offline-run-*"))
    ids = {folder.name.rpartition("-")[2] for folder in folders}
    assert ids == {json.loads((run.folder / "tracked.json").read_text())["wandb"]} and len(folders) == 2
    assert b"test/ndcg@10" in b"".join(file.read_bytes() for file in folders[-1].glob("*.wandb"))


def test_the_test_part_is_left_alone_until_it_is_asked_for(tmp_path, monkeypatch, capsys):
    asked: list[str] = []
    rank = Job.rank
    monkeypatch.setattr(
        Job, "rank", lambda job, model, part, **how: asked.append(part) or rank(job, model, part, **how)
    )
    log().to_csv(tmp_path / "log.csv", index=False)
    words = ["train", "--dataset", str(tmp_path / "log.csv"), "--encoder.dim", "8", "--train.epochs", "1"]
    words += ["--eval.exclude_seen", "false", "--runs", str(tmp_path / "runs")]
    assert main([*words, "--test", "false"]) == 0
    assert set(asked) == {"valid"} and "validation: leave_one_out" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs").glob("*-*")
    before = json.loads((folder / "metrics.json").read_text())
    assert "test" not in before and not before["slices"] and not (folder / "ranks.parquet").exists()
    assert main(["compare", str(folder)]) == 2
    assert f"--resume {folder} --test true" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--test", "true"]) == 0
    after = json.loads((folder / "metrics.json").read_text())
    assert after["valid"] == before["valid"] and after["test"] == seqcl.load(folder).evaluate().metrics
    assert main(["compare", str(folder)]) == 0


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_nothing_of_a_run_that_leaves_the_test_alone_depends_on_its_targets(split, tmp_path):
    """Two logs that differ in the test targets alone give the same bits."""
    one = log()
    other = one.copy()
    if split == "leave_one_out":
        tested = ~one["user_id"].duplicated(keep="last")
        data = {"windows": "last"}
    else:
        tested = one["timestamp"] >= 16
        data = {"windows": "last", "split": "temporal", "valid": 14, "test": 16}
    other.loc[tested, "item_id"] = np.roll(one.loc[tested, "item_id"], 1)  # the same items, at other users
    assert (one["item_id"] != other["item_id"]).mean() > 0.05
    runs = [train(tmp_path, source=source, data=data, test=False) for source in (one, other)]
    assert runs[0].metrics["valid"] == runs[1].metrics["valid"]
    for ours, theirs in zip(*(run.model.state_dict().values() for run in runs), strict=True):
        assert (ours == theirs).all()
