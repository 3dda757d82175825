from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqcl.data import Interactions, Sequences, pack
from seqcl.data.packing import stable_order
from seqcl.errors import UserError
from tests.reference_data import Row, k_core, random_log, rows_by_user


def interactions(log: list[Row], *, times: bool = True) -> Interactions:
    table = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(table, order="time" if times else "file")


def as_lists(packed: Sequences) -> dict[object, list[tuple]]:
    """Each raw user's (raw item, time)."""
    return {
        raw: list(
            zip(
                packed.item_ids[packed.row(user) - 1].tolist(),
                packed.times[packed.offsets[user] : packed.offsets[user + 1]].tolist(),
                strict=True,
            )
        )
        for user, raw in enumerate(packed.user_ids.tolist())
    }


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_in_time_order_and_ties_keep_file_order(seed: int) -> None:
    log = random_log(seed)
    assert as_lists(pack(interactions(log))) == rows_by_user(log)


def test_without_times_the_file_order_counts() -> None:
    log = [(2, 9, 5.0), (1, 7, 4.0), (2, 8, 3.0), (1, 9, 2.0), (2, 7, 1.0)]
    packed = pack(interactions(log, times=False))
    assert packed.item_ids[packed.history(2) - 1].tolist() == [9, 8, 7]
    assert packed.item_ids[packed.history(1) - 1].tolist() == [7, 9]


def test_ids_are_one_to_n_in_the_order_of_the_raw_ids_and_free_of_gaps() -> None:
    packed = pack(interactions(random_log(3), times=True), k_core=6)
    assert packed.items.dtype == np.int32
    assert packed.offsets.dtype == np.int64
    assert sorted(set(packed.items.tolist())) == list(range(1, packed.num_items + 1))
    assert packed.item_ids.tolist() == sorted(packed.item_ids.tolist())
    assert packed.user_ids.tolist() == sorted(packed.user_ids.tolist())
    assert packed.offsets[0] == 0
    assert packed.offsets[-1] == packed.num_interactions == len(packed.times)
    assert (np.diff(packed.offsets) >= 6).all()


@given(st.integers(0, 10_000), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_the_k_core_is_the_slow_fixed_point(seed: int, k: int) -> None:
    log = random_log(seed, users=10, items=10, rows=40)
    expected = k_core(log, k)
    if len({user for user, _, _ in expected}) < 2:
        with pytest.raises(UserError, match=rf"left of 40 interactions after k_core={k}"):
            pack(interactions(log), k_core=k)
        return
    assert as_lists(pack(interactions(log), k_core=k)) == rows_by_user(expected)


def test_a_core_that_takes_many_rounds_is_taken_to_its_end() -> None:
    # A chain: user n has items n and n + 1, so dropping its thin end makes the next one thin; a block of four stays.
    chain = [(n, item, 0.0) for n in range(50) for item in (n, n + 1)]
    block = [(user, item, 0.0) for user in (100, 101) for item in (200, 201)]
    packed = pack(interactions(chain + block), k_core=2)
    assert packed.user_ids.tolist() == [100, 101]
    assert packed.item_ids.tolist() == [200, 201]


def test_minimum_length_drops_users_alone() -> None:
    log = [(1, 1, 0.0), (1, 2, 0.0), (2, 1, 0.0), (2, 2, 0.0), (3, 3, 0.0)]
    packed = pack(interactions(log), min_length=2)
    assert packed.user_ids.tolist() == [1, 2]
    assert packed.item_ids.tolist() == [1, 2]


@pytest.mark.parametrize("policy", ["keep", "first", "last"])
@pytest.mark.parametrize("seed", range(4))
def test_repeats_are_kept_or_only_their_first_or_last_stays(policy: str, seed: int) -> None:
    log = random_log(seed, items=6)
    expected = {}
    for user, rows in rows_by_user(log).items():
        items = [item for item, _ in rows]
        others = {
            "keep": lambda n: [],
            "first": lambda n, items=items: items[:n],
            "last": lambda n, items=items: items[n + 1 :],
        }
        expected[user] = [row for n, row in enumerate(rows) if row[0] not in others[policy](n)]
    assert as_lists(pack(interactions(log), duplicates=policy)) == expected


def test_the_order_of_rows_and_the_format_do_not_change_the_fingerprint_but_content_and_options_do() -> None:
    log = random_log(1, ties=False, rows=60)
    log = list({row[2]: row for row in log}.values())
    base = pack(interactions(log)).fingerprint
    assert pack(interactions(sorted(log))).fingerprint == base
    changed = {
        "an item": [(log[0][0], (log[0][1] + 1) % 9, log[0][2]), *log[1:]],
        "a user": [((log[0][0] + 1) % 12, *log[0][1:]), *log[1:]],
        "a time": [(*log[0][:2], log[0][2] + 0.5), *log[1:]],
        "a row more": [*log, (0, 0, 1e6)],
        "a raw id": [(user, 100 if item == 0 else item, time) for user, item, time in log],
    }
    prints = {what: pack(interactions(rows)).fingerprint for what, rows in changed.items()}
    prints["k_core"] = pack(interactions(log), k_core=1).fingerprint
    prints["duplicates"] = pack(interactions(log), duplicates="first").fingerprint
    prints["min_length"] = pack(interactions(log), min_length=2).fingerprint
    prints["no times"] = pack(interactions(sorted(log, key=lambda row: row[2]), times=False)).fingerprint
    assert len({base, *prints.values()}) == len(prints) + 1


def test_raw_ids_are_found_as_numbers_and_as_text_and_unknown_ones_are_named() -> None:
    packed = pack(interactions(random_log(2)))
    assert packed.find_user("3") == packed.find_user(3) == packed.user_ids.tolist().index(3)
    assert packed.encode(["0", 5]).tolist() == [
        packed.item_ids.tolist().index(0) + 1,
        packed.item_ids.tolist().index(5) + 1,
    ]
    assert packed.history(3).tolist() == packed.row(packed.find_user(3)).tolist()
    for unknown in (99, "99", "x", 2**70, "", None, "1.0"):
        with pytest.raises(UserError, match="frame has no item"):
            packed.find_item(unknown)
    with pytest.raises(UserError, match="no items are given"):
        packed.encode([])
    named = pack(interactions([(f"u{u}", f"i{i}", t) for u, i, t in random_log(2)]))
    assert named.item_ids[named.find_item("i5") - 1] == "i5"
    with pytest.raises(UserError, match="frame has no user 'u99'; ids are such as u0, u1"):
        named.find_user("u99")


def test_statistics_are_those_of_the_log() -> None:
    log = [(1, 1, 5.0), (1, 2, 6.0), (1, 1, 7.0), (2, 1, 4.0)]
    stats = pack(interactions(log)).stats()
    assert (stats["users"], stats["items"], stats["interactions"]) == (2, 2, 4)
    assert (stats["length_mean"], stats["length_median"], stats["length_min"], stats["length_max"]) == (2.0, 2.0, 1, 3)
    assert stats["sparsity"] == 0.25
    assert stats["repeats"] == 0.25
    assert (stats["first_time"], stats["last_time"]) == (4.0, 7.0)
    assert "2 users, 2 items, 4 interactions" in str(pack(interactions(log)))


def test_wrong_options_name_the_valid_ones() -> None:
    log = interactions(random_log(0))
    with pytest.raises(UserError, match="unknown duplicates policy 'frist': did you mean first"):
        pack(log, duplicates="frist")
    with pytest.raises(UserError, match="k_core must be 0 or more"):
        pack(log, k_core=-1)
    with pytest.raises(UserError, match="nothing is left of 90 interactions after k_core=1000"):
        pack(log, k_core=1000)


def test_the_quick_sort_of_codes_is_the_stable_one() -> None:
    random = np.random.default_rng(0)
    for top in (1, 5, 0xFFFF, 0x10000, 2**31 - 1):
        codes = random.integers(0, top, 5000, dtype=np.int32)
        codes[::7] = codes[0]
        assert stable_order(codes).tolist() == np.argsort(codes, kind="stable").tolist()
