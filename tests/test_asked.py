"""Asking a run and its bundle: many at once as each alone, unknown ids named, and only what is allowed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov, raw_ids
from seqcl.errors import UserError
from seqcl.retrieval.bundle import Bundle

HISTORIES = [["i03"], ["i05", "gone, sold", "i09", "i03"], ["never"], [f"i{n:02}" for n in range(9)]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Trains a model once; one item has a comma in its id."""
    runs: dict = {}

    def of(model):
        if model not in runs:
            log = markov(users=60, items=30, length=8, branching=2, seed=1).interactions
            words = np.array([f"i{item:02}" for item in range(29)] + ["i29, last"])
            values: dict = {"data": {"max_len": 5}, "eval": {"batch_size": 4}}
            if model == "SASRec":
                values |= {"encoder": {"dim": 8}, "train": {"epochs": 1, "batch_size": 32}}
            folder = str(tmp_path_factory.mktemp(model))
            runs[model] = seqcl.train(replace(log, item_ids=words), model=model, runs=folder, progress=False, **values)
        return runs[model]

    return of


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory):
    return Bundle(made("SASRec").export(tmp_path_factory.mktemp("bundle") / "b", index="hnsw"))


def assert_near(mine, wanted):
    assert [item for item, _ in mine] == [item for item, _ in wanted]
    assert [score for _, score in mine] == pytest.approx([score for _, score in wanted], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seen", [True, False])
def test_many_histories_get_what_each_gets_alone(made, bundle, caplog, seen):
    run = made("SASRec")
    for ask, alone in (
        (lambda: run.recommend_many(histories=HISTORIES, k=7, exclude_seen=seen), lambda own: run.recommend(items=own, k=7, exclude_seen=seen)),
        (lambda: bundle.recommend_many(HISTORIES, k=7, exclude_seen=seen), lambda own: bundle.recommend(own, k=7, exclude_seen=seen)),
    ):  # fmt: skip
        caplog.clear()
        found = ask()
        (said,) = (record.getMessage() for record in caplog.records)
        assert said.endswith("does not know 2 of 15 items, which are left out, such as gone, sold, never")
        assert found[2] == [] and [len(own) for own in found] == [7, 7, 0, 7]
        for mine, own in zip(found, HISTORIES, strict=True):
            if mine:
                assert_near(mine, alone([item for item in own if item.startswith("i")]))


def test_many_users_get_what_each_gets_alone_and_strangers_nothing(made, caplog):
    run = made("SASRec")
    users = run.sequences.user_ids[[40, 3, 7]].tolist()
    found = run.recommend_many(users=[*users, "nobody"], k=5)
    assert "does not know 1 of 4 users, which are left out, such as nobody" in caplog.text and found[3] == []
    of_frame = pd.Series([*users, "nobody"], index=[9, 8, 7, 6])
    assert run.recommend_many(users=of_frame, k=5) == found
    for mine, user in zip(found, users, strict=False):
        assert_near(mine, run.recommend(user=user, k=5))


@pytest.mark.parametrize("model", ["SASRec", "Popularity"])
def test_only_what_is_allowed_is_recommended_in_the_order_of_the_whole_list(made, bundle, caplog, model):
    run, stock = made(model), ["i29, last", "i04", "i01", "i04", "sold"]
    asks = [lambda **more: run.recommend(items=["i04", "i07"], **more)]
    if model == "SASRec":
        asks.append(lambda **more: bundle.recommend(["i04", "i07"], **more))
    for ask in asks:
        for seen, left in ((True, {"i29, last", "i01"}), (False, {"i29, last", "i01", "i04"})):
            mine = ask(k=9, exclude_seen=seen, allowed=stock)
            assert {item for item, _ in mine} == left
            own = dict(run.recommend(items=["i04", "i07"], k=30, exclude_seen=seen))
            assert [score for _, score in mine] == pytest.approx([own[item] for item, _ in mine], rel=1e-4, abs=1e-6)
            assert [score for _, score in mine] == sorted((score for _, score in mine), reverse=True)
        assert "does not know 1 of 5 items, which are left out, such as sold" in caplog.text


@pytest.mark.parametrize("exported", [False, True])
def test_the_command_names_what_it_leaves_out_and_reads_ids_and_stock_from_files(
    made, bundle, tmp_path, capsys, exported
):
    run = made("SASRec")
    place = str(bundle.folder if exported else run.folder)
    (tmp_path / "items.json").write_text(json.dumps(["i29, last", "i03", "gone"]), encoding="utf-8")
    (tmp_path / "stock.txt").write_text("i01\ni04\ni05\n\ni29, last\n", encoding="utf-8")
    words = ["recommend", place, "--items-file", str(tmp_path / "items.json")]
    assert main([*words, "--k", "4"]) == 0
    shown, said = capsys.readouterr()
    assert "does not know 1 of 3 items, which are left out, such as gone" in said
    assert [line.split("\t")[0] for line in shown.splitlines()] == [
        item for item, _ in run.recommend(items=["i29, last", "i03"], k=4)
    ]
    assert main([*words, "--allowed", str(tmp_path / "stock.txt")]) == 0
    assert {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()} == {"i01", "i04", "i05"}


def test_a_table_of_lists_holds_only_what_is_allowed(made, tmp_path):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "stock.json").write_text('["i01", "i04"]', encoding="utf-8")
    words = ["recommend", str(made("Popularity").folder), "--users", "all", "--out", str(tmp_path / "a.csv")]
    assert main([*words, "--filter", "none", "--allowed", str(tmp_path / "stock.json")]) == 0
    found = pandas.read_csv(tmp_path / "a.csv")
    assert set(found["item_id"]) == {"i01", "i04"} and len(found) == 120


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--items-file", "no.json"], "no.json"),
        (["--items-file", "bad.json"], 'it must be a list of ids, such as ["Paris, Texas", 7]'),
        (["--items-file", "odd.json"], "id 2 is 1.5; it must be text or a whole number"),
        (["--items-file", "odd.json", "--items", "i01"], "--items and --items-file ask for different histories"),
        (["--items", "i01", "--allowed", "empty.txt"], "--allowed empty.txt: it holds no id"),
        (["--items", "i01", "--allowed", "strange.txt"], "has none of the 2 items, such as a, b"),
        (["--items", "a,b"], "has none of the 2 items, such as a, b; ids are such as i00"),
        (
            ["--items", "i01", "--allowed", "strange.txt", "--from", "milvus:./x.db"],
            "--allowed compares the items of RUN",
        ),
    ],
)
def test_a_wrong_question_is_said(made, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    files = {"bad.json": '{"a": 1}', "odd.json": '["i01", 1.5]', "empty.txt": "\n\n", "strange.txt": "a\nb\n"}
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
    assert main(["recommend", str(made("SASRec").folder), *words]) == 2
    assert message in capsys.readouterr().err


def test_python_refuses_texts_and_both_or_neither(made, bundle):
    run = made("SASRec")
    for call, message in (
        (lambda: run.recommend_many(), "needs users or histories"),
        (lambda: run.recommend_many(users=[1], histories=[[1]]), "needs users or histories"),
        (lambda: run.recommend_many(histories=["i01"]), "not the text 'i01'"),
        (lambda: run.recommend(items=["i01"], allowed="i02"), "allowed must be a list of raw ids"),
        (lambda: run.recommend_many(histories=[3]), "each history must be a list of raw ids, not 3"),
        (lambda: bundle.recommend_many([]), "no item is given; those that .* knows are such as i00, i01"),
        (lambda: run.recommend_many(users="17"), "users must be a list of raw ids, not '17'"),
        (lambda: run.recommend_many(users=[]), "no user is given; those that markov knows are such as 0, 1"),
        (lambda: run.recommend(items=["i01"], allowed=[]), "allowed is empty"),
        (lambda: bundle.recommend(["i01"], allowed=[]), "allowed is empty"),
        (lambda: bundle.recommend(["i01"], k=0), "k must be 1 or more"),
        (lambda: bundle.recommend(["i01"], k=2.0), r"k must be a whole number, not 2\.0"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_places_are_those_of_a_search_one_by_one():
    from seqcl.data.sequences import find

    draws = np.random.default_rng(0)
    numbers = np.unique(draws.integers(-50, 50, 40))
    for ours in (numbers, np.unique(numbers.astype(np.str_))):
        raws = [*draws.integers(-60, 60, 100).tolist(), *map(str, range(-9, 9)), "", "x", "9" * 30, 2**70, 1.0]
        for raw, place in zip(raws, raw_ids.places_of(raws, ours).tolist(), strict=True):
            try:
                assert find(ours, raw, "item", "log") == place
            except UserError:
                assert place == -1
