"""Logs packed in passes are those packed in memory, byte for byte."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seqcl import mapped
from seqcl.data import Sequences, pack, parquet_log, read
from seqcl.data.columns import Wanted
from seqcl.data.datasets import pack_to
from seqcl.data.files import log_files
from seqcl.data.passes import pack_in_passes
from seqcl.errors import UserError


@pytest.fixture(autouse=True, params=[7, 1 << 20])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, blocks and stretches of a few rows, so that small logs meet their borders; and of many."""
    monkeypatch.setattr(parquet_log, "ROWS_A_CHUNK", request.param)
    monkeypatch.setattr(mapped, "BLOCK", request.param)


def write_parts(folder: Path, frame: pd.DataFrame, parts: int = 3) -> Path:
    folder.mkdir()
    edges = np.linspace(0, len(frame), parts + 1).astype(int)
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        frame.iloc[begin:end].to_parquet(folder / f"part-{number}.parquet", index=False)
    return folder


def random_frame(seed: int, *, rows: int = 150) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    users, items = random.integers(0, 25, rows), (random.random(rows) ** 2 * 30).astype(int)
    times = 1_500_000_000 + random.integers(0, 40, rows)  # many ties
    return pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times})


def both(source: Path, tmp_path: Path, *, options: dict[str, Any] | None = None, **packing: Any) -> list[Any]:
    """The files of the log packed in passes and in memory; where one is refused, the messages."""
    found: list[Any] = []
    for way in ("passes", "memory"):
        place = tmp_path / f"{source.name}-{len(list(tmp_path.iterdir()))}" / way
        try:
            if way == "passes":
                wanted = Wanted(**(options or {}))
                pack_in_passes(log_files(source), wanted, path=source, name=source.name, place=place, **packing)
            else:
                pack(read(source, **(options or {})), **packing).save(place)
            Sequences.load(place)
            found.append({file.name: file.read_bytes() for file in place.iterdir()})
        except UserError as error:
            found.append(str(error))
        if place.parent.exists():
            assert [one.name for one in place.parent.iterdir()] in ([way], [])
    return found


def test_random_logs_with_ties_are_the_same_bytes(tmp_path: Path) -> None:
    ways = itertools.cycle(itertools.product((0, 3, 5), ("keep", "first", "last"), (1, 4)))
    for seed, (k_core, duplicates, min_length) in zip(range(24), ways, strict=False):
        source = write_parts(tmp_path / f"log{seed}", random_frame(seed), parts=1 + seed % 4)
        passes, memory = both(source, tmp_path, k_core=k_core, duplicates=duplicates, min_length=min_length)
        assert passes == memory, seed
        assert isinstance(passes, dict) or "left" in passes


CHANGES = {
    "text ids": lambda frame: frame.assign(user_id="u" + frame.user_id.astype(str), item_id="ü " + frame.item_id.astype(str)),
    "integers as text": lambda frame: frame.assign(item_id=frame.item_id.astype(str) + ".0"),
    "blanks around ids": lambda frame: frame.assign(item_id=np.where(frame.index % 2, " ", "") + frame.item_id.astype(str)),
    "categories": lambda frame: frame.assign(item_id=pd.Categorical(frame.item_id.astype(str), [str(n) for n in range(99)])),
    "fractions as ids": lambda frame: frame.assign(user_id=frame.user_id.astype(float)),
    "users missing": lambda frame: frame.assign(user_id=frame.user_id.astype("Int64").mask(frame.index % 40 == 3)),
    "users missing in text": lambda frame: frame.assign(user_id=frame.user_id.astype(str).mask(frame.index % 30 == 3, "nan")),
    "many users missing": lambda frame: frame.assign(user_id=frame.user_id.astype("Int64").mask(frame.index % 2 == 1)),
    "an item missing": lambda frame: frame.assign(item_id=frame.item_id.astype("Int64").mask(frame.index == 77)),
    "an empty item": lambda frame: frame.assign(item_id=frame.item_id.astype(str).mask(frame.index == 77, " ")),
    "a word for missing items": lambda frame: frame.assign(item_id=frame.item_id.astype(str).mask(frame.index % 9 == 1, "nan")),
    "a long id": lambda frame: frame.assign(item_id=("i" + frame.item_id.astype(str)).mask(frame.index == 77, "i" * 300)),
    "an id past 64 bits": lambda frame: frame.assign(item_id=frame.item_id.astype(str).mask(frame.index == 77, "9" * 30)),
    "no times": lambda frame: frame.drop(columns="timestamp"),
    "milliseconds": lambda frame: frame.assign(timestamp=frame.timestamp * 1000 + 7),
    "nanoseconds": lambda frame: frame.assign(timestamp=frame.timestamp * 10**9 + 1),
    "two units": lambda frame: frame.assign(timestamp=frame.timestamp.mask(frame.index == 77, 1_500_000_000_000)),
    "dates": lambda frame: frame.assign(timestamp=pd.to_datetime(frame.timestamp, unit="s")),
    "dates in text": lambda frame: frame.assign(timestamp=pd.to_datetime(frame.timestamp, unit="s").astype(str)),
    "days": lambda frame: frame.assign(timestamp=20240101 + frame.timestamp % 28),
    "no day": lambda frame: frame.assign(timestamp=(20240201 + frame.timestamp % 28).mask(frame.index == 77, 20240231)),
    "small numbers": lambda frame: frame.assign(timestamp=frame.timestamp % 1000),
    "a time missing": lambda frame: frame.assign(timestamp=frame.timestamp.astype("Int64").mask(frame.index == 77)),
    "a time below 0": lambda frame: frame.assign(timestamp=frame.timestamp.mask(frame.index == 77, -1)),
    "other columns": lambda frame: frame.assign(rating=frame.index % 5, note="x"),
    "one user": lambda frame: frame.assign(user_id=7),
    "a user an item": lambda frame: frame.assign(user_id=frame.index),
    "lists of items": lambda frame: frame.groupby("user_id", as_index=False).agg(list),
    "empty lists": lambda frame: frame.groupby("user_id", as_index=False).agg(list).drop(columns="timestamp").assign(item_id=[[]] * 25),
    "no user column": lambda frame: frame.rename(columns={"user_id": "alpha"}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_read_or_refused_is_the_same(change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_parts(tmp_path / "log", CHANGES[change](random_frame(1)))
    passes, memory = both(source, tmp_path, k_core=2)
    assert passes == memory
    refused = ("an item missing", "an empty item", "a long", "an id past", "many", "two", "no day", "a time", "one user", "a user", "empty", "no user")  # fmt: skip
    assert isinstance(memory, str) == change.startswith(refused)
    warned = [record.getMessage().replace("passes", "memory") for record in caplog.records]
    assert warned[: len(warned) // 2] == warned[len(warned) // 2 :]  # what is told of the reading, and warnings


@pytest.mark.parametrize(
    "options",
    [
        {"where": "rating >= 3"},
        {"where": "rating > 9"},
        {"where": "kind == 'buy' and timestamp > 1500000010"},
        {"where": "kind > 3"},
        {"min_rating": 2},
        {"min_rating": 2, "where": "user_id != 3"},
        {"order": "file"},
        {"time": "rating"},
        {"user": "item_id", "item": "user_id"},
        {"item": "nothing"},
        {"columns": "user,item"},
        {"given": True},
        {"given": True, "split_column": "kind"},
        {"given": True, "order": "file"},
    ],
    ids=str,
)
def test_the_options_of_reading_do_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    frame = random_frame(2).assign(
        rating=random.integers(1, 6, 150),
        kind=random.choice(["buy", "view"], 150),
        split=random.choice(["train", "valid", "test"], 150),
    )
    passes, memory = both(write_parts(tmp_path / "log", frame), tmp_path, options=options, k_core=2)
    assert passes == memory


def test_a_batch_whose_rows_are_all_left_out_says_nothing_of_the_times(tmp_path: Path) -> None:
    frame = random_frame(12)
    frame["timestamp"] = pd.to_datetime(frame.timestamp, unit="s").astype(str)
    source = write_parts(tmp_path / "log", frame.assign(kind=np.where(frame.index < 60, "view", "buy")))
    passes, memory = both(source, tmp_path, options={"where": "kind == 'buy'"})
    assert isinstance(memory, dict)
    assert passes == memory


def test_parts_of_other_types_and_orders_of_columns_are_one_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame, folder = random_frame(4), tmp_path / "log"
    write_parts(folder, frame)
    more = frame.assign(item_id=frame.item_id.astype(str))[["timestamp", "item_id", "user_id"]]
    more.to_parquet(folder / "part-3.parquet", index=False)
    passes, memory = both(folder, tmp_path)
    assert isinstance(passes, dict)
    assert passes == memory
    assert caplog.text.count("part-3.parquet: 'item_id' holds text here, but not in the parts before it") == 2
    frame.rename(columns={"timestamp": "time"}).to_parquet(folder / "part-4.parquet", index=False)
    passes, memory = both(folder, tmp_path)
    assert "part-4.parquet: it has no column 'timestamp', which part-0.parquet has; all parts need" in memory
    assert passes == memory


def test_attributes_beside_the_folder_come_along(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "log", random_frame(5))
    (tmp_path / "log_item2attributes.json").write_text('{"1": [2, 3], "2": [3]}')
    passes, memory = both(folder, tmp_path)
    assert "item_table.parquet" in passes
    assert passes == memory


def test_a_packed_log_is_not_put_into_the_folder_of_its_log(tmp_path: Path) -> None:
    source = write_parts(tmp_path / "log", random_frame(1))
    with pytest.raises(
        UserError, match=r"packed: it lies in the folder of the log, .*log, and would be read as part of it"
    ):
        pack_to(source, source / "new" / "packed")
    assert sorted(file.name for file in source.iterdir()) == ["part-0.parquet", "part-1.parquet", "part-2.parquet"]
    pack_to(source, tmp_path / "packed")
    assert Sequences.load(tmp_path / "packed").num_users == 25


def test_a_part_cut_off_is_named(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "log", random_frame(6))
    part = folder / "part-1.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    passes, memory = both(folder, tmp_path)
    assert str(part) in memory
    assert passes == memory
