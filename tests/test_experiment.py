"""From a log to a filled run folder, to recommendations, and on after a break."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import seqcl
from seqcl.config import Experiment
from seqcl.data import markov
from seqcl.experiment import Run
from seqcl.experiment.job import Job

SMALL = {
    "encoder": {"dim": 32, "dropout": 0.1},
    "data": {"windows": "last"},
    "train": {"epochs": 8, "lr": 0.005, "batch_size": 64},
    "eval": {"exclude_seen": False},  # a chain comes back to its items
}


@pytest.fixture(scope="module")
def chain():
    return markov(users=600, items=30, length=12, branching=2, seed=1)


@pytest.fixture(scope="module")
def run(chain, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return seqcl.train(chain.interactions, model="CL4Rec", baseline="SASRec", runs=str(folder), progress=False, **SMALL)


def ceiling(chain, run):
    return chain.ceiling(run.split.test, run.sequences.item_ids, ks=(10,))["ndcg@10"]


def test_cl4rec_comes_near_the_ceiling_of_a_markov_chain(chain, run):
    best = ceiling(chain, run)
    assert 0.93 * best < run.metrics["test"]["ndcg@10"] < 1.05 * best
    assert run.metrics["baselines"]["Popularity"]["test"]["ndcg@10"] < 0.6 * best


@pytest.mark.parametrize(
    ("model", "encoder", "windows"),
    [("BERT4Rec", {}, "sliding"), ("SASRec", {"name": "BERT4Rec"}, "prefix"), ("CL4Rec", {"name": "HSTU"}, "sliding")],
)
def test_rows_longer_than_what_an_encoder_reads_are_learned_and_ranked(chain, model, encoder, windows, tmp_path):
    values = {
        "encoder": {"dim": 8} | encoder,
        "data": {"windows": windows, "max_len": 5},
        "train": {"epochs": 1},
        "eval": {"exclude_seen": False},
    }
    made = seqcl.train(chain.interactions, model=model, runs=str(tmp_path), progress=False, **values)
    assert made.metrics["protocol"]["max_len"] == 5
    assert made.evaluate().metrics == pytest.approx(made.metrics["test"])
    assert len(made.recommend(items=made.sequences.item_ids[:9].tolist(), k=3)) == 3


def test_the_run_folder_holds_everything(run):
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "metrics.json", "history.csv", "ranks.parquet", "log.txt", "curves.png"} <= names
    assert any((run.folder / "tensorboard").iterdir())
    assert (run.folder / "checkpoints" / "best.safetensors").exists()
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["protocol"].items() >= {
        "split": "leave_one_out", "candidates": "full", "exclude_seen": False, "max_len": 50, "k_core": 0,
    }.items()  # fmt: skip
    assert {"name", "fingerprint", "users", "items", "interactions"} <= set(metrics["data"])
    assert {"seed", "versions", "machine", "seconds", "peak_memory_bytes", "valid"} <= set(metrics)
    history = pd.read_csv(run.folder / "history.csv")
    assert {"epoch", "seconds", "loss_next_item", "loss_contrast", "valid_ndcg@10"} <= set(history)


def test_peak_memory_is_read_before_any_baseline_adds_to_it(tmp_path, monkeypatch):
    from seqcl.experiment import pipeline as module

    alive: list[str] = []
    build = Experiment.build

    def counted(self, train, **how):
        model = build(self, train, **how)
        alive.append(self.options.model)
        weakref.finalize(model, alive.remove, self.options.model)
        return model

    monkeypatch.setattr(Experiment, "build", counted)
    seen = []
    begun = tmp_path.glob("*/baselines/*")
    monkeypatch.setattr(module, "peak_memory_bytes", lambda: seen.append([*alive, *begun]) or 1000)
    values = {"model": "Popularity", "baseline": "ItemKNN,SASRec", "train": {"epochs": 1}, "data": {"windows": "last"}}
    values["eval"] = {"exclude_seen": False}
    log = markov(users=60, items=10, length=6, branching=2, seed=1).interactions
    made = seqcl.train(log, runs=str(tmp_path), progress=False, **values)
    assert seen == [["Popularity"]] and made.metrics["peak_memory_bytes"] == 1000
    assert set(made.metrics["baselines"]) == {"ItemKNN", "SASRec"}


def test_no_epoch_is_chosen_on_the_test_set(tmp_path, monkeypatch):
    """Validation is best in epoch 2, the test set in epoch 3 and the weights in epoch 4."""
    rank, told = Job.rank, {"valid": [0.1, 0.5, 0.3, 0.2], "test": [0.1, 0.2, 0.5, 0.3]}
    asked, weights = [], []

    def made_up(self, model, part, *, lists=True):
        found = rank(self, model, part, lists=lists)
        if lists:  # after training
            return found
        asked.append(part)
        weights.append(model.encoder.item_embeddings().clone())
        return replace(found, metrics=found.metrics | {"ndcg@10": told[part][len(asked) - 1]})

    monkeypatch.setattr(Job, "rank", made_up)
    log = markov(users=60, items=10, length=6, branching=2, seed=1).interactions
    values = {"encoder": {"dim": 8}, "data": {"windows": "last"}, "train": {"epochs": 4, "batch_size": 16}}
    values["eval"] = {"exclude_seen": False}
    run = seqcl.train(log, model="CL4Rec", runs=str(tmp_path), progress=False, **values)
    assert asked == ["valid"] * 4 and run.metrics["training"]["best_epoch"] == 2
    assert [torch.equal(run.model.encoder.item_embeddings(), one) for one in weights] == [False, True, False, False]


def test_ranks_give_the_metrics_back(run):
    ranks = pd.read_parquet(run.folder / "ranks.parquet")
    gain = np.where(ranks["rank"] <= 10, 1 / np.log2(ranks["rank"] + 1), 0).mean()
    assert gain == pytest.approx(run.metrics["test"]["ndcg@10"], abs=1e-9)
    last = dict(zip(run.sequences.user_ids, run.sequences.items[run.sequences.offsets[1:] - 1], strict=True))
    assert [run.sequences.find_item(target) for target in ranks["target"]] == [last[user] for user in ranks["user"]]


def test_evaluating_again_gives_the_same_numbers(run):
    assert run.evaluate().metrics == pytest.approx(run.metrics["test"])
    assert run.evaluate("valid").metrics == pytest.approx(run.metrics["valid"])


def test_recommendations_leave_out_what_was_seen(chain, run):
    user = run.sequences.user_ids[0]
    history = run.sequences.item_ids[run.sequences.history(user) - 1].tolist()
    best = run.recommend(user=user, k=5)
    assert len(best) == 5 and not {item for item, _ in best} & set(history)
    assert run.recommend(items=history, k=5) == best
    assert [score for _, score in best] == sorted((score for _, score in best), reverse=True)


def test_an_unknown_id_is_named(run):
    with pytest.raises(seqcl.UserError, match="no item 'nothing'"):
        run.recommend(items=["nothing"])
    with pytest.raises(seqcl.UserError, match="a user or items"):
        run.recommend()


def test_a_data_frame_needs_no_file(tmp_path):
    frame = pd.DataFrame({"user_id": np.repeat(list("abcdefgh"), 5), "item_id": list("vwxyz") * 8})
    values = {"data": {"windows": "last"}, "encoder": {"dim": 8}, "train": {"epochs": 2}}
    made = seqcl.train(frame, runs=str(tmp_path), progress=False, **values)
    again = Run.load(made.folder)
    assert again.recommend(items=["v", "w"], k=2) == made.recommend(items=["v", "w"], k=2)


@pytest.mark.once
def test_a_seed_decides_the_run(chain, tmp_path):
    values = SMALL | {"train": {"epochs": 2, "batch_size": 64}}
    ranks = []
    for seed in (0, 0, 1):
        made = seqcl.train(chain.interactions, runs=str(tmp_path), progress=False, seed=seed, **values)
        ranks.append(made.evaluate().ranks)
    assert (ranks[0] == ranks[1]).all() and (ranks[0] != ranks[2]).any()


def test_every_model_field_of_the_encoder_changes_something(chain):
    from seqcl.encoders import SASRec
    from seqcl.types import SeqBatch

    batch = SeqBatch(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    changes = {
        "layers": 1,
        "heads": 4,
        "norm": "pre",
        "positions": "start",
        "activation": "relu",
        "hidden": 2,
        "norm_eps": 0.1,
        "dim": 8,
    }

    def state(**values):
        torch.manual_seed(0)
        return SASRec(num_items=9, max_len=5, **({"dim": 16} | values)).eval().last(batch)

    for name, value in changes.items():
        changed = state(**{name: value})
        assert changed.shape != state().shape or not torch.allclose(changed, state()), name


@pytest.mark.once
def test_a_baseline_differs_in_nothing_but_the_recipe(tmp_path):
    values = {"encoder": {"name": "GRU", "dim": 8, "hidden": 1}, "train": {"epochs": 1}}
    made = seqcl.train(
        "markov", model="CL4Rec", baseline="SASRec,GRU4Rec", runs=str(tmp_path), progress=False, **values
    )
    config = yaml.safe_load((made.folder / "baselines" / "SASRec" / "config.yaml").read_text())
    assert config["encoder"] == yaml.safe_load((made.folder / "config.yaml").read_text())["encoder"]
    assert yaml.safe_load((made.folder / "baselines" / "GRU4Rec" / "config.yaml").read_text())["encoder"]["dim"] == 8


def test_the_temporal_protocol_is_whole(tmp_path):
    values = {
        "data": {"split": "temporal", "targets": "all", "test": 0.2},
        "encoder": {"dim": 8},
        "train": {"epochs": 1},
    }
    protocol = seqcl.train("markov", model="SASRec", runs=str(tmp_path), progress=False, **values).metrics["protocol"]
    assert protocol["split"] == "temporal" and protocol["targets"] == "all" and protocol["num_targets"] > 1000


def test_a_data_frame_takes_the_columns_that_are_named(tmp_path):
    rows = pd.DataFrame({"who": np.repeat(range(20), 6), "what": np.tile(range(6), 20), "when": np.tile(range(6), 20)})
    values = {"encoder": {"dim": 8}, "train": {"epochs": 1}, "data": {"user": "who", "item": "what", "time": "when"}}
    made = seqcl.train(rows.sample(frac=1, random_state=0), runs=str(tmp_path), progress=False, **values)
    assert made.sequences.history(3).tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(seqcl.UserError, match="did you mean what"):
        seqcl.train(rows, data={"user": "who", "item": "waht"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.evaluate("vaild"), "did you mean valid"),
        (lambda run: run.recommend(items="12"), "must be a list"),
        (lambda run: run.recommend(user=0, k=0), "k must be 1 or more"),
        (lambda run: seqcl.train("markov", train=5), "option train: expected its options by name"),
        (lambda run: seqcl.train([1, 2]), "not a list"),
    ],
)
def test_a_mistake_in_python_is_named(run, call, message):
    with pytest.raises(seqcl.UserError, match=message):
        call(run)
