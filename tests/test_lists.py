"""Lists for many users: the same as one by one, in a table that a killed job goes on with."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow import parquet

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov, pack, raw_ids
from seqcl.errors import Diverged, UserError
from seqcl.experiment import Run, answers, histories, lists
from seqcl.experiment.lists import write_lists
from seqcl.retrieval.bundle import Bundle

USERS, ITEMS, K = 60, 30, 7


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Parts of 13 users, that a small log has several of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "USERS_A_PART", 13)
        patch.setattr("seqcl.retrieval.asked.GATHERED", 9)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Trains a model once on one log, whose items are words."""
    runs: dict[str, Run] = {}

    def of(model: str) -> Run:
        if model not in runs:
            log = markov(users=USERS, items=ITEMS, length=8, branching=2, seed=1).interactions
            words = np.array([f"i{item:02}" for item in range(len(log.item_ids))])
            users = pd.DataFrame({"taste": [f"t{user % 3}" for user in range(USERS)]})
            items = pd.DataFrame({"kind": [f"k{item % 5}" for item in range(len(words))]}, index=words)
            values: dict = {"data": {"max_len": 5}, "eval": {"batch_size": 4}}
            if model in ("SASRec", "TwoTower"):
                values |= {"encoder": {"dim": 8}, "train": {"epochs": 1, "batch_size": 32}}
            runs[model] = seqcl.train(
                replace(log, item_ids=words, user_features=users, item_features=items),
                model=model,
                runs=str(tmp_path_factory.mktemp(model)),
                progress=False,
                **values,
            )
        return runs[model]

    return of


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory):
    return made("SASRec").export(tmp_path_factory.mktemp("bundle") / "b", index="hnsw")


def write(asked, whose, out, **options):
    return write_lists(asked, whose, out, k=K, progress=False, **options)


def by_user(out: Path) -> dict:
    """The lists of a file, and that their ranks count on from 1."""
    frame = parquet.read_table(out).to_pandas()
    assert list(frame.columns) == ["user_id", "rank", "item_id", "score"]
    found = {user: own for user, own in frame.groupby("user_id", sort=False)}
    for own in found.values():
        assert own["rank"].tolist() == list(range(1, len(own) + 1))
    return {user: list(zip(own["item_id"], own["score"], strict=True)) for user, own in found.items()}


def assert_same(mine, alone, everything) -> None:
    """The same scores in the same order, each the item's own; items of one score may stand in any order."""
    assert [score for _, score in mine] == pytest.approx([score for _, score in alone], rel=1e-4, abs=1e-6)
    own = dict(everything)
    assert len({item for item, _ in mine}) == len(mine)
    assert [score for _, score in mine] == pytest.approx([own[item] for item, _ in mine], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("model", ["SASRec", "TwoTower", "ItemKNN", "Popularity"])
def test_all_users_get_what_each_gets_alone(made, tmp_path, model, seen):
    run = made(model)
    out = write(answers.of_run(run), histories.of_log(run.sequences), tmp_path / "a.parquet", exclude_seen=seen)
    found = by_user(out)
    assert list(found) == run.sequences.user_ids.tolist()
    for user, mine in found.items():
        alone = run.recommend(user=user, k=K, exclude_seen=seen)
        assert_same(mine, alone, run.recommend(user=user, k=ITEMS, exclude_seen=seen))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet"]


def write_histories(folder: Path) -> tuple[dict, dict[str, Path]]:
    """Histories of strangers, one with an unknown item and one with no other, in every kind of file."""
    whose = {"x": ["i03"], "y": ["i05", "new", "i09", "i03"], "lost": ["new", "newer"], "z": [f"i{n:02}" for n in range(9)]}  # fmt: skip
    rows = [(user, item, place) for user, own in whose.items() for place, item in enumerate(own)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).sample(frac=1.0, random_state=0)
    listed = pd.DataFrame({"user_id": list(whose), "item_id": list(whose.values())})
    files = {name: folder / f"h.{name}" for name in ("csv", "parquet", "jsonl")} | {"lists": folder / "lists.parquet"}
    frame.to_csv(files["csv"], index=False)
    frame.to_parquet(files["parquet"], index=False)
    listed.to_parquet(files["lists"], index=False)
    listed.to_json(files["jsonl"], orient="records", lines=True)
    files["packed"] = folder / "packed"
    pack(seqcl.data.read(files["csv"])).save(files["packed"])
    return whose, files


def test_histories_of_any_file_get_the_same_lists_from_the_run_and_its_bundle(made, bundle, tmp_path, caplog):
    run, exported = made("SASRec"), Bundle(bundle)
    whose, files = write_histories(tmp_path)
    known = {user: [item for item in own if "new" not in item] for user, own in whose.items()}
    for name, file in files.items():
        for asked in (answers.of_run(run), answers.of_bundle(exported), answers.of_bundle(exported, search="index")):
            caplog.clear()
            out = tmp_path / f"{name}-{asked.about['search']}-{asked.about['model'][:6]}.parquet"
            found = by_user(write(asked, histories.of_file(file, asked.item_ids), out))
            said = " ".join(record.getMessage() for record in caplog.records)
            assert "2 of 12 items are not known" in said and "3 of 16 interactions, such as new, newer" in said
            assert "1 of 4 users have no item that is known, and get no list, such as lost" in said
            assert list(found) == ["x", "y", "z"]
            for user, mine in found.items():
                assert_same(mine, run.recommend(items=known[user], k=K), run.recommend(items=known[user], k=ITEMS))
                alone = exported.recommend(known[user], k=K)
                assert [item for item, _ in mine] == [item for item, _ in alone]


def test_one_user_with_one_item_is_no_mistake(bundle, tmp_path):
    (tmp_path / "h.csv").write_text("user_id,item_id\n7,i03\n")
    asked = answers.of_bundle(Bundle(bundle))
    found = by_user(write(asked, histories.of_file(tmp_path / "h.csv", asked.item_ids), tmp_path / "a.parquet"))
    assert list(found) == [7] and len(found[7]) == K


def test_ids_are_found_whether_they_are_numbers_or_text():
    numbers, words = np.array([3, 12, 700]), np.array(["12", "3", "x"])
    assert raw_ids.same_ids(np.array([12, 4, 700]), numbers).tolist() == [1, -1, 2]
    assert raw_ids.same_ids(np.array(["12", "x", "9" * 30, "0"]), numbers).tolist() == [1, -1, -1, -1]
    assert raw_ids.same_ids(np.array([12, 4]), words).tolist() == [0, -1]
    assert raw_ids.same_ids(np.array(["x", "longer than any"]), words).tolist() == [2, -1]


KILLED = """
import os, signal, sys
from seqcl.cli.main import main
from seqcl.experiment import lists
from seqcl.retrieval import asked

asked.GATHERED, lists.USERS_A_PART = 9, 13
whole, done = lists.write_part, []

def write_part(path, rows):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(whole(path, rows))

lists.write_part = write_part
main(sys.argv[1:])
"""


def test_a_killed_job_goes_on_and_gives_the_same_bytes(made, tmp_path, monkeypatch, capsys):
    run = made("SASRec")
    words = ["recommend", str(run.folder), "--users", "all", "--k", str(K), "--out"]
    assert main([*words, str(tmp_path / "whole.parquet")]) == 0
    out = tmp_path / "killed.parquet"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words, str(out)], capture_output=True, text=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    parts = tmp_path / "killed.parquet.parts"
    assert sorted(path.name for path in parts.glob("*.parquet")) == ["000000.parquet", "000001.parquet"]
    # Another question does not go on with these parts.
    assert main([*words, str(out), "--filter", "none"]) == 2
    assert "holds parts of another question: filter is seen there, none now; remove it" in capsys.readouterr().err
    written = []
    whole = lists.write_part
    monkeypatch.setattr(lists, "write_part", lambda path, rows: written.append(path.name) or whole(path, rows))
    assert main([*words, str(out)]) == 0
    assert written == ["000002.parquet", "000003.parquet", "000004.parquet"] and not parts.exists()
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert "60 of 60 users (100%), 26 of them done before" in capsys.readouterr().err


def test_a_full_disk_keeps_what_is_done(made, tmp_path, monkeypatch, capsys):
    run = made("SASRec")
    words = ["recommend", str(run.folder), "--users", "all", "--k", str(K), "--out", str(tmp_path / "a.parquet")]
    whole, room = lists.write_part, [3]

    def write_part(path, rows):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        whole(path, rows)

    monkeypatch.setattr(lists, "write_part", write_part)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "No space left on device; what is done is kept in" in error and "the same command goes on" in error
    room[0] = 2
    assert main(words) == 0
    assert len(by_user(tmp_path / "a.parquet")) == USERS


def test_a_file_that_is_there_is_kept_and_one_that_answers_is_not_made_again(made, tmp_path, monkeypatch, capsys):
    run = made("SASRec")
    out = tmp_path / "a.parquet"
    words = ["recommend", str(run.folder), "--users", "all", "--out", str(out)]
    out.write_bytes(b"mine")
    assert main(words) == 2
    assert "is there already, and nothing in it says that it answers this" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    out.unlink()
    assert main(words) == 0
    before = out.stat().st_mtime_ns
    monkeypatch.setattr(lists, "write_part", None)  # nothing is asked
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n" and "answers this; it is left as it is" in said.err
    assert main([*words, "--k", "5"]) == 2
    assert "holds lists of another question: k is 10 there, 5 now" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before


def test_parts_that_another_process_fills_or_that_are_damaged_are_refused(made, tmp_path, capsys):
    run = made("SASRec")
    words = ["recommend", str(run.folder), "--users", "all", "--out", str(tmp_path / "a.parquet")]
    parts = tmp_path / "a.parquet.parts"
    parts.mkdir()
    with seqcl.disk.locked(parts):
        assert main(words) == 2
    assert "another process fills it" in capsys.readouterr().err
    (parts / "photo.jpg").touch()
    assert main(words) == 2
    assert "no parts of lists are in it" in capsys.readouterr().err and (parts / "photo.jpg").exists()
    (parts / "photo.jpg").unlink()
    question = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "join", lambda files, file, delimiter, asked: question.update(asked) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(words)
    assert json.loads((parts / "about.json").read_text()) == question
    (parts / "000001.parquet").write_bytes(b"PAR1 no more")
    assert main(words) == 2
    assert "000001.parquet: it is not the part that was written" in capsys.readouterr().err
    assert not (tmp_path / "a.parquet").exists()


def test_text_holds_the_same_rows(made, tmp_path):
    run = made("ItemKNN")
    asked, whose = answers.of_run(run), histories.of_log(run.sequences)
    wanted = parquet.read_table(write(asked, whose, tmp_path / "a.parquet")).to_pandas()
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        found = pd.read_csv(write(asked, whose, tmp_path / f"a{suffix}"), sep=mark)
        pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=1e-5)
    with pytest.raises(UserError, match=r"unknown suffix of --out '.xlsx'.*\.csv, \.parquet, \.tsv"):
        write(asked, whose, tmp_path / "a.xlsx")


def test_a_file_of_users_is_answered_in_its_order(made, tmp_path, capsys):
    run = made("SASRec")
    (tmp_path / "users.txt").write_text("\ufeff7\n\n 3 \nnobody\n7\n11\n", encoding="utf-8")
    words = ["recommend", str(run.folder), "--users", str(tmp_path / "users.txt"), "--out", str(tmp_path / "a.parquet")]
    assert main(words) == 0
    assert "no user for 1 of 4 ids, which get no list, such as nobody" in capsys.readouterr().err
    found = by_user(tmp_path / "a.parquet")
    assert list(found) == [7, 3, 11]
    assert [item for item, _ in found[3]] == [item for item, _ in run.recommend(user=3)]
    (tmp_path / "users.txt").write_text("nobody\n")
    assert main(words) == 2 and "has none of its 1 users, such as nobody" in capsys.readouterr().err


def test_options_that_do_not_go_together_are_named(made, bundle, tmp_path, capsys):
    run = str(made("SASRec").folder)
    (tmp_path / "h.csv").write_text("who,what,x\n1,i03,5\n1,nothing,6\n2,i04,7\n")
    history = ["--histories", str(tmp_path / "h.csv")]
    out = ["--out", str(tmp_path / "a.csv")]
    for words, said in (
        ([run, "--users", "all"], "--users needs a file for its lists: add --out"),
        ([run, "--user", "3", "--users", "all", *out], "--user and --users ask for different histories"),
        ([run, "--user", "3", *out], "say whose lists go there: --users all"),
        ([run, "--users", "all", "--data.item", "what", *out], "--data.item says how --histories FILE is read"),
        ([run, "--users", "all", "--search", "index", *out], "is a run and has no index; seqcl export makes one"),
        ([str(bundle), "--users", "all", *out], "was exported and knows no users: give --histories"),
        ([run, "--users", str(tmp_path / "gone.txt"), *out], "gone.txt: no such file"),
        (["nowhere", "--users", "all", "--out", "a.xlsx"], "unknown suffix of --out '.xlsx'"),
        ([run, "--users", "all", "--k", "0", *out], "k must be 1 or more, not 0"),
    ):
        assert main(["recommend", *words]) == 2
        assert said in capsys.readouterr().err
    assert (
        main(["recommend", str(bundle), *history, "--data.user", "who", "--data.item", "what", *out, "--k", "2"]) == 0
    )
    said = capsys.readouterr().err
    assert "separated by commas, with a header; user who, item what" in said and "such as nothing" in said
    assert pd.read_csv(tmp_path / "a.csv")["user_id"].tolist() == [1, 1, 2, 2]


def test_vectors_that_were_changed_are_not_searched(made, tmp_path):
    folder = made("SASRec").export(tmp_path / "b", index="flat")
    vectors = np.load(folder / "items.npy")
    np.save(folder / "items.npy", -vectors)
    with pytest.raises(UserError, match=r"items\.npy is not the file that was exported"):
        answers.of_bundle(Bundle(folder))


def test_scores_that_are_no_numbers_end_the_job(made, tmp_path):
    run = made("Popularity")
    asked = replace(answers.of_run(run), rows=lambda batch: torch.full((len(batch.items), ITEMS), float("nan")))
    with pytest.raises(Diverged, match="scores that are no numbers"):
        write(asked, histories.of_log(run.sequences), tmp_path / "a.parquet")


def test_a_question_leaves_the_counts_of_popularity_as_they_are(made):
    run = made("Popularity")
    first = run.recommend(items=["i03"], k=ITEMS)
    run.recommend(items=[item for item, _ in first[:9]], k=3)
    assert run.recommend(items=["i03"], k=ITEMS) == first
