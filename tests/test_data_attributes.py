"""Attributes of items, from each place that can hold them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqcl.data import Interactions, leave_one_out, load_sequences, pack
from seqcl.data.attributes import item_attributes
from seqcl.data.cells import rows_of
from seqcl.errors import UserError

ROWS = "1 10 30 20\n2 20 10 40\n"


def owned(known) -> list[set[str]]:
    """The names of the attributes of PAD, every item and MASK."""
    return [
        {known.names[number] for number in known.ids[begin:end]}
        for begin, end in zip(known.offsets[:-1], known.offsets[1:], strict=True)
    ]


def text_log(folder: Path, attributes: object = None) -> Path:
    (folder / "shop.txt").write_text(ROWS)
    if attributes is not None:
        (folder / "shop_item2attributes.json").write_text(json.dumps(attributes))
    return folder / "shop.txt"


def atomic_log(folder: Path, items: str) -> Path:
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\n1\ta\n1\tb\n1\tc\n2\tb\n2\tc\n2\ta\n")
    (folder / "shop.item").write_text(items)
    return folder / "shop.inter"


def test_the_file_beside_a_text_log_says_what_its_items_are_also_from_the_cache(tmp_path: Path) -> None:
    path = text_log(tmp_path, {"10": [7, 7, 8], "20": [8], "99": [1]})
    for _ in range(2):
        sequences = load_sequences(path, cache=tmp_path / "cache")
        known = item_attributes(leave_one_out(sequences).train.tables)
        assert owned(known) == [set(), {"attributes=7", "attributes=8"}, {"attributes=8"}, set(), set(), set()]


def test_a_file_may_be_named_and_its_ids_may_be_text(tmp_path: Path) -> None:
    log = pd.DataFrame({"user_id": ["u", "u", "u", "v"], "item_id": ["x", "y 1", "x", "y 1"]})
    sequences = pack(Interactions.from_frame(log, time=None))
    (tmp_path / "of.json").write_text(json.dumps({"x": ["red wine"], "y 1": ["red wine", 3]}))
    known = item_attributes(sequences.tables, str(tmp_path / "of.json"))
    assert owned(known) == [set(), {"attributes=red wine"}, {"attributes=3", "attributes=red wine"}, set()]


def test_columns_of_an_item_table_are_split_at_blanks_and_named_by_their_column(tmp_path: Path) -> None:
    head = "item_id:token\ttitle:token_seq\tkind:token_seq\tyear:token\tprice:float\n"
    items = head + "a\tone two three\tdrama war\t1999\t1\nb\tfour five six\twar\t1999\t2\nc\tseven\tdrama\t\t3\n"
    sequences = load_sequences(atomic_log(tmp_path, items), cache=False)
    assert owned(item_attributes(sequences.tables, "kind, year"))[1:4] == [
        {"kind=drama", "kind=war", "year=1999"},
        {"kind=war", "year=1999"},
        {"kind=drama"},
    ]
    # Of itself it takes no column of numbers, and none that tells the items apart as well as their ids do.
    assert owned(item_attributes(sequences.tables)) == owned(item_attributes(sequences.tables, "kind,year"))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("knid", r"unknown column in the item table of shop 'knid': did you mean kind"),
        ("price", r"column 'price' holds fractions, but an attribute must be a word"),
        (
            "empty",
            r"no item of shop has an attribute in empty; items are such as a, b, c in the log, and a, b, c in the table",
        ),
        ("missing.json", r"missing.json: No such file"),
    ],
)
def test_a_wrong_choice_is_named(tmp_path: Path, chosen: str, message: str) -> None:
    head = "item_id:token\tkind:token_seq\tprice:float\tempty:token\n"
    sequences = load_sequences(atomic_log(tmp_path, head + "a\tx\t1.5\t\nb\tx\t2\t\nc\ty\t2\t\n"), cache=False)
    with pytest.raises(UserError, match=message):
        item_attributes(sequences.tables, chosen)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"10": [1],\n "20" [2]}', r"_item2attributes.json:2: column 7: Expecting ':'"),
        ("[1, 2]", r"must hold an object of item -> \[attributes\], not \[1, 2\]"),
        ('{"10": 3}', r"item '10' must have a list of words or numbers, not 3"),
        ('{"10": [null]}', r"item '10' must have a list of words or numbers, not \[null\]"),
        ("{}", r"must hold an object of item -> \[attributes\], not {}"),
        ('{"10": [[3]]}', r"item '10' must have a list of words or numbers"),
        ('{"a": ["\xe9"]}', r"not UTF-8 text"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_does_not_stop_who_does_without(
    tmp_path: Path, content: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = text_log(tmp_path)
    near = tmp_path / "shop_item2attributes.json"
    near.write_bytes(content.encode("latin-1"))
    sequences = load_sequences(path, cache=False)
    assert sequences.num_items == 4 and re.search(message, caplog.text)
    with pytest.raises(UserError, match=message):
        item_attributes(sequences.tables, str(near))


def test_a_log_without_any_says_what_to_do_and_one_of_other_items_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shop has no table of items.*NAME_item2attributes.json"):
        item_attributes(load_sequences(text_log(tmp_path), cache=False).tables)
    with pytest.raises(
        UserError,
        match="no item of shop has an attribute in attributes; items are such as 10, 20, 30 in the log, and 11 in the table",
    ):
        item_attributes(load_sequences(text_log(tmp_path, {"11": [1]}), cache=False).tables)


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns, index=["10", "20", "30"])


def test_ids_are_the_same_as_number_or_text_and_an_item_without_a_row_changes_no_other(tmp_path: Path) -> None:
    log = pd.DataFrame({"user_id": [1, 1, 1, 2, 2], "item_id": [10, 20, 40, 10, 30]})
    table = frame(
        kind=[2**53, 2**53 + 1, 7],
        grade=pd.array([1, None, 2], "Int64"),
        tag=[["a b"], None, {"c"}],
        odd=[True, None, False],
    )
    sequences = pack(Interactions.from_frame(log, time=None, item_features=table))
    found = owned(item_attributes(sequences.tables, "kind,grade,tag,odd"))[1:-1]
    assert found == [
        {"kind=9007199254740992", "grade=1", "tag=a b", "odd=True"},
        {"kind=9007199254740993"},
        {"kind=7", "grade=2", "tag=c", "odd=False"},
        set(),
    ]
    # Columns of numbers are not taken unasked; one that tells items apart as ids do is, where it is the only one.
    assert {name.split("=")[0] for name in item_attributes(sequences.tables).names} == {"tag", "odd"}
    (tmp_path / "of.JSON").write_text("\ufeff" + json.dumps({"10": [1, 2, 3, 4], "total": [5]}))
    assert owned(item_attributes(sequences.tables, str(tmp_path / "of.JSON")))[1] == {
        f"attributes={n}" for n in (1, 2, 3, 4)
    }


def test_a_table_that_is_not_indexed_by_item_or_repeats_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    log = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [0, 1, 1, 0]})
    with pytest.raises(UserError, match=r"indexed by 'item_id': give table.set_index\('item_id'\)"):
        Interactions.from_frame(log, time=None, item_features=pd.DataFrame({"item_id": [1, 0], "kind": ["a", "b"]}))
    twice = pd.DataFrame({"kind": ["a", "b", "c"]}, index=[0, 1, 1])
    found = owned(item_attributes(pack(Interactions.from_frame(log, time=None, item_features=twice)).tables, "kind"))
    assert found[1:3] == [{"kind=a"}, {"kind=b"}] and "1 rows repeat an id" in caplog.text
    doubled = pd.DataFrame([["a", "b"]], columns=["kind", "kind"], index=[0])
    with pytest.raises(UserError, match="one row for each id, indexed by id, and columns with different names"):
        item_attributes(pack(Interactions.from_frame(log, time=None, item_features=doubled)).tables)


def test_a_folder_and_a_log_of_unusual_suffix_find_what_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "pq").mkdir()
    pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 20, 10]}).to_parquet(tmp_path / "pq" / "part-0.parquet")
    (tmp_path / "pq_item2attributes.json").write_text('{"10": ["x"]}')
    (tmp_path / "shop.txt").write_text("user_id:token\titem_id:token\n1\t10\n1\t20\n2\t10\n")
    (tmp_path / "shop_item2attributes.json").write_text('{"10": ["x"]}')
    for place in ("pq", "shop.txt"):
        sequences = load_sequences(tmp_path / place, cache=tmp_path / "cache")
        assert owned(item_attributes(sequences.tables)) == [set(), {"attributes=x"}, set(), set()]


def test_whole_numbers_find_the_rows_that_the_same_ids_as_text_do(caplog):
    keys = pd.Index([7, 3, -2, 7, 40, 3])
    raw = np.array([-5, -2, 3, 7, 8, 41])
    rows = rows_of(keys, raw, "table")
    said = caplog.text
    caplog.clear()
    assert rows.tolist() == rows_of([str(key) for key in keys], raw, "table").tolist() == [-1, 2, 1, 0, -1, -1]
    assert said == caplog.text and "2 rows repeat an id" in said
    caplog.clear()
    assert rows_of(pd.Index([9, 9, 5]), raw, "table").tolist() == [-1] * 6
    assert "no row for 6 of 6 ids; ids are such as -5, -2, 3 in the log, and 9, 5 in the table" in caplog.text
    assert rows_of(pd.Index([], dtype="int64"), raw, "table").tolist() == [-1] * 6
