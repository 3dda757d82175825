from __future__ import annotations

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from seqcl.data import DATASETS, Interactions, download, leave_one_out, load, load_sequences, pack, read, resolve
from seqcl.data.datasets import in_recbole
from seqcl.errors import UserError

REAL = Path(__file__).parents[2] / "shared" / "data"
SIZES = {  # users, items, interactions
    "Beauty": (22363, 12101, 198502),
    "Sports_and_Outdoors": (35598, 18357, 296337),
    "LastFM": (1090, 3646, 52551),
    "ml-1m": (6040, 3416, 999611),
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("SEQCL_DATA", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqcl.data.datasets.in_recbole", lambda name: None)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("pooch.retrieve", refuse)


def movielens_zip(path: Path) -> None:
    """An archive laid out as GroupLens does."""
    item = "|".join(["1", "Toy Story (1995)", "01-Jan-1995", "", "http://x", *"0001"])
    other = "|".join(["2", "Caf\u00e9 Society (V)", "", "", "", *"0110"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", "196\t1\t3\t881250949\n196\t2\t3\t881250950\n22\t1\t1\t878887116\n")
        archive.writestr("ml-100k/u.user", "22|24|M|technician|85711\n196|53|F|other|94043\n")
        archive.writestr("ml-100k/u.item", f"{item}\n{other}\n".encode("latin-1"))
        archive.writestr("ml-100k/u.genre", "unknown|0\nAction|1\nAdventure|2\nAnimation|3\n\n")


def test_a_path_goes_before_a_name_and_a_name_needs_no_capitals(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.mkdir()
    (data / "Beauty.txt").write_text("1 2 3\n2 3 4\n")
    assert resolve("Beauty") == resolve("beauty") == data / "Beauty.txt"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Beauty").write_text("1 2 3\n2 3 4\n")
    assert resolve("Beauty") == Path("Beauty")


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"unknown data set 'ml100k': did you mean ml-100k.*; there is no file or folder of this name"
    ):
        load_sequences("ml100k")
    with pytest.raises(UserError, match=r"unknown data set 'some/where\.csv'"):
        load("some/where.csv")


def test_without_a_connection_the_error_says_what_to_do(offline: None, data: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_sequences("ml-100k")
    text = str(caught.value)
    for part in (
        "Name or service not known",
        str(data / "ml-100k.zip"),
        "recbole==1.2.1",
        "--dataset markov",
        "https://",
    ):
        assert part in text
    with pytest.raises(UserError, match=r"put https://raw.*/Beauty.txt at .*Beauty.txt, or take --dataset markov"):
        load("Beauty")


def test_another_content_than_the_published_one_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir()
    source = data.parent / "served.txt"
    source.write_text("1 2 3\n")
    wrong = replace(DATASETS["Beauty"], url=source.as_uri())
    monkeypatch.setitem(DATASETS, "Beauty", wrong)
    (data / "served.txt").write_text("what an earlier download left\n")
    with pytest.raises(UserError, match="'Beauty' is not here and could not be fetched"):
        download("Beauty")


def test_a_file_put_by_hand_is_taken_if_its_hash_is_right(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir()
    (data / "Yelp.txt").write_text("1 2 3\n2 3 4\n")
    assert load_sequences("yelp").num_users == 2
    movielens_zip(data / "ml-100k.zip")
    right = "md5:" + hashlib.md5((data / "ml-100k.zip").read_bytes()).hexdigest()
    monkeypatch.setitem(DATASETS, "ml-100k", replace(DATASETS["ml-100k"], hash=right))
    assert download("ml-100k") == data / "ml-100k"
    packed = load_sequences("ml-100k") if in_recbole("ml-100k") is None else load_sequences(data / "ml-100k")
    assert packed.name == "ml-100k"
    assert packed.user_ids.tolist() == [22, 196]
    assert packed.items.tolist() == [1, 1, 2]
    assert packed.times.tolist() == [878887116.0, 881250949.0, 881250950.0]
    assert packed.item_features.loc[1].tolist() == ["Toy Story", "1995", "Animation"]
    assert packed.item_features.loc[2].tolist() == ["Caf\u00e9 Society (V)", "", "Action Adventure"]
    assert packed.user_features.loc[196].tolist() == ["53", "F", "other", "94043"]


def test_a_broken_archive_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir()
    (data / "ml-100k.zip").write_bytes(b"no archive")
    wrong = "md5:" + hashlib.md5(b"no archive").hexdigest()
    monkeypatch.setitem(DATASETS, "ml-100k", replace(DATASETS["ml-100k"], hash=wrong))
    with pytest.raises(UserError, match=r"could not be fetched .*zip"):
        download("ml-100k")


def test_what_is_made_on_the_spot_cannot_be_downloaded_but_loads_offline(offline: None) -> None:
    assert isinstance(resolve("markov"), Interactions)
    assert load_sequences("markov").num_users == 2000
    assert load_sequences("markov").fingerprint == load_sequences("Markov").fingerprint
    assert load_sequences("markov-shuffled").fingerprint != load_sequences("markov").fingerprint
    with pytest.raises(UserError, match="'markov' is made on the spot"):
        download("markov")
    with pytest.raises(UserError, match="unknown data set 'Beuty': did you mean Beauty"):
        download("Beuty")


def test_movielens_of_recbole_is_found_without_importing_recbole() -> None:
    if in_recbole("ml-100k") is None:
        pytest.skip("RecBole is not installed")
    before = "recbole" in sys.modules
    assert len(load("ml-100k")) == 100_000
    assert ("recbole" in sys.modules) == before
    packed = load_sequences("ml-100k", k_core=5)
    assert (packed.num_users, packed.num_items, packed.num_interactions) == (943, 1349, 99287)
    assert packed.user_features.loc[1, "occupation"] == "technician"
    assert packed.item_features.loc[1, "movie_title"] == "Toy Story"
    split = leave_one_out(packed)
    assert len(split.valid) == len(split.test) == 943


@pytest.mark.parametrize("name", SIZES)
def test_published_files_have_their_published_hash_and_size(name: str, tmp_path: Path) -> None:
    path = REAL / f"{name}.txt"
    if not path.is_file():
        pytest.skip("the real data is not here")
    assert "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() == DATASETS[name].hash
    packed = load_sequences(path, cache=tmp_path)
    assert (packed.num_users, packed.num_items, packed.num_interactions) == SIZES[name]
    lines = [line.split() for line in path.read_text().splitlines()]
    for line in (lines[0], lines[len(lines) // 2], lines[-1]):
        assert packed.item_ids[packed.history(line[0]) - 1].tolist() == [int(item) for item in line[1:]]
    assert pack(read(path)).fingerprint == packed.fingerprint


def test_a_file_under_a_known_name_with_another_content_is_said(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data.mkdir()
    (data / "Beauty.txt").write_text("1 2 3\n2 3 4\n")
    assert resolve("Beauty") == data / "Beauty.txt"
    assert "Beauty.txt is not the Beauty that is published" in caplog.text and "--dataset PATH" in caplog.text
    caplog.clear()
    assert resolve(data / "Beauty.txt") == data / "Beauty.txt" and not caplog.text
    right = "sha256:" + hashlib.sha256((data / "Beauty.txt").read_bytes()).hexdigest()
    monkeypatch.setitem(DATASETS, "Beauty", replace(DATASETS["Beauty"], hash=right))
    assert resolve("Beauty") == data / "Beauty.txt" and not caplog.text


def test_a_download_shows_its_bytes_and_the_size_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a server on this machine, in the place of the data set's own."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from seqcl.data.downloads import fetch

    content = bytes(range(256)) * 8000  # 2,048,000 bytes
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "log.txt").write_bytes(content)
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/log.txt"
        found = fetch(url, f"sha256:{hashlib.sha256(content).hexdigest()}", tmp_path / "here" / "log.txt")
        with pytest.raises(ValueError, match="does not match the known hash"):
            fetch(url, "sha256:" + "0" * 64, tmp_path / "there" / "log.txt")
        server.shutdown()
    assert found.read_bytes() == content
    assert "log.txt" in (said := capsys.readouterr().err) and "2.0/2.0 MB" in said
