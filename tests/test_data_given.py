"""Splits that were made elsewhere: from a column, from files, from RecBole's lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqcl.data import Interactions, Preparation, Sequences, load_sequences, pack, read
from seqcl.data.given import given
from seqcl.errors import UserError

ROWS = [  # user, item, time, part
    (1, 10, 1, "train"), (1, 11, 2, "train"), (1, 12, 3, "train"), (1, 13, 4, "valid"), (1, 14, 5, "test"), (1, 10, 6, "test"),
    (2, 11, 1, "train"), (2, 12, 2, "train"), (2, 10, 3, "test"),
    (3, 14, 1, "train"), (3, 11, 5, "train"), (3, 13, 9, "valid"),
    (4, 12, 2, "test"),
]  # fmt: skip
TARGETS = {  # part: {(history, target)}, by hand
    "valid": {((10, 11, 12), 13), ((14, 11), 13)},
    "test": {((10, 11, 12, 13), 14), ((10, 11, 12, 13, 14), 10), ((11, 12), 10)},
}


def table() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp", "split"])


def questions(windows, sequences: Sequences) -> set[tuple]:
    raw = sequences.item_ids[np.asarray(sequences.items) - 1].tolist()
    return {(tuple(raw[a:b]), raw[b]) for a, b in zip(windows.start, windows.stop, strict=True)}


def check(sequences: Sequences, parts: tuple[str, ...] = ("valid", "test")) -> None:
    split = given(sequences)
    for part in parts:
        assert questions(getattr(split, part), sequences) == TARGETS[part]
    known = {sequences.item_ids[item - 1] for item in split.train.known()[1]}
    assert known == {10, 11, 12, 14}  # what training knows has no row of another part


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "numbers"])
def test_a_column_says_the_part_of_each_row(kind: str, tmp_path: Path) -> None:
    rows = table().sample(frac=1, random_state=0)
    if kind == "numbers":
        rows["fold"] = rows.pop("split").map({"train": 0, "valid": 1, "test": 2})
    if kind == "frame":
        sequences = pack(Preparation(split="given").from_frame(rows))
    else:
        path = tmp_path / ("log.parquet" if kind == "parquet" else "log.csv")
        rows.to_parquet(path) if kind == "parquet" else rows.to_csv(path, index=False)
        sequences = Preparation(split="given").sequences(path)
        assert sequences.reading["columns"]["part"] == ("fold" if kind == "numbers" else "split")
    check(sequences)


@pytest.mark.parametrize("layout", ["csv", "inter", "text", "colon"])
def test_files_are_the_parts(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQCL_DATA", str(tmp_path / "data"))
    place = tmp_path / "cut"
    place.mkdir()
    for part, rows in table().groupby("split"):
        if layout == "csv":
            rows.drop(columns="split").to_csv(place / f"{part}.csv", index=False)
        elif layout == "inter":
            head = ["user_id:token", "item_id:token", "timestamp:float"]
            rows.drop(columns="split").to_csv(place / f"cut.{part}.inter", index=False, sep="\t", header=head)
        else:
            mark = ":" if layout == "colon" else " "
            lines = [f"{user}{mark}" + " ".join(map(str, own.item_id)) for user, own in rows.groupby("user_id")]
            (place / f"{part}.txt").write_text("\n".join(lines) + "\n")
    preparation = Preparation(split="given")
    for _ in range(2):  # read, and from the cache
        sequences = preparation.sequences(place)
        check(sequences)
    assert "a file a part of the split" in sequences.told
    split = preparation.split_windows(sequences)
    assert split.protocol["split"] == "given" and questions(split.test, sequences) == TARGETS["test"]


def test_without_validation_the_last_training_item_validates(caplog: pytest.LogCaptureFixture) -> None:
    rows = table()[table().split != "valid"]
    sequences = pack(Interactions.from_frame(rows, given=True))
    split = given(sequences)
    assert questions(split.valid, sequences) == {((10, 11), 12)}
    assert questions(split.test, sequences) == {((10, 11, 12), 14), ((10, 11, 12, 14), 10), ((11, 12), 10)}
    assert split.protocol["validation"] == "last training item"
    assert "the split has no validation" in caplog.text


def test_rows_with_lists_become_the_rows_they_were_cut_from(tmp_path: Path) -> None:
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    (tmp_path / "shop.train.inter").write_text(head + "1\t10 11\t12\n1\t10\t11\n2\t11\t12\n3\t14\t11\n")
    (tmp_path / "shop.valid.inter").write_text(head + "1\t10 11 12\t13\n3\t14 11\t13\n")
    (tmp_path / "shop.test.inter").write_text(
        head + "1\t11 12 13\t14\n1\t12 13 14\t10\n2\t11 12\t10\n"
    )  # cut to three items
    check(load_sequences(tmp_path, given=True, cache=False))
    (tmp_path / "shop.test.inter").write_text(head + "1\t11 12 13\t14\n2\t12 11\t10\n")
    with pytest.raises(UserError, match=r"shop.test.inter:3: item_id_list does not go on where the rows of user 2"):
        read(tmp_path, given=True)


def test_a_split_that_leaks_or_lacks_a_part_is_refused(tmp_path: Path) -> None:
    rows = table().astype({"timestamp": float})
    rows.loc[0, "timestamp"] = 4.5  # training after validation
    with pytest.raises(
        UserError,
        match=r"the given split leaks: training of user 1 \(second 4\) comes after validation, and so for 1 of 4 users",
    ):
        given(pack(Interactions.from_frame(rows, given=True)))
    for lost, word in (("test", "test"), ("train", "training")):
        with pytest.raises(UserError, match=f"the given split has no {word} that can be used"):
            given(pack(Interactions.from_frame(table()[table().split != lost], given=True)))
    with pytest.raises(UserError, match=r"--data.split given needs the part of each row"):
        given(pack(Interactions.from_frame(table())))
    with pytest.raises(UserError, match=r"unknown split column 'split'.*name it with --data.split_column"):
        Interactions.from_frame(table().drop(columns="split"), given=True)
    with pytest.raises(UserError, match=r"row 3 .*'split': 'hold' is no part of a split; write train, valid or test"):
        Interactions.from_frame(table().replace("valid", "hold"), given=True)
    scores = table().assign(split=table().split.map({"train": 0.0, "valid": 0.5, "test": 2.0}))
    with pytest.raises(UserError, match=r"'split': '0.5' is no part of a split"):
        Interactions.from_frame(scores, given=True)
    (tmp_path / "log.txt").write_text("1 2 3\n2 3 4 5\n")
    with pytest.raises(UserError, match="has no column of parts"):
        read(tmp_path / "log.txt", given=True)
    with pytest.raises(UserError, match=r"--data.split_column fold has no use without --data.split given"):
        Preparation(split_column="fold").sequences(tmp_path / "log.txt")


def test_the_fingerprint_tells_splits_apart_and_logs_without_one_keep_theirs(tmp_path: Path) -> None:
    whole, cut = pack(Interactions.from_frame(table())), pack(Interactions.from_frame(table(), given=True))
    moved = pack(Interactions.from_frame(table().replace("valid", "train"), given=True))
    assert len({whole.fingerprint, cut.fingerprint, moved.fingerprint}) == 3
    cut.save(tmp_path / "packed")
    again = Sequences.load(tmp_path / "packed")
    assert again.parts.tolist() == cut.parts.tolist()
