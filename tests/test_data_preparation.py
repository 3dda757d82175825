"""The options from a log to windows: every one of them changes what comes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seqcl.data import Interactions, Preparation, hold_out_items, leave_one_out, pack, temporal
from seqcl.errors import UserError
from tests.reference_data import random_log


def log() -> Interactions:
    table = pd.DataFrame(random_log(3, rows=120), columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(table)


def rows(windows: object) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(windows, field).tolist() for field in ("users", "start", "stop", "first")), strict=True))


def test_options_reach_the_packed_log_and_the_split() -> None:
    assert Preparation().sequences(log()).fingerprint == pack(log()).fingerprint
    chosen = Preparation(k_core=4, min_length=5, duplicates="first", max_len=3, windows="prefix")
    sequences = chosen.sequences(log())
    assert sequences.fingerprint == pack(log(), k_core=4, min_length=5, duplicates="first").fingerprint
    split, expected = chosen.split_windows(sequences), leave_one_out(sequences, max_len=3, windows="prefix")
    assert split.protocol == expected.protocol and rows(split.train) == rows(expected.train)
    options = {"valid": 0.2, "test": 0.3, "targets": "all", "cold": True}
    split = Preparation(split="temporal", max_len=3, windows="prefix", **options).split_windows(sequences)
    expected = temporal(sequences, max_len=3, windows="prefix", **options)
    assert split.protocol == expected.protocol
    for part in ("train", "valid", "test"):
        assert rows(getattr(split, part)) == rows(getattr(expected, part))


def test_cold_items_are_out_of_training() -> None:
    sequences = pack(log())
    split = Preparation(cold_items=0.3, windows="sliding").split_windows(sequences)
    whole = leave_one_out(sequences, windows="sliding")
    expected = hold_out_items(whole, sequences, 0.3)
    assert split.protocol == expected.protocol and split.protocol["cold_items"] == 0.3
    np.testing.assert_array_equal(split.train.items, expected.train.items)
    assert len(split.train.items) < len(whole.train.items)


@pytest.mark.parametrize("name", ["cold_items", "noise"])
@pytest.mark.parametrize("wrong", [-0.1, 1.0, 2.0, float("nan")])
def test_a_wrong_fraction_names_its_option(name: str, wrong: float) -> None:
    with pytest.raises(UserError, match=rf"--data.{name} {wrong}: must be from 0 to below 1"):
        Preparation(**{name: wrong})


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, float("nan")])
def test_a_wrong_fraction_of_users_names_its_option(wrong: float) -> None:
    with pytest.raises(UserError, match=rf"--data.train_users {wrong}: must be above 0 and at most 1"):
        Preparation(train_users=wrong)
