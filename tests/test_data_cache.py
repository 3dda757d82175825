from __future__ import annotations

import errno
import json
import logging
import os
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqcl.data import Interactions, Sequences, load_sequences, pack, read
from seqcl.errors import UserError
from tests.reference_data import random_log


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    pd.DataFrame(random_log(0), columns=["user_id", "item_id", "timestamp"]).to_csv(path, index=False)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def same(one: Sequences, other: Sequences) -> bool:
    arrays = ("items", "offsets", "times", "user_ids", "item_ids")
    options = ("name", "fingerprint", "k_core", "duplicates", "min_length")
    return all(np.array_equal(getattr(one, field), getattr(other, field)) for field in arrays) and all(
        getattr(one, field) == getattr(other, field) for field in options
    )


def unreadable(*_: object, **__: object) -> None:
    raise AssertionError("the log was packed again")


def packed_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_the_second_load_is_mapped_from_disk_and_packs_nothing(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_sequences(source, k_core=2, cache=folder)
    monkeypatch.setattr("seqcl.data.datasets.pack", unreadable)
    second = load_sequences(source, k_core=2, cache=folder)
    assert same(first, second)
    assert same(second, pack(read(source), k_core=2))
    for sequences in (first, second):
        for field in ("items", "offsets", "times", "user_ids", "item_ids"):
            array = getattr(sequences, field)
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
    assert first.name == "log"


def test_other_content_or_other_options_are_packed_anew(source: Path, folder: Path) -> None:
    prints = {load_sequences(source, cache=folder).fingerprint}
    prints.add(load_sequences(source, cache=folder, k_core=3).fingerprint)
    prints.add(load_sequences(source, cache=folder, duplicates="last").fingerprint)
    prints.add(load_sequences(source, cache=folder, min_length=3).fingerprint)
    prints.add(load_sequences(source, cache=folder, order="file").fingerprint)
    prints.add(load_sequences(source, cache=folder, user="item_id", item="user_id").fingerprint)
    source.write_text(source.read_text() + "3,4,99\n")
    prints.add(load_sequences(source, cache=folder).fingerprint)
    assert len(prints) == len(packed_folders(folder)) == 7


def test_a_change_of_the_same_size_and_time_is_noticed(source: Path, folder: Path) -> None:
    old = load_sequences(source, cache=folder)
    state = source.stat()
    text = source.read_text()
    last = text.rstrip("\n").split(",")[-2]
    place = text.rindex(f",{last},")
    source.write_text(f"{text[:place]},{(int(last) + 1) % 9},{text[place + len(last) + 2 :]}")
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert source.stat().st_size == state.st_size
    assert load_sequences(source, cache=folder).fingerprint != old.fingerprint


def test_the_hash_of_a_settled_file_is_remembered(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqcl.data.cache.SETTLED_SECONDS", -1.0)
    load_sequences(source, cache=folder)
    (known,) = json.loads((folder / "hashes.json").read_text()).values()
    monkeypatch.setattr("seqcl.data.cache.hashlib", None)  # whoever hashes the content now fails
    from seqcl.data.cache import content_hash

    assert content_hash(source, folder / "hashes.json") == known[-1]
    (folder / "hashes.json").write_text("[broken")
    with pytest.raises(AttributeError):
        content_hash(source, folder / "hashes.json")


@pytest.mark.parametrize("harm", ["cut array", "no array", "broken meta", "other layout", "wrong shape", "empty"])
def test_a_damaged_cache_is_said_and_mended(
    harm: str, source: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = load_sequences(source, cache=folder)
    (place,) = packed_folders(folder)
    items, meta = place / "items.npy", place / "meta.json"
    if harm == "cut array":
        items.write_bytes(items.read_bytes()[:-8])
    elif harm == "no array":
        items.unlink()
    elif harm == "broken meta":
        meta.write_text(meta.read_text()[:50])
    elif harm == "other layout":
        meta.write_text(meta.read_text().replace('"layout": 1', '"layout": 99'))
    elif harm == "wrong shape":
        np.save(items, np.zeros(3, np.int32))
    else:
        meta.write_text("[]")
    with pytest.raises(UserError, match="no packed log to use"):
        Sequences.load(place)
    with caplog.at_level(logging.WARNING):
        assert same(load_sequences(source, cache=folder), pack(read(source)))
    assert "packing the log again" in caplog.text
    assert Sequences.load(place).fingerprint == good.fingerprint


def shop(tmp_path: Path) -> Path:
    """A log with times, text ids and a table of items."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = "".join(f"u{user}\ti{(user + step) % 5}\t{step}\n" for user in range(6) for step in range(4))
    (folder / "shop.inter").write_text(f"user_id:token\titem_id:token\ttimestamp:float\n{rows}")
    (folder / "shop.item").write_text("item_id:token\tprice:float\ni0\t1.5\ni1\t2\n")
    return folder


def test_a_flipped_byte_anywhere_in_a_cache_is_noticed_and_said_in_one_line(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = shop(tmp_path)
    load_sequences(source, cache=folder)
    good = load_sequences(source, cache=False)
    (place,) = packed_folders(folder)
    files = sorted(place.iterdir())
    assert len(files) == 7
    random = np.random.default_rng(0)
    for file in files:
        whole = file.read_bytes()
        for spot in (0, len(whole) - 1, *random.integers(len(whole), size=10)):
            broken = bytearray(whole)
            broken[spot] ^= 1 << int(random.integers(8))
            file.write_bytes(broken)
            try:
                meant = json.loads(broken) == json.loads(whole)  # a blank may become a tab between two values
            except ValueError:
                meant = False
            if not meant:
                with pytest.raises(UserError, match="no packed log to use"):
                    Sequences.load(place)
        caplog.clear()
        assert same(load_sequences(source, cache=folder), good)
        warned = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert [message.count("packing the log again") for message in warned] == [1]
        assert same(Sequences.load(place), good)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(source: Path, folder: Path) -> None:
    place = load_sequences(source, cache=folder).place
    assert place is not None
    for name in ("items.npy", "meta.json"):
        (place / name).unlink()
        os.mkfifo(place / name)
        with pytest.raises(UserError, match="no regular file"):
            Sequences.load(place)


def test_a_packed_log_of_version_0_1_0_is_compared_with_its_fingerprint(
    source: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sequences = load_sequences(source, cache=folder)
    (place,) = packed_folders(folder)
    meta = json.loads((place / "meta.json").read_text())
    (place / "meta.json").write_text(json.dumps({key: meta[key] for key in meta if key not in ("files", "seal")}))
    assert same(Sequences.load(place), sequences)
    with caplog.at_level(logging.WARNING):
        assert same(load_sequences(source, cache=folder), sequences)  # the cache is made again, as tables had no hash
    assert "without hashes" in caplog.text and "files" in json.loads((place / "meta.json").read_text())
    (place / "meta.json").write_text(json.dumps({key: meta[key] for key in meta if key not in ("files", "seal")}))
    items = np.array(sequences.items)
    items[0] = items[0] % sequences.num_items + 1
    np.save(place / "items.npy", items)
    with pytest.raises(UserError, match="not those of the fingerprint"):
        Sequences.load(place)


def test_a_cache_that_cannot_be_made_is_said_and_done_without(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert same(load_sequences(source, cache=blocked), pack(read(source)))
    assert "going on without a cache" in caplog.text
    assert str(blocked) in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_cache_folder_is_said_and_done_without(
    source: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(mode=0o500)
    with caplog.at_level(logging.WARNING):
        assert same(load_sequences(source, cache=folder), pack(read(source)))
    assert "going on without a cache" in caplog.text


def test_a_full_disk_is_said_and_leaves_nothing_behind(
    source: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_sequences(source, cache=folder, k_core=2)
    left = sorted(folder.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # a write past 200 bytes fails, as on a full disk
    try:
        with caplog.at_level(logging.WARNING):
            sequences = load_sequences(source, cache=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(sequences, pack(read(source)))
    assert "going on without a cache" in caplog.text
    assert sorted(folder.rglob("*")) == left
    assert same(load_sequences(source, cache=folder, k_core=2), before)


def test_a_write_that_fails_at_the_last_step_leaves_no_half_folder(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("seqcl.disk.os.fsync", no_space)
    sequences = load_sequences(source, cache=folder)
    assert sequences.num_users == 12
    assert packed_folders(folder) == []
    with pytest.raises(UserError, match=r"cannot be written: .*No space left on device"):
        sequences.save(folder / "own")


def test_where_another_process_was_first_both_use_what_it_wrote(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def overtaken(log: Interactions, **options: object) -> Sequences:
        monkeypatch.setattr("seqcl.data.datasets.pack", pack)
        made.append(load_sequences(source, cache=folder))  # the other one, from beginning to end
        return pack(log, **options)

    monkeypatch.setattr("seqcl.data.datasets.pack", overtaken)
    late = load_sequences(source, cache=folder)
    assert same(late, made[0])
    assert late.items.filename == made[0].items.filename
    assert len(list(folder.iterdir())) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_a_killed_process_left_is_cleared_after_a_day(source: Path, folder: Path) -> None:
    for name, age in ((".part-old", 2 * 86400), (".part-new", 60)):
        (folder / name).mkdir(parents=True)
        stamp = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (stamp, stamp))
    load_sequences(source, cache=folder)
    assert not (folder / ".part-old").exists()
    assert (folder / ".part-new").exists()


def test_features_and_text_ids_come_back_from_the_cache(tmp_path: Path, folder: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.inter").write_text("user_id:token\titem_id:token\nü\tlong name\nü\tb\nv\tb\n")
    (shop / "shop.item").write_text("item_id:token\tprice:float\ttags:token_seq\nb\t1.5\tred blue\nlong name\t2\t\n")
    fresh = load_sequences(shop, cache=False)
    load_sequences(shop, cache=folder)
    stored = load_sequences(shop, cache=folder)
    assert isinstance(stored.item_table, Path)
    assert stored.user_features is None
    pd.testing.assert_frame_equal(stored.item_features, fresh.item_features)
    assert stored.item_ids.tolist() == ["b", "long name"]
    assert stored.user_ids.tolist() == ["v", "ü"]
    old = stored.fingerprint
    (shop / "shop.item").write_text("item_id:token\tprice:float\nb\t9\nlong name\t2\n")
    assert load_sequences(shop, cache=folder).item_features.loc["b", "price"] == 9.0
    assert load_sequences(shop, cache=folder).fingerprint == old


def test_no_cache_is_made_where_none_is_wanted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQCL_DATA", str(tmp_path / "data"))
    load_sequences(source, cache=False)
    assert not (tmp_path / "data").exists()
    load_sequences(source)
    assert len(packed_folders(tmp_path / "data" / "cache")) == 1


def test_a_packed_log_saved_by_hand_comes_back(source: Path, tmp_path: Path) -> None:
    sequences = pack(read(source), k_core=3)
    sequences.save(tmp_path / "kept")
    assert same(Sequences.load(tmp_path / "kept"), sequences)
    with pytest.raises(UserError, match="no packed log to use"):
        Sequences.load(tmp_path / "nowhere")
