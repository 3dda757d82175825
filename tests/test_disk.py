"""Files and folders appear whole or not at all: after a failure, on a full disk, and when two processes race."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seqcl.disk import PART, sweep, whole_file, whole_folder, write_text

OLD, NEW = "old text, naïve 日本\n", "new text, naïve 日本\n"


@contextmanager
def full_disk(limit: int = 100) -> Iterator[None]:
    """Inside, a write past `limit` bytes of a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "folder" / "note.txt"
    write_text(file, OLD)
    return file


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_text_is_utf8_makes_its_folder_and_replaces_the_old_one(path: Path) -> None:
    assert path.read_bytes().decode("utf-8") == OLD
    write_text(path, NEW)
    assert path.read_bytes().decode("utf-8") == NEW
    assert names(path.parent) == ["note.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(path: Path) -> None:
    with whole_file(path) as beside:
        beside.write_bytes(b"half")
        assert path.read_text(encoding="utf-8") == OLD
        assert beside.parent == path.parent and beside.name.startswith(PART)
    assert path.read_bytes() == b"half"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="in the middle"), whole_file(path) as beside:
        beside.write_bytes(b"half")
        raise ValueError("in the middle")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass  # nothing was written
    for step in ("os.fsync", "Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"seqcl.disk.{step}", no_space)
            with pytest.raises(OSError, match="No space left"):
                write_text(path, NEW)
        assert path.read_text(encoding="utf-8") == OLD and names(path.parent) == ["note.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="too large") as found:
        write_text(path, "x" * 1000)
    assert found.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == OLD and names(path.parent) == ["note.txt"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "place"
    with whole_folder(place) as folder:
        (folder / "a").write_text("1")
        (folder / "inner").mkdir()
        (folder / "inner" / "b").write_text("2")
        assert not place.exists()
    assert names(place) == ["a", "inner"] and (place / "inner" / "b").read_text() == "2"
    assert names(place.parent) == ["place"]


def test_a_folder_that_fails_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="in the middle"), whole_folder(tmp_path / "place") as folder:
        (folder / "a").write_text("1")
        raise ValueError("in the middle")
    with full_disk(), pytest.raises(OSError, match="too large"), whole_folder(tmp_path / "place") as folder:
        (folder / "a").write_text("x" * 1000)
    monkeypatch.setattr("seqcl.disk.os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"), whole_folder(tmp_path / "place") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path) == []


def test_a_folder_does_not_replace_another_one_nor_a_file(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with whole_folder(tmp_path / "place") as folder:
            (folder / "a").write_text(text)
    assert (tmp_path / "place" / "a").read_text() == "first"
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OSError), whole_folder(tmp_path / "file") as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "file").read_text() == "a file" and names(tmp_path) == ["file", "place"]


RACER = """
import sys, time
from pathlib import Path
from seqcl.disk import whole_folder, write_text

root, me = Path(sys.argv[1]), sys.argv[2]
(root / f"ready-{me}").touch()
while not (root / "go").exists():
    time.sleep(0.001)
for round in range(40):
    with whole_folder(root / "places" / str(round)) as folder:
        for name in "abc":
            (folder / name).write_text(me)
    write_text(root / "shared.txt", me * 5000)
"""


def test_two_processes_that_race_for_one_folder_leave_the_whole_one_of_either(tmp_path: Path) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), me]) for me in "xy"]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready-{me}").exists() for me in "xy") and time.monotonic() < deadline:
        time.sleep(0.001)
    (tmp_path / "go").touch()
    assert [racer.wait(60) for racer in racers] == [0, 0]
    assert len(names(tmp_path / "places")) == 40  # and no unfinished ones
    for place in (tmp_path / "places").iterdir():
        assert names(place) == ["a", "b", "c"]
        assert len({(place / name).read_text() for name in "abc"}) == 1
    assert (tmp_path / "shared.txt").read_text() in ("x" * 5000, "y" * 5000)
    assert names(tmp_path) == ["go", "places", "ready-x", "ready-y", "shared.txt"]


def test_only_what_was_left_more_than_a_day_ago_is_swept(tmp_path: Path) -> None:
    for name, age in ((f"{PART}old", 2 * 86400), (f"{PART}new", 60), ("old", 2 * 86400)):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.txt").touch()
        for left in (tmp_path / name, tmp_path / f"{name}.txt"):
            os.utime(left, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert names(tmp_path) == [f"{PART}new", f"{PART}new.txt", "old", "old.txt"]
