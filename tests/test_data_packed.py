"""Packed folders in the place of a data set; a killed packing leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seqcl.cli.main import main
from seqcl.data import Sequences, load, load_sequences, pack, pack_to, read
from seqcl.errors import UserError
from tests.test_data_passes import random_frame, write_parts

KILLED = """
import os, random, signal, sys
from pathlib import Path
from seqcl import mapped
from seqcl.data import Sequences, pack_to, parquet_log
from seqcl.data.spill import Spill

source, place = map(Path, sys.argv[1:])
mapped.BLOCK = parquet_log.ROWS_A_CHUNK = 40
left = 0

def counted(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

for owner, name in ((Spill, "append"), (Spill, "put"), (Spill, "take"), (Spill, "remove"), (Sequences, "finish"), (os, "fsync")):
    setattr(owner, name, counted(getattr(owner, name)))
random.seed(0)
for left in [1, *random.sample(range(2, 25), 7)]:
    pid = os.fork()
    if pid == 0:
        pack_to(source, place, k_core=2)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    print(left, os.waitstatus_to_exitcode(status), place.exists(), len(list(place.parent.glob(".part-*"))), flush=True)
left = 0
pack_to(source, place, k_core=2)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked, so that each starts at once")
def test_a_killed_packing_leaves_nothing_half_written_and_the_next_sweeps(tmp_path: Path) -> None:
    source = write_parts(tmp_path / "log", random_frame(7))
    place = tmp_path / "home" / "packed"
    command = [sys.executable, "-c", KILLED, str(source), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 8
    for point, code, there, unfinished in rows:
        assert (code, there, unfinished) == (str(-signal.SIGKILL), "False", "1"), point
    pack(read(source), k_core=2).save(tmp_path / "memory")
    assert [file.name for file in place.parent.iterdir()] == ["packed"]
    for file in (tmp_path / "memory").iterdir():
        assert (place / file.name).read_bytes() == file.read_bytes() or file.name == "meta.json"
    assert Sequences.load(place).fingerprint == Sequences.load(tmp_path / "memory").fingerprint


def test_large_parquet_goes_through_the_cache_in_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_parts(tmp_path / "log", random_frame(8))
    plain = load_sequences(source, k_core=2, cache=tmp_path / "small")
    monkeypatch.setattr("seqcl.data.datasets.LARGE", 1000)
    monkeypatch.setattr("seqcl.data.datasets.load", None)  # what reads into memory
    large = load_sequences(source, k_core=2, cache=tmp_path / "large")
    assert plain.place is not None and large.place is not None
    assert large.place.name == plain.place.name
    for file in plain.place.iterdir():
        assert (large.place / file.name).read_bytes() == file.read_bytes()
    monkeypatch.setattr("seqcl.data.datasets.pack_to", None)
    assert load_sequences(source, k_core=2, cache=tmp_path / "large").fingerprint == plain.fingerprint


def test_a_packed_folder_is_a_data_set_with_its_own_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, place = write_parts(tmp_path / "log", random_frame(9)), tmp_path / "packed"
    assert main(["data", "pack", str(source), str(place), "--k_core", "3", "--where", "user_id != 3"]) == 0
    out = capsys.readouterr()
    assert str(place) in out.out and "part" in out.err
    expected = pack(read(source, where="user_id != 3"), k_core=3)
    for k_core in (0, 3):
        assert load_sequences(place, k_core=k_core).fingerprint == expected.fingerprint
    assert load_sequences(place).place == place
    with pytest.raises(UserError, match=r"k_core 5: .* packed with 3"):
        load_sequences(place, k_core=5)
    with pytest.raises(UserError, match=r"--data.where .* packed already"):
        load_sequences(place, where="user_id != 4")
    with pytest.raises(UserError, match="give its source"):
        load(place)
    assert main(["data", "pack", str(source), str(place)]) == 2
    assert "name a new folder" in capsys.readouterr().err
    assert main(["data", "pack", str(place), str(tmp_path / "other")]) == 2
    assert "give its source" in capsys.readouterr().err
    assert main(["data", "stats", str(place)]) == 0


def test_other_formats_are_packed_in_memory(tmp_path: Path) -> None:
    random_frame(10).to_csv(tmp_path / "shop.csv", index=False)
    pack_to(tmp_path / "shop.csv", tmp_path / "packed", min_length=3)
    found = Sequences.load(tmp_path / "packed")
    assert (found.name, found.min_length) == ("shop", 3)
    assert found.fingerprint == pack(read(tmp_path / "shop.csv"), min_length=3).fingerprint


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, home = write_parts(tmp_path / "log", random_frame(11)), tmp_path / "home"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("seqcl.data.spill.Spill.put", full)
    with pytest.raises(UserError, match=r"packed: the packed log cannot be written: .*No space"):
        pack_to(source, home / "packed")
    assert not list(home.iterdir())
