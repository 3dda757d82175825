"""The benchmark of evaluation on a data file of any size, whose ids may begin at 0 and have gaps."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import eval_speed
from tests.recbole_world import OWN_WARNINGS

pytestmark = OWN_WARNINGS


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.txt"
    path.write_text("".join(f"{user} {user % 3} 7 {user % 5 + 9} {user % 40 + 20}\n" for user in range(60)) + "60 3\n")
    return path


def test_a_small_file_is_ranked_and_every_figure_is_in_the_last_line(file, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)  # RecBole writes where it runs
    words = ["--data", str(file), "--rounds", "1", "--dim", "4", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["eval_speed.py", *words])
    monkeypatch.setattr(eval_speed, "recbole_evaluation", lambda vectors, windows: {})
    eval_speed.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["data"], found["users"], found["items"]) == ("small.txt", 60, 49)
    assert {"random", "trained_like", "faiss", "ours_memory_growth_bytes"} <= set(found)


def test_items_are_numbered_in_the_order_of_their_ids(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("1 0 9 4\n2 9\n3 4 100\n")
    assert eval_speed.read_rows(path) == [[1, 3, 2], [2, 4]]
