"""A run speaks of its protocol before it trains: of targets out of reach or left out, and logs that teach nothing."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest

import seqcl
from seqcl import config
from seqcl.cli.main import main
from seqcl.errors import UserError
from seqcl.models import MODELS, Recommender

RECIPES = sorted({kind.__name__ for kind in MODELS.values()})
TINY = {"encoder": {"dim": 8}, "train": {"epochs": 1}}


def frame(rows):
    """The log of users with these items, in order."""
    return pd.DataFrame(
        [(user, item, place) for user, row in enumerate(rows) for place, item in enumerate(row)],
        columns=["user_id", "item_id", "timestamp"],
    )


def repeating(users, again):
    """Rows of five different items; the first `again` users come back to their first item in the end."""
    random = np.random.default_rng(0)
    rows = [random.permutation(30)[:6].tolist() for _ in range(users)]
    return [[*row[:5], row[0]] if user < again else row for user, row in enumerate(rows)]


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, logger="seqcl")
    return caplog


@pytest.fixture
def csv(tmp_path):
    def write(rows):
        frame(rows).to_csv(tmp_path / "log.csv", index=False)
        return str(tmp_path / "log.csv")

    return write


def test_interactions_that_stand_twice_are_a_warning_with_the_way_out(tmp_path, said):
    twice = pd.concat([frame(repeating(20, 0))] * 2)
    seqcl.train(twice, runs=str(tmp_path), progress=False, eval={"exclude_seen": False}, **TINY)
    line = "120 of 240 interactions have the user, item and time of the one before; --data.duplicates first keeps one"
    assert line in said.text
    said.clear()
    seqcl.train(
        frame([[1, 1, 2, 3], [3, 3, 1, 2]]), runs=str(tmp_path), progress=False, eval={"exclude_seen": False}, **TINY
    )
    assert "of the one before" not in said.text  # the same item at another time


SHORT = ["--encoder.dim", "8", "--train.epochs", "1"]


def test_many_targets_out_of_reach_stop_a_run_before_it_has_a_folder_and_name_the_option(csv, tmp_path, capsys):
    words = ["train", "--dataset", csv(repeating(20, 5)), "--runs", str(tmp_path / "runs"), *SHORT]
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "5 of 20 test targets (25.0%)" in error
    assert "--eval.exclude_seen false" in error and "or true" in error and len(error) <= 310
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("door", ["option", "file", "keyword", "dotted"])
def test_either_value_given_at_any_door_is_a_decision(csv, tmp_path, capsys, said, door, value):
    log, runs = csv(repeating(20, 5)), str(tmp_path / "runs")
    text = str(value).lower()
    if door == "option":
        assert main(["train", "--dataset", log, "--runs", runs, *SHORT, "--eval.exclude_seen", text]) == 0
    elif door == "file":
        (tmp_path / "mine.yaml").write_text(f"eval: {{exclude_seen: {text}}}\n")
        assert main(["train", "--config", str(tmp_path / "mine.yaml"), "--dataset", log, "--runs", runs, *SHORT]) == 0
    else:
        given = {"eval": {"exclude_seen": value}} if door == "keyword" else {"eval.exclude_seen": value}
        seqcl.train(log, runs=runs, progress=False, **TINY, **given)
    assert ("5 of 20 test targets" in said.text) == value


def test_a_resumed_run_has_decided(csv, tmp_path, capsys):
    log, runs = csv(repeating(20, 5)), tmp_path / "runs"
    assert main(["train", "--dataset", log, "--runs", str(runs), *SHORT, "--eval.exclude_seen", "true"]) == 0
    assert main(["train", "--resume", str(next(runs.glob("*-*"))), "--train.epochs", "2"]) == 0
    assert "eval.exclude_seen" in config.of_run(next(runs.glob("*-*"))).given


def test_some_targets_out_of_reach_are_a_warning_that_is_seen_and_kept(csv, tmp_path, capsys):
    words = ["train", "--dataset", csv(repeating(50, 2)), "--runs", str(tmp_path / "runs"), *SHORT]
    assert main(words) == 0
    told = capsys.readouterr()
    line = "2 of 50 test targets (4.0%)"
    assert line in told.err and "--eval.exclude_seen false" in told.err and "0.9600" in told.err
    assert "4.0% of the targets cannot be hit (best possible 0.9600)" in " ".join(told.out.split())
    folder = next((tmp_path / "runs").glob("*-*"))
    assert line in (folder / "log.txt").read_text()
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    assert protocol["unreachable_targets"] == 2
    assert protocol["unreachable_share"] == pytest.approx(0.04)
    assert protocol["best_possible"] == pytest.approx(0.96)


def test_no_more_than_two_in_a_hundred_are_no_warning_but_stand_in_the_protocol(tmp_path, said):
    run = seqcl.train(frame(repeating(100, 2)), runs=str(tmp_path), progress=False, **TINY)
    assert "seen before" not in said.text and run.metrics["protocol"]["best_possible"] == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("rows", "options", "spoken"),
    [
        (repeating(120, 0), {"exclude_seen": False}, True),
        (repeating(120, 1), {"exclude_seen": False}, False),  # one user comes back: others may
        (repeating(99, 0), {"exclude_seen": False}, False),  # few targets, maybe by chance
        (repeating(120, 0), {"exclude_seen": True}, False),
        (repeating(120, 0), {"exclude_seen": False, "candidates": "uniform", "sampled": 9}, False),
    ],
)
def test_seen_items_that_are_kept_and_never_right_are_a_warning(tmp_path, said, rows, options, spoken):
    values = {"model": "Popularity", "eval": options, "runs": str(tmp_path), "progress": False}
    seqcl.train(frame(rows), **values)
    line = "none of 120 targets is an item that its user has seen before; --eval.exclude_seen true leaves them out"
    assert (line in said.text) == spoken


def test_validation_is_counted_too(tmp_path):
    rows = [[*row[:4], row[0], row[5]] for row in repeating(20, 0)]
    with pytest.raises(UserError, match=r"20 of 20 validation targets \(100.0%\)"):
        seqcl.train(frame(rows), runs=str(tmp_path), progress=False, **TINY)


def test_where_every_target_is_out_of_reach_no_figure_is_above_nothing(tmp_path):
    rows = [[1, 2, 3, 1, 2, 3]] * 10 + [[3, 2, 1, 3, 2, 1]] * 10
    run = seqcl.train(frame(rows), runs=str(tmp_path), progress=False, eval={"exclude_seen": True}, **TINY)
    assert run.metrics["protocol"]["best_possible"] == 0
    for part in ("test", "valid"):
        assert all(run.metrics[part][f"{name}@{k}"] == 0 for name in ("recall", "ndcg", "mrr") for k in (5, 10, 20))


@pytest.mark.parametrize("model", RECIPES)
def test_nothing_to_learn_from_is_refused_for_every_recipe(tmp_path, model):
    rows = [np.random.default_rng(user).permutation(12)[:3].tolist() for user in range(20)]
    values = {"encoder": {"dim": 8}} if issubclass(MODELS[model], Recommender) else {}
    with pytest.raises(UserError, match=r"nothing to train on: .*--data\.split temporal"):
        seqcl.train(frame(rows), model=model, runs=str(tmp_path / "runs"), progress=False, **values)
    assert not (tmp_path / "runs").exists()


def test_a_temporal_split_says_what_it_leaves_out_and_which_option_keeps_it(tmp_path, said):
    old = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    table = frame(old * 5)
    late = pd.DataFrame(
        # Users 0 and 1 meet a warm item and then others, 2 a new one; 90 and 91 have nothing before the cut.
        [(0, 1, 100), (1, 2, 101), (2, 77, 102), (0, 3, 103), (90, 3, 104), (90, 4, 105), (91, 78, 106)],
        columns=["user_id", "item_id", "timestamp"],
    )
    late_test = late.assign(
        timestamp=late.timestamp + 100, user_id=late.user_id.replace({0: 3, 1: 4, 2: 5, 90: 92, 91: 93})
    )
    values = {"data": {"split": "temporal", "valid": 100, "test": 200}, "eval": {"exclude_seen": False}} | TINY
    run = seqcl.train(pd.concat([table, late, late_test]), runs=str(tmp_path), progress=False, **values)
    for part, name in (("valid", "validation"), ("test", "test")):
        expected = {"targets": 3, "of_targets": 5, "no_history": 2, "cold": 1, "users": 3, "of_users": 5}
        assert run.split.protocol["left_out"][part] == expected
        assert f"leaves out 3 of 5 {name} targets, and 3 of 5 users: 1 are items that training never saw" in said.text
    assert "--data.cold true" in said.text and "--data.targets all" in said.text
    assert run.metrics["protocol"]["left_out"]["test"]["cold"] == 1


def test_a_list_as_long_as_the_catalogue_is_said(tmp_path, said):
    rows = [np.random.default_rng(user).permutation(10)[:6].tolist() for user in range(20)]
    seqcl.train(frame(rows), runs=str(tmp_path), progress=False, eval={"ks": [5, 10, 20]}, **TINY)
    assert "a list of 10 or 20 holds all 10 candidates" in said.text and "--eval.ks" in said.text


def test_users_who_are_all_alike_are_said(tmp_path, said):
    seqcl.train(frame([[1, 2, 3, 4, 5]] * 9), runs=str(tmp_path), progress=False, **TINY)
    assert "all 9 users have the same items in the same order" in said.text


@pytest.mark.parametrize("again", [{}, {"eval": {"exclude_seen": False}}])
def test_one_item_and_one_user_are_refused_in_a_plain_sentence(tmp_path, again):
    with pytest.raises(UserError, match="one item alone, so there is nothing to rank"):
        seqcl.train(frame([[1] * 5] * 9), runs=str(tmp_path), progress=False, **TINY, **again)
    with pytest.raises(UserError, match="all 9 interactions are of a single user"):
        seqcl.train(frame([range(9)]), runs=str(tmp_path), progress=False, **TINY, **again)
    assert not list(tmp_path.iterdir())


def test_a_log_without_any_of_this_is_trained_without_a_word(tmp_path, said):
    rows = [np.random.default_rng(user).permutation(40)[:8].tolist() for user in range(30)]
    run = seqcl.train(frame(rows), runs=str(tmp_path), progress=False, **TINY)
    assert not said.records
    assert {"unreachable_share", "best_possible", "left_out"}.isdisjoint(run.metrics["protocol"])
