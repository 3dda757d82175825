"""Several processes train what one trains: the same losses, gradients, queues, centres and weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.two_processes import CASES, losses_and_weights

TESTS = Path(__file__).parent


def torchrun(*words: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a script on several processes of this machine."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        *words,
    ]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    return subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=300)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes computed."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(str(TESTS / "two_processes.py"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_of_half_the_rows_train_as_one_does(both, name):
    alone = losses_and_weights(name)
    for number in (0, 1):
        found = torch.load(both / f"{name}-{number}.pt")
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                found[key], value, rtol=1e-9, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
            )
