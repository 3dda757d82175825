"""Ids, names and paths that are not ASCII go through the data room under a locale that knows only ASCII."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import locale, os, sys
from pathlib import Path
from seqcl.data import Interactions, Sequences, load_sequences, pack, read, write
from seqcl.data.attributes import item_attributes
from seqcl.data.features import table_features
import numpy as np

assert locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"), "the locale does not test anything"
folder = Path(sys.argv[1])

def at(name):  # as the command line gives a path that is not ASCII
    return folder / os.fsdecode(name.encode("utf-8"))

users, items = ["Zoë", "日本"], ["Füße", "naïve", "Ж"]
csv = at("lög.csv")
rows = [("Zoë", "Füße"), ("Zoë", "naïve"), ("Zoë", "Ж"), ("日本", "naïve"), ("日本", "Ж"), ("日本", "Füße")]
csv.write_bytes(("user_id,item_id\\n" + "".join(f"{u},{i}\\n" for u, i in rows)).encode("utf-8"))
at("lög_item2attributes.json").write_bytes('{"Füße": ["groß", 3], "Ж": ["буква"]}'.encode("utf-8"))
prints = set()
for _ in range(2):  # read and packed, then mapped from the cache
    sequences = load_sequences(csv, cache=at("cäche"))
    assert sequences.user_ids.tolist() == users and sequences.item_ids.tolist() == items
    assert sequences.item_ids[sequences.history("日本") - 1].tolist() == ["naïve", "Ж", "Füße"]
    assert item_attributes(sequences.tables).names == ["attributes=3", "attributes=groß", "attributes=буква"]
    prints.add(sequences.fingerprint)
sequences.save(at("säved"))
prints.add(Sequences.load(at("säved")).fingerprint)
log = read(csv)
for name in ("öut.csv", "öut.tsv", "öut.inter", "öut.parquet", "öut.txt"):
    again = pack(read(write(log, at(name))))
    assert (again.user_ids.tolist(), again.item_ids.tolist()) == (users, items), name
    assert again.items.tolist() == sequences.items.tolist(), name
at("tägs.csv").write_bytes("item_id,Größe\\nFüße,groß\\nnaïve,groß\\n".encode("utf-8"))
found = table_features(sequences.tables, "items", np.ones(3, bool), "Größe", table=str(at("tägs.csv")))
assert found.bags["Größe"].names == ["groß"]
shop = at("ladén")
shop.mkdir()
shop = shop / at("ladén.inter").name
shop.write_bytes("user_id:token\\titem_id:token\\nÄ\\tö\\nÄ\\tü\\nß\\tö\\n".encode("utf-8"))
shop.with_suffix(".item").write_bytes("item_id:token\\tGröße:token\\nö\\tgroß\\nü\\tgroß\\n".encode("utf-8"))
for _ in range(2):
    stored = load_sequences(shop.parent, cache=at("cäche"))
    assert stored.item_features["Größe"].to_dict() == {"ö": "groß", "ü": "groß"}
    table = stored.item_features.reset_index()
    table.to_parquet(folder / "tags.parquet")
    (folder / "tags.parquet").rename(at("tägs.parquet"))
    again = table_features(stored.tables, "items", np.ones(2, bool), "Größe", table=str(at("tägs.parquet")))
    assert again.bags["Größe"].names == ["groß"]
try:
    sequences.find_item("Grüße")
except ValueError as error:
    assert "has no item 'Grüße'; ids are such as Füße" in str(error)
assert len(prints) == 1
print(prints.pop())
"""


def test_ids_that_are_not_ascii_are_read_packed_cached_loaded_and_written_under_an_ascii_locale(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")

    outputs = []
    for number, locale in enumerate(({"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C", "PYTHONUTF8": "1"})):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        if locale["PYTHONUTF8"] == "1":  # the same bits as under UTF-8
            script.write_text(SCRIPT.replace("not in (", "in ("), encoding="utf-8")
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, str(script), str(folder)],
            env=os.environ | locale | {"PYTHONPATH": paths},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


@pytest.mark.once
def test_a_run_and_a_bundle_lie_under_a_path_that_is_not_ascii(tmp_path: Path) -> None:
    def seqcl(*words: object) -> str:
        told = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-m", "seqcl", *map(str, words)], env=told, capture_output=True)
        assert done.returncode == 0, done.stderr.decode("utf-8")
        return done.stdout.decode("utf-8")

    runs, bundle = tmp_path / "läufe", tmp_path / "bündel"
    seqcl("train", "--model", "SASRec", "--dataset", "markov", "--train.epochs", 1, "--encoder.dim", 8, "--runs", runs)
    seqcl("export", next(runs.glob("*-*")), bundle)
    assert len(seqcl("recommend", bundle, "--items", "1,2", "--k", 3).splitlines()) == 3
