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

import seqcl
from seqcl import processes
from seqcl.cli import train as command
from seqcl.data import markov, write
from seqcl.errors import UserError
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


def started(log: Path, runs: Path, *, epochs: int = 2) -> subprocess.Popen[str]:
    return torchrun(RUN, *SMALL.split(), "--dataset", str(log), "--runs", str(runs), "--train.epochs", str(epochs))


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    """The folder of a run of two processes that nothing disturbed, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    printed = ended(started(log, runs))
    (folder,) = runs.glob("*-*")
    return folder, printed


def test_one_process_writes_and_both_rank(whole):
    folder, printed = whole
    assert printed.count("CL4Rec") == 2  # the row of the table, and the folder
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["machine"]["processes"] == 2
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    again = load(folder).evaluate("test")
    assert again.metrics == pytest.approx(metrics["test"], abs=0)
    import pandas as pd

    assert np.array_equal(pd.read_parquet(folder / "ranks.parquet")["rank"], again.ranks)


def test_a_process_that_tells_how_the_run_ended_is_not_cut_short(monkeypatch):
    before = signal.signal(signal.SIGTERM, command.ended)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "has_the_word", lambda: os.kill(os.getpid(), signal.SIGTERM) is None)
    try:
        assert command.speaks()
    finally:
        signal.signal(signal.SIGTERM, before)


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
    (folder,) = tmp_path.glob("*-*")
    lines = [line for line in errors.splitlines() if "has ended" in line or "stopped by" in line]
    assert len(lines) == 1 and lines[0].startswith("seqcl: ") and f"--resume {folder}" in lines[0], errors
    if number == 1:
        ended(torchrun(RUN, "--resume", str(folder)))
        ours, theirs = (load_checkpoint(one / "checkpoints" / "last.safetensors")[0] for one in (folder, whole[0]))
        unused = ("random.numpy", "random.python")  # nothing draws from these, and nothing seeds them
        assert [name for name, value in theirs.items() if not torch.equal(ours[name], value)] in ([], list(unused))


def test_a_run_draws_what_it_draws_alone_whatever_was_trained_before(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.Counts, "draws", 7)
    chain = markov(users=30, items=20, length=8, branching=2, seed=1).interactions
    options = {"encoder": {"dim": 8}, "train": {"epochs": 1}, "eval": {"exclude_seen": False}}
    run = seqcl.train(chain, model="SASRec", runs=str(tmp_path), progress=False, **options)
    assert load_checkpoint(run.folder / "checkpoints" / "last.safetensors")[1]["random"]["own"] == 0


def test_another_configuration_on_one_process_is_named_by_its_first_line(monkeypatch):
    values = ["a: 1\nb: 2\n", "a: 1\nb: 3\n"]
    monkeypatch.setattr(processes.group, "count", lambda: 2)
    monkeypatch.setattr(
        processes.group.dist, "all_gather_object", lambda box, value: box.__setitem__(slice(None), values)
    )
    with pytest.raises(UserError, match="process 1 has another configuration than process 0: b: 3, not b: 2"):
        processes.check_same("configuration", values[0])


def test_ctrl_c_ends_the_step_on_all_processes_and_saves_it(log, tmp_path):
    process = started(log, tmp_path, epochs=4000)
    while not list(tmp_path.glob("*/checkpoints/previous.safetensors")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    (folder,) = tmp_path.glob("*-*")
    (line,) = [line for line in errors.splitlines() if line.startswith("seqcl: ")]
    step = load_checkpoint(folder / "checkpoints" / "last.safetensors")[1]["step"]
    assert "stopped by SIGINT in epoch" in line and f"after step {step};" in line and f"--resume {folder}" in line


def test_a_process_that_is_stopped_while_the_others_wait_for_it_is_told_once(log, tmp_path):
    script = tmp_path / "stopped.py"
    script.write_text(
        "import os, signal, sys\nfrom seqcl.cli.main import main\nfrom seqcl.experiment import job\n\n"
        "job.write_ranks = lambda *rest: os.kill(os.getpid(), signal.SIGTERM)\nsys.exit(main(['train', *sys.argv[1:]]))\n"
    )
    words = ["--dataset", str(log), "--runs", str(tmp_path / "runs"), "--train.epochs", "1"]
    process = torchrun(str(script), *SMALL.split(), *words)
    _, errors = process.communicate(timeout=60)
    (folder,) = (tmp_path / "runs").glob("*-*")
    lines = [line for line in errors.splitlines() if "stopped by" in line or "has ended" in line]
    assert lines == [f"seqcl: stopped by SIGTERM; go on with: --resume {folder}"]
