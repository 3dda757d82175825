"""Logs written out: whole, with their own tables, or not at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seqcl.data import Interactions, load_sequences, write
from seqcl.errors import UserError

LOG = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2]})


def log(**items):
    table = pd.DataFrame(items, index=[1, 2]) if items else None
    return Interactions.from_frame(LOG, time=None, item_features=table)


def test_an_atomic_log_is_not_left_beside_the_tables_of_another_one(tmp_path):
    write(log(kind=["a", "b"]), tmp_path / "shop.inter")
    assert load_sequences(tmp_path / "shop.inter", cache=False).item_features["kind"].tolist() == ["a", "b"]
    write(log(), tmp_path / "shop.inter")
    assert load_sequences(tmp_path / "shop.inter", cache=False).item_features is None


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"kind": ["a\tb", "c"]}, "the item 1 has a tab"),
        ({"item_id": ["a", "b"]}, "the table of items has a column 'item_id', a name that an atomic file cannot hold"),
        (
            {'"my" name': ["a", "b"]},
            "the table of items has a column '\"my\" name', a name that an atomic file cannot hold",
        ),
        ({"a:b": ["a", "b"]}, "the table of items has a column 'a:b'"),
        ({"kind": ["\ud800", "c"]}, "cannot be written as UTF-8"),
    ],
)
def test_what_an_atomic_file_cannot_hold_is_refused_and_leaves_nothing(tmp_path, items, message):
    made = Interactions.from_frame(LOG, time=None, item_features=pd.DataFrame({"ok": ["x", "y"]}, index=[1, 2]))
    table = pd.DataFrame(
        items, index=pd.Index([1, 2], name="key"), dtype=object
    )  # pandas 3 holds no broken text otherwise
    with pytest.raises(UserError, match=message):
        write(made.__class__(**{**vars(made), "item_features": table}), tmp_path / "shop.inter")
    assert not list(tmp_path.iterdir())


def test_lists_are_written_by_what_they_hold(tmp_path):
    vectors = [np.array([0.5, 1.0], np.float32), np.array([2.0, 3.0], np.float32)]
    write(log(image=vectors, none=[[], []], words=[["a"], ["b", "c"]]), tmp_path / "shop.inter")
    head = (tmp_path / "shop.item").read_text().splitlines()[0]
    assert head == "item_id:token\timage:float_seq\tnone:token_seq\twords:token_seq"
