"""The benchmark of going on from an earlier run: what the earlier run gets, and its figures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import warm_start
from seqcl.data import markov


def test_every_figure_is_in_the_last_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["warm_start.py", "--smoke", "--epochs", "2"])
    warm_start.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["users"] == 600 and found["anew"]["epochs"] in (1, 2) and found["warm"]["all_epochs"] == 2
    assert found["warm"]["first_epoch"] > found["anew"]["first_epoch"]  # one epoch teaches little of a chain


@pytest.mark.parametrize("timed", [True, False])
def test_the_earlier_run_gets_the_oldest_part_alone(timed):
    log = markov(users=9, items=12, length=10, branching=2, seed=1).interactions
    days = np.arange(len(log.users)) % 10
    log = replace(log, times=days.astype(float) if timed else None)
    part = warm_start.oldest(log, 0.5)
    met: dict[int, int] = {}
    wanted = []
    for row, user in enumerate(log.users.tolist()):
        met[user] = met.get(user, 0) + 1
        if days[row] < 5 if timed else met[user] <= -(-int((log.users == user).sum()) // 2):
            wanted.append((log.user_ids[user], log.item_ids[log.items[row]]))
    assert list(zip(part.user_ids[part.users], part.item_ids[part.items], strict=True)) == wanted
