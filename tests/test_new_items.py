"""Items without interactions are ranked by two towers as the item tower says, and no other vector changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.retrieval.bundle import Bundle

SMALL: dict = {
    "encoder": {"dim": 8},
    "data": {"max_len": 5},
    "train": {"epochs": 2, "batch_size": 16},
    "eval": {"exclude_seen": False},
    "track": "none",
}


def rows_of(ids):
    """A kind and a price for each item; what an item's number says of it holds for new ones too."""
    numbers = [int(item.removeprefix("i")) for item in ids]
    kinds = [f"k{number % 7}" for number in numbers]
    return pd.DataFrame({"kind": kinds, "price": [float(number) for number in numbers]}, index=list(ids))


KNOWN = [f"i{item:02}" for item in range(0, 40, 2)]
NEW = ["i03", "i11", "i39"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The item table of its log lists three items that nobody has had; they sort among the others."""
    log = markov(users=60, items=20, length=8, branching=2, seed=1).interactions
    log = replace(log, item_ids=np.array(KNOWN), item_features=rows_of([*NEW, *KNOWN]))
    return seqcl.train(
        log,
        model="TwoTower",
        runs=str(tmp_path_factory.mktemp("runs")),
        progress=False,
        next_item={"bias": True},
        **SMALL,
    )


def test_their_vectors_are_the_towers_and_all_others_stay(run):
    more = run.with_new_items()
    ids = more.sequences.item_ids.tolist()
    assert ids == sorted(KNOWN + NEW) and run.sequences.item_ids.tolist() == KNOWN
    ours, theirs = more.model.vectors(), run.model.vectors()
    places = torch.tensor([ids.index(item) for item in KNOWN])
    torch.testing.assert_close(ours[places], theirs)
    encoder = run.model.encoder
    for item in NEW:  # by hand: the mean of the word's vectors, the price as training standardised it, and the tower
        kind, price = encoder.item_features.parts
        word = kind.weight[encoder.items_known.bags["kind"].names.index(f"k{int(item[1:]) % 7}")]
        prices = np.array([float(name[1:]) for name in KNOWN])
        number = torch.tensor([[(float(item[1:]) - prices.mean()) / prices.std()]], dtype=torch.float32)
        wanted = encoder.item_tower(torch.cat((word[None], price.map(number)), 1))[0]
        wanted = wanted / wanted.norm() if run.model.objective.scoring.similarity == "cosine" else wanted
        torch.testing.assert_close(ours[ids.index(item)][:8], wanted, rtol=1e-4, atol=1e-5)


def test_they_are_recommended_exported_and_read_in_a_history(run, tmp_path):
    more = run.with_new_items()
    wanted = more.recommend(items=["i04", "i06"], k=23, exclude_seen=False)
    assert {item for item, _ in wanted} == {*KNOWN, *NEW}
    old = dict(run.recommend(items=["i04", "i06"], k=20, exclude_seen=False))
    assert [score for item, score in wanted if item in old] == pytest.approx(
        [old[item] for item, _ in wanted if item in old], rel=1e-4, abs=1e-5
    )
    bundle = Bundle(more.export(tmp_path / "out", index="flat"))
    assert [item for item, _ in bundle.recommend(["i04", "i06"], k=23, exclude_seen=False)] == [
        item for item, _ in wanted
    ]
    assert more.recommend(items=["i03"], k=3)


def test_the_commands_take_the_items_of_the_run_or_of_a_file(run, tmp_path, capsys):
    table = rows_of([*KNOWN, "i01"]).rename_axis("item_id").reset_index()
    table.to_csv(tmp_path / "today.csv", index=False)
    words = ["recommend", str(run.folder), "--items", "i04", "--k", "99"]
    for more, new in ((["--new-items"], NEW), (["--new-items", str(tmp_path / "today.csv")], [*NEW, "i01"]), ([], [])):
        assert main([*words, *more]) == 0
        shown = {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()}
        assert shown == {*KNOWN, *new} - {"i04"}
    out = str(tmp_path / "lists.csv")
    assert main(["recommend", str(run.folder), "--new-items", "--users", "all", "--k", "99", "--out", out]) == 0
    assert set(NEW) < set(pd.read_csv(out)["item_id"])
    assert main(["export", str(run.folder), str(tmp_path / "b"), "--new-items"]) == 0
    assert set(NEW) < set(Bundle(tmp_path / "b").item_ids.tolist())
    assert main(["recommend", str(tmp_path / "b"), "--items", "i03", "--new-items"]) == 2
    assert "seqcl export RUN FOLDER --new-items adds to them" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_without_an_id_is_no_item_and_blanks_are_no_part_of_an_id(run, tmp_path, kind):
    table = rows_of([*KNOWN, "i01"]).rename_axis("item_id").reset_index()
    table["item_id"] = [None, *table["item_id"][1:-1], "i01 "]
    table.loc[len(table)] = [KNOWN[0], *table.iloc[0, 1:]]
    {"csv": table.to_csv, "parquet": table.to_parquet}[kind](tmp_path / f"today.{kind}", index=False)
    more = run.with_new_items(tmp_path / f"today.{kind}")
    assert set(more.sequences.item_ids.tolist()) == {*KNOWN, *NEW, "i01"}


def test_with_a_table_of_today_users_stay_as_the_run_learned_them(tmp_path):
    log = markov(users=60, items=20, length=8, branching=2, seed=1).interactions
    log = replace(log, item_ids=np.array(KNOWN), item_features=rows_of(KNOWN))
    users = pd.DataFrame({"user_id": range(60), "land": [f"l{user % 3}" for user in range(60)]})
    users.to_csv(tmp_path / "users.csv", index=False)
    features = {"user_table": str(tmp_path / "users.csv")}
    run = seqcl.train(log, model="TwoTower", runs=str(tmp_path / "runs"), progress=False, features=features, **SMALL)
    users.assign(land="l1").to_csv(tmp_path / "users.csv", index=False)  # the run keeps a copy
    rows_of([*KNOWN, "i01"]).rename_axis("item_id").to_csv(tmp_path / "today.csv")
    more = run.with_new_items(tmp_path / "today.csv")
    for user in (0, 1, 2):
        ours = dict(more.recommend(user=user, k=21, exclude_seen=False))
        assert ours.pop("i01")
        assert ours == pytest.approx(dict(run.recommend(user=user, k=20, exclude_seen=False)), rel=1e-4, abs=1e-5)


def test_lists_are_of_the_table_that_they_were_made_with(run, tmp_path, capsys):
    today, out = tmp_path / "today.csv", tmp_path / "lists.parquet"
    words = ["recommend", str(run.folder), "--users", "all", "--new-items", str(today), "--out", str(out)]
    table = rows_of([*KNOWN, "i01"]).rename_axis("item_id").reset_index()
    table.to_csv(today, index=False)
    assert main(words) == 0
    assert main(words) == 0 and "is there already and answers this" in capsys.readouterr().err
    table.loc[table["item_id"] == "i01", "price"] = 7.0
    table.to_csv(today, index=False)
    assert main(words) == 2 and "lists of another question: model" in capsys.readouterr().err


def test_new_items_without_a_known_feature_are_named(run, tmp_path, caplog):
    table = rows_of([*KNOWN, *NEW, "i01", "i05", "i07"]).rename_axis("item_id").reset_index()
    table.loc[table["item_id"].isin(["i05", "i07"]), "price"] = None
    table.loc[table["item_id"] == "i05", "kind"] = "never met"
    table.to_csv(tmp_path / "today.csv", index=False)
    run.with_new_items(tmp_path / "today.csv")
    told = "the model knows no feature of 1 of 6 new items, so it ranks them all alike, such as i05"
    assert [line for line in caplog.messages if "new items" in line] == [f"{tmp_path / 'today.csv'}: {told}"]
    table[table["item_id"] == "i01"].to_csv(tmp_path / "alone.csv", index=False)
    with pytest.raises(UserError, match="it has none of the 20 items that the run knows; give a table of all"):
        run.with_new_items(tmp_path / "alone.csv")


@pytest.mark.parametrize("hardship", [{"cold_items": 0.2}, {"noise": 0.3}, {"train_users": 0.5}])
def test_a_run_that_learned_from_less_takes_new_items_too(tmp_path, hardship):
    log = markov(users=60, items=20, length=8, branching=2, seed=1).interactions
    log = replace(log, item_ids=np.array(KNOWN), item_features=rows_of([*NEW, *KNOWN]))
    own = SMALL | {"data": SMALL["data"] | hardship}
    run = seqcl.train(log, model="TwoTower", runs=str(tmp_path), progress=False, **own)
    more = run.with_new_items()
    ids = more.sequences.item_ids
    places = torch.tensor([ids.tolist().index(item) for item in KNOWN])
    torch.testing.assert_close(more.model.vectors()[places], run.model.vectors())
    for part in ("train", "valid", "test"):
        ours, theirs = (getattr(one.split, part) for one in (more, run))
        assert ids[ours.items - 1].tolist() == run.sequences.item_ids[theirs.items - 1].tolist()
    assert set(NEW) < {item for item, _ in more.recommend(items=["i04"], k=23, exclude_seen=False)}
    assert more.export(tmp_path / "out", index="flat")


def test_what_cannot_be_is_refused(run, tmp_path):
    plain = seqcl.train(
        markov(users=30, items=9, length=6, branching=2, seed=1).interactions,
        model="SASRec",
        runs=str(tmp_path),
        progress=False,
        **SMALL,
    )
    with pytest.raises(UserError, match=r"SASRec knows no features of items.* with --features\.item_table"):
        plain.with_new_items()
    swapped = rows_of([*KNOWN, "i01"])
    swapped.loc["i04", "kind"] = "k0"
    swapped.rename_axis("item_id").reset_index().to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(UserError, match="it says other things than the run learned of 1 of 20 items, such as i04"):
        run.with_new_items(tmp_path / "other.csv")
    odd = rows_of([*KNOWN, "i01"]).astype(object)
    odd.loc["i01", "price"] = "n/a"
    odd.rename_axis("item_id").reset_index().to_csv(tmp_path / "odd.csv", index=False)
    with pytest.raises(UserError, match=r"odd.csv: column 'price' holds numbers, but 'n/a' for the item i01; write a"):
        run.with_new_items(tmp_path / "odd.csv")
    with pytest.raises(UserError, match="no such file"):
        run.with_new_items(tmp_path / "none.csv")
