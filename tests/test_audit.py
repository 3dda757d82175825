"""`seqcl audit`: a clean run holds, and every kind of planted leak is found."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl import config
from seqcl.augment import Pair, SameTarget
from seqcl.cli.main import main
from seqcl.data import Loader, hardships, markov
from seqcl.data import split as splits
from seqcl.encoders import spectral
from seqcl.errors import UserError
from seqcl.evaluation import Evaluator
from seqcl.evaluation.ranks import Seen
from seqcl.experiment.audit import audit
from seqcl.experiment.job import Job
from seqcl.experiment.pipeline import execute
from seqcl.models import linear, two_tower
from seqcl.objectives import NextItem, prototypes
from seqcl.training import Interrupted
from seqcl.training.state import State
from seqcl.types import Windows

pytestmark = pytest.mark.once

TABLE = pd.DataFrame({"kind": [f"k{item % 7}" for item in range(30)], "price": np.arange(30.0) ** 2}, index=range(30))
LOG = replace(markov(users=80, items=30, length=8, branching=2, seed=1).interactions, item_features=TABLE)
SMALL = {
    "encoder": {"dim": 8}, "eval": {"exclude_seen": False},
    "train": {"epochs": 2, "lr": 0.02, "warmup": 0, "batch_size": 16, "patience": 0},
}  # fmt: skip
FEW = {"data": {"train_users": 0.4}}
COLD = {"data": {"cold_items": 0.2}}
TEMPORAL = {"data": {"split": "temporal", "targets": "all"}}
SAMPLED = {"eval": {"candidates": "popularity", "sampled": 8, "exclude_seen": False}}
POPULAR = {"next_item": {"loss": "sampled_softmax", "sampling": "popularity", "negatives": 8}}
CLUSTERS = {"objective": {"clusters": [6], "warmup": 1}}


def trained(folder, model, **options):
    """A run of two epochs."""
    counted = {} if model != "EASE" else {"encoder": None, "train": {}}
    values = {key: value for key, value in {**SMALL, **counted, **options}.items() if value is not None}
    return seqcl.train(LOG, model=model, runs=str(folder), progress=False, **values)


def verdicts(folder):
    """The verdict on every line of the run, and of its baselines with their name before it."""
    found = audit(folder)
    first = found[0].model
    return {
        check.name if check.model == first else f"{check.model} {check.name}": (check.verdict, check.told)
        for check in found
    }


def broken(folder):
    """The lines that are broken, and what they tell."""
    return {name: told for name, (verdict, told) in verdicts(folder).items() if verdict == "broken"}


def whole(windows):
    """The windows of a split that may know everything: what a leak reads."""
    return replace(windows, ends=windows.offsets[1:])


@pytest.mark.parametrize(
    "model, options, used",
    [
        ("CoSeRec", {"baseline": "EASE,ItemKNN"}, ["correlations", "EASE tables and first weights", "ItemKNN correlations", "Popularity counted scores"]),
        ("ICSRec", {**CLUSTERS, "data": {"windows": "prefix"}}, ["clusters", "same-target index"]),
        ("TwoTower", COLD, ["features", "cold items", "chances of negatives"]),
        ("S3Rec", {"pretrain": {"epochs": 1}, **TEMPORAL}, ["pre-training", "cuts in time"]),
        ("SASRec", {**SAMPLED, **POPULAR, "start": "spectral", "data": {"max_len": 4, "windows": "last"}}, ["sampled candidates", "chances of negatives"]),
    ],
)  # fmt: skip
def test_a_clean_run_holds(tmp_path, model, options, used):
    found = verdicts(trained(tmp_path, model, **options).folder)
    assert {name: told for name, (verdict, told) in found.items() if verdict == "broken"} == {}
    assert all(
        found[name][0] == "held" for name in (*used, "training windows", "popularity", "test ranks", "early stopping")
    )
    if model != "S3Rec":
        assert "to the last bit, those of the first epoch in history.csv" in found["first epoch"][1]


@pytest.mark.parametrize("model", ["SASRec", "CoSeRec"])
def test_a_clean_run_of_fixed_shapes_holds_to_the_last_bit(tmp_path, model):
    found = verdicts(trained(tmp_path, model, train={**SMALL["train"], "shapes": "fixed"}).folder)
    assert {name: told for name, (verdict, told) in found.items() if verdict == "broken"} == {}
    assert "to the last bit" in found["first epoch"][1]


def compiling_to(patch, more):
    """Compiled functions give more: their kernels round, and draw dropout, in another way."""
    patch.setattr(torch, "compile", lambda plain, **how: lambda batch: plain(batch) + more)


def test_a_clean_run_that_was_compiled_holds_but_for_rounding(tmp_path, monkeypatch):
    compiling_to(monkeypatch, 0.1)
    folder = trained(tmp_path, "SASRec", train={**SMALL["train"], "compile": True}).folder
    found = verdicts(folder)
    assert {name: told for name, (verdict, told) in found.items() if verdict == "broken"} == {}
    assert "to the last bit" in found["first epoch"][1]
    compiling_to(monkeypatch, 0.1 + 1e-6)
    assert "of their value: both were compiled, each for itself" in verdicts(folder)["first epoch"][1]
    compiling_to(monkeypatch, 0.5)
    assert "history.csv are others" in broken(folder)["first epoch"]


COSINE = {**SMALL["train"], "schedule": "cosine"}


def resumed(folder, **train):
    """Let a run go on under other options of training."""
    before = config.of_run(folder)
    return execute(replace(before, train=replace(before.train, **train)), resume=folder, progress=False).folder


def test_a_clean_run_that_went_on_to_more_epochs_holds(tmp_path):
    folder = resumed(trained(tmp_path, "BYOLRec", train=COSINE).folder, epochs=4)
    found = verdicts(folder)
    assert {name: told for name, (verdict, told) in found.items() if verdict == "broken"} == {}
    assert "to the last bit" in found["first epoch"][1]


def interrupted(folder, model, **options):
    """The folder of a run that was stopped in its first epoch."""
    made = Loader.epoch

    def epoch(self, number, start=0):
        for place, batch in enumerate(made(self, number, start)):
            yield batch
            if place == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as caught:
        patch.setattr(Loader, "epoch", epoch)
        trained(folder, model, **options)
    return caught.value.folder


def test_where_the_epochs_changed_within_the_first_one_the_audit_says_that_losses_are_not_compared(tmp_path):
    found = verdicts(resumed(interrupted(tmp_path, "SASRec", train=COSINE), epochs=3))
    assert {name: told for name, (verdict, told) in found.items() if verdict == "broken"} == {}
    assert "train.epochs may have been another number in the first epoch" in found["first epoch"][1]


def test_a_clean_run_whose_time_ended_in_an_epoch_holds_and_so_where_it_goes_on(tmp_path):
    folder = interrupted(tmp_path, "SASRec")
    assert broken(resumed(folder, max_minutes=0.0001)) == {}
    assert seqcl.load(folder).metrics["training"]["stopped"] == "minutes"
    found = verdicts(resumed(folder, max_minutes=0.0))
    assert {name: told for name, (verdict, told) in found.items() if verdict == "broken"} == {}
    assert "the best of 3 validations" in found["early stopping"][1] and "to the last bit" in found["first epoch"][1]


def leaky_windows(patch):
    """Training reads whole rows, the test's item included."""
    made = splits.training_windows
    patch.setattr(splits, "check_leakage", lambda *split: None)
    patch.setattr(splits, "training_windows", lambda log, ends, **how: made(log, log.offsets[1:], **how))


def leaky_correlations(patch):
    """Items are correlated over whole rows."""
    made = Pair.prepare
    patch.setattr(Pair, "prepare", lambda self, train: made(self, whole(train)))


def leaky_popularity(patch):
    """Items are counted in whole rows."""
    made = Windows.item_counts
    patch.setattr(Windows, "item_counts", lambda self: made(whole(self)))


def leaky_features(patch):
    """Means and deviations are taken over all items."""
    made = two_tower.table_features
    patch.setattr(two_tower, "table_features", lambda *a, **how: made(*a[:2], np.ones_like(a[2]), *a[3:], **how))


def leaky_clusters(patch):
    """Clusters are made of states that have read the test's item."""
    made = prototypes.encode

    def encode(encoder, batches, kind):
        log = batches.windows
        rows = replace(
            log, start=log.offsets[:-1], stop=log.offsets[1:], first=log.offsets[:-1], users=np.arange(log.num_users)
        )
        return made(encoder, Loader(rows, batch_size=64, targets="none"), kind)

    patch.setattr(prototypes, "encode", encode)


def leaky_stopping(patch):
    """Training is stopped by the test."""
    made = Job.rank
    patch.setattr(
        Job, "rank", lambda self, model, part, *, lists=True: made(self, model, part if lists else "test", lists=lists)
    )


def leaky_choice(patch):
    """Validation is written down, but the epoch is chosen by another figure, as that of the test would be."""
    made = State.judge

    def judge(self, metrics, *, monitor, epoch):
        better = made(self, {**metrics, monitor: -metrics[monitor]}, monitor=monitor, epoch=epoch)
        if better:
            self.best, self.metrics = -metrics[monitor], metrics
        return better

    patch.setattr(State, "judge", judge)


def leaky_candidates(patch):
    """Only items that are a target of somebody are candidates."""
    begun, made = Seen.__init__, Seen.pairs

    def init(self, windows, device):
        begun(self, windows, device)
        self.never = torch.from_numpy(np.setdiff1d(np.arange(windows.num_items), windows.items[windows.stop] - 1)[:9])

    def pairs(self, start, stop):
        rows, columns = made(self, start, stop)
        more = torch.arange(stop - start).repeat_interleave(len(self.never))
        rows, columns = torch.cat((rows, more)), torch.cat((columns, self.never.repeat(stop - start)))
        order = rows.argsort(stable=True)
        return rows[order], columns[order]

    patch.setattr(Seen, "__init__", init)
    patch.setattr(Seen, "pairs", pairs)


def dropped_targets(patch):
    """The filter of seen items takes the target of every third row for one of them."""
    begun = Seen.__init__

    def init(self, windows, device):
        begun(self, replace(windows, stop=windows.stop + (np.arange(len(windows)) % 3 == 0)), device)

    patch.setattr(Seen, "__init__", init)


def leaky_cold_items(patch):
    """Cold items stay in training."""
    patch.setattr(splits, "check_leakage", lambda *split: None)
    patch.setattr(hardships, "without_items", lambda log, cold: (log, np.arange(len(log.items) + 1)))


def leaky_users(patch):
    """All users train."""
    patch.setattr(hardships, "draw_users", lambda number, fraction, seed: np.ones(number, bool))


def leaky_same_target(patch):
    """The index of rows by target holds the test's targets too."""
    made = SameTarget.prepare

    def prepare(self, train):
        first, stop = train.offsets[:-1], train.offsets[1:] - 1
        made(self, replace(train, start=first, first=first, stop=stop, users=np.arange(train.num_users)))

    patch.setattr(SameTarget, "prepare", prepare)


def leaky_negatives(patch):
    """Negatives are drawn by popularity in whole rows."""
    made = NextItem.prepare
    patch.setattr(NextItem, "prepare", lambda self, encoder, train: made(self, encoder, whole(train)))


def leaky_cut(patch):
    """Training goes on behind the cut."""
    made = splits.count_before
    patch.setattr(splits, "check_leakage", lambda *split: None)
    patch.setattr(splits, "count_before", lambda log, moment: made(log, moment + 30 * 86400))


def leaky_sampling(patch):
    """Candidates are drawn by popularity in whole rows."""
    made = Evaluator.__call__

    def call(self, windows, batches, scorer, counts, **how):
        return made(self, windows, batches, scorer, whole(windows).item_counts(), **how)

    patch.setattr(Evaluator, "__call__", call)


def leaky_closed_form(patch):
    """Weights in closed form are made of whole rows."""
    made = linear.products
    patch.setattr(linear, "products", lambda train, **how: made(whole(train), **how))


def leaky_start(patch):
    """First vectors of items are made of whole rows."""
    made = spectral.spectral
    patch.setattr(spectral, "spectral", lambda train, dim: made(whole(train), dim))


def swapped_validation(patch):
    """Validation predicts the test's items."""
    made = splits.evaluation_windows

    def windows(log, ends, users, stops, **how):
        return made(log, ends, users, log.offsets[1:][users] - 1, **how)

    patch.setattr(splits, "check_leakage", lambda *split: None)
    patch.setattr(splits, "evaluation_windows", windows)


@pytest.mark.parametrize(
    "plant, model, options, lines",
    [
        (leaky_windows, "SASRec", {}, ["training windows", "popularity", "first epoch"]),
        (leaky_correlations, "CoSeRec", {}, ["correlations", "tables and first weights"]),
        (leaky_popularity, "SASRec", {}, ["popularity", "Popularity counted scores", "Popularity tables and first weights"]),
        (leaky_features, "TwoTower", COLD, ["features"]),
        (leaky_clusters, "ICSRec", CLUSTERS, ["clusters", "first epoch"]),
        (leaky_stopping, "SASRec", {}, ["choice of weights"]),
        (leaky_choice, "SASRec", {}, ["early stopping"]),
        (leaky_candidates, "SASRec", {"eval": {"exclude_seen": True}}, ["test ranks"]),
        (dropped_targets, "SASRec", {"eval": {"exclude_seen": True}}, ["test ranks"]),
        (leaky_cold_items, "SASRec", COLD, ["cold items", "training windows", "popularity"]),
        (leaky_users, "SASRec", FEW, ["idle users", "training windows", "popularity"]),
        (leaky_same_target, "DuoRec", {}, ["same-target index"]),
        (leaky_negatives, "SASRec", POPULAR, ["chances of negatives", "first epoch"]),
        (leaky_cut, "SASRec", TEMPORAL, ["training windows", "popularity", "first epoch"]),
        (leaky_sampling, "SASRec", SAMPLED, ["test ranks"]),
        (leaky_closed_form, "EASE", {}, ["tables and first weights"]),
        (leaky_start, "SASRec", {"start": "spectral"}, ["tables and first weights", "first epoch"]),
        (swapped_validation, "SASRec", {}, ["validation targets"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)  # fmt: skip
def test_a_planted_leak_is_found(tmp_path, monkeypatch, plant, model, options, lines):
    plant(monkeypatch)
    found = broken(trained(tmp_path, model, **options).folder)
    assert set(lines) <= set(found), found


def test_a_run_that_learned_from_the_test_is_found_by_its_history_where_the_code_is_clean(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        leaky_windows(patch)
        run = trained(tmp_path, "SASRec")
    found = broken(run.folder)
    assert "history.csv are others" in found["first epoch"], found


def test_a_run_that_was_stopped_by_the_test_is_found_where_the_code_is_clean(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        leaky_stopping(patch)
        run = trained(tmp_path, "SASRec")
    assert "on the test, which is it" in broken(run.folder)["choice of weights"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), "SASRec").folder


def test_changed_files_of_a_run_are_found(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    ranks = pd.read_parquet(copy / "ranks.parquet")
    ranks.assign(rank=np.maximum(1, ranks["rank"] - 2)).to_parquet(copy / "ranks.parquet")
    assert set(broken(copy)) == {"test ranks", "test metrics"}
    ranks.iloc[::-1].to_parquet(copy / "ranks.parquet")
    assert "kept targets" in broken(copy)
    ranks.to_parquet(copy / "ranks.parquet")
    assert broken(copy) == {}
    figures = json.loads((copy / "metrics.json").read_text())
    figures["test"]["ndcg@10"] += 0.001
    (copy / "metrics.json").write_text(json.dumps(figures))
    assert set(broken(copy)) == {"test metrics"}
    figures = json.loads((run / "metrics.json").read_text())
    figures["baselines"]["Popularity"]["valid"]["ndcg@10"] += 0.0005  # a tie broken in favour of a target, say
    (copy / "metrics.json").write_text(json.dumps(figures))
    assert set(broken(copy)) == {"Popularity choice of weights"}
    (copy / "metrics.json").write_text((run / "metrics.json").read_text())
    history = pd.read_csv(copy / "history.csv", float_precision="round_trip")
    history.loc[0, "valid_ndcg@10"] = 0.999
    history.to_csv(copy / "history.csv", index=False)
    assert set(broken(copy)) == {"early stopping"}


def test_the_command_prints_lines_writes_json_and_says_by_its_status_if_anything_is_broken(run, tmp_path, capsys):
    file = tmp_path / "audit.json"
    assert main(["audit", str(run), "--json", str(file), "--batches", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "SASRec" and lines[1].split()[0] == "held"
    rows = json.loads(file.read_text())
    assert {row["verdict"] for row in rows} == {"held", "not used"} and all(row["told"] for row in rows)
    count = [sum(row["verdict"] == verdict for row in rows) for verdict in ("held", "not used")]
    assert lines[-1] == f"{count[0]} held, 0 broken, {count[1]} not used by this run"
    with pytest.MonkeyPatch.context() as patch:
        leaky_popularity(patch)
        assert main(["audit", str(run)]) == 1
    assert "BROKEN" in capsys.readouterr().out


def test_what_is_no_run_is_refused(run, tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    assert "is no finished run" in capsys.readouterr().err
    with pytest.raises(UserError, match="batches 0"):
        audit(run, batches=0)


def test_a_baseline_is_audited_alone(run):
    found = audit(run / "baselines" / "Popularity")
    assert {check.model for check in found} == {"Popularity"} and not [c for c in found if c.verdict == "broken"]
    assert {check.name for check in found if check.verdict == "held"} >= {"counted scores", "test ranks", "popularity"}
