"""Several processes train what one trains: the same losses, gradients, queues, centres and weights; and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from seqcl.data import markov, write
from seqcl.experiment import load
from seqcl.training import load_checkpoint
from tests.two_processes import CASES, losses_and_weights

pytestmark = pytest.mark.once

TESTS = Path(__file__).parent
RUN = str(TESTS.parent / "run.py")
SMALL = "--model CL4Rec --encoder.dim 8 --train.batch_size 32 --train.patience 0 --eval.batch_size 64 --train.save_minutes 0 --eval.exclude_seen false"


def torchrun(*words: str, processes: int = 2) -> subprocess.Popen[str]:
    """Start a script on several processes of this machine."""
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
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a run that works; give what it printed."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return output


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The process numbers of the system of those that torchrun started, in their order."""
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_two_processes_of_half_the_rows_train_as_one_does(tmp_path):
    """In one test: the two processes are started once for all recipes."""
    process = torchrun(str(TESTS / "two_processes.py"), str(tmp_path))
    alone = {name: losses_and_weights(name) for name in CASES}  # beside them
    ended(process)
    wrong = []
    for name, expected in alone.items():
        for number in (0, 1):
            found = torch.load(tmp_path / f"{name}-{number}.pt")
            assert found.keys() == expected.keys()
            wrong += [
                f"{name}, process {number}: {key}"
                for key, value in expected.items()
                if not torch.allclose(found[key], value, rtol=1e-9, atol=1e-9)
            ]
    assert not wrong


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A file with a chain of 150 users."""
    path = tmp_path_factory.mktemp("log") / "chain.csv"
    write(markov(users=150, items=40, length=8, branching=2, seed=1).interactions, path)
    return path


def started(log: Path, runs: Path, *, epochs: int = 4) -> subprocess.Popen[str]:
    return torchrun(RUN, *SMALL.split(), "--dataset", str(log), "--runs", str(runs), "--train.epochs", str(epochs))


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    """The folder of a run of two processes that nothing disturbed, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    printed = ended(started(log, runs))
    (folder,) = runs.iterdir()
    return folder, printed


def test_one_process_writes_and_both_rank(whole):
    folder, printed = whole
    assert printed.count("CL4Rec") == 2  # the row of the table, and the folder
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["machine"]["processes"] == 2
    assert len((folder / "history.csv").read_text().splitlines()) == 5
    again = load(folder).evaluate("test")
    assert again.metrics == pytest.approx(metrics["test"], abs=0)
    import pandas as pd

    assert np.array_equal(pd.read_parquet(folder / "ranks.parquet")["rank"], again.ranks)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the children of a process are read from /proc")
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_is_killed_ends_the_run_which_goes_on_to_the_same_bits(log, tmp_path, whole, number):
    process = started(log, tmp_path)
    while not list(tmp_path.glob("*/checkpoints/previous.safetensors")):  # two steps at least are saved
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.kill(workers(process)[number], signal.SIGKILL)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode != 0
    (folder,) = tmp_path.iterdir()
    lines = [line for line in errors.splitlines() if "has ended" in line or "stopped by" in line]
    assert len(lines) == 1 and lines[0].startswith("seqcl: ") and f"--resume {folder}" in lines[0], errors
    if number == 1:
        ended(torchrun(RUN, "--resume", str(folder)))
        ours, theirs = (load_checkpoint(one / "checkpoints" / "last.safetensors")[0] for one in (folder, whole[0]))
        unused = ("random.numpy", "random.python")  # nothing draws from these, and nothing seeds them
        assert [name for name, value in theirs.items() if not torch.equal(ours[name], value)] in ([], list(unused))


def test_a_mistake_is_told_once(tmp_path):
    process = torchrun(RUN, "--model", "CL4Rek")
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len([line for line in errors.splitlines() if line.startswith("seqcl: ") and "CL4Rek" in line]) == 1
