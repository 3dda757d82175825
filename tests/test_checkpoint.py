"""Checkpoints: whole or absent, and a resumed run is the uninterrupted one."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqcl.disk import PART
from seqcl.errors import UserError
from seqcl.training import CheckpointError, Interrupted, load_checkpoint, load_weights, save_checkpoint
from seqcl.training.history import write_csv
from seqcl.training.random_states import random_states, set_random_states
from tests.tiny_training import IDENTITY, TRAINER, TinyLoader, TinyModel, final, plain, timeless, train

STEPS = TRAINER.epochs * len(TinyLoader())


def stop_after(step: int) -> Callable[[int, int], None]:
    """Send this process SIGTERM when the loader is asked for the batch of step `step`."""

    def before(epoch: int, batch: int) -> None:
        if epoch * len(TinyLoader()) + batch + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return before


def interrupted(folder: Path, step: int, **options: Any) -> None:
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(folder, before=stop_after(step), **options)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TinyModel, dict[str, Tensor], list[dict[str, float]], Path]:
    """An uninterrupted run: its model, its last checkpoint, its history and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    model, result = train(folder)
    return model, final(folder), timeless(result), folder


@pytest.mark.parametrize("step", [1, 4, 6, 7, 12, 17])
def test_a_run_stopped_in_or_at_the_end_of_an_epoch_resumes_bit_for_bit(whole: Any, tmp_path: Path, step: int) -> None:
    interrupted(tmp_path, step)
    model, result = train(tmp_path, resume=True)
    assert_same(final(tmp_path), whole[1])
    assert_same(dict(model.state_dict()), dict(whole[0].state_dict()))
    assert timeless(result) == whole[2]


def test_a_run_stopped_after_every_step_still_resumes_bit_for_bit(whole: Any, tmp_path: Path) -> None:
    interrupted(tmp_path, 1)
    for step in range(2, STEPS):
        interrupted(tmp_path, step, resume=True)
    _, result = train(tmp_path, resume=True)
    assert_same(final(tmp_path), whole[1])
    assert timeless(result) == whole[2]


def test_a_run_stopped_while_it_validates_resumes_bit_for_bit(whole: Any, tmp_path: Path) -> None:
    model = TinyModel()

    def validate() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return model.score()

    with pytest.raises(Interrupted):
        TRAINER.fit(model, TinyLoader(), validate=validate, folder=tmp_path, identity=IDENTITY, progress=False)
    _, result = train(tmp_path, resume=True)
    assert_same(final(tmp_path), whole[1])
    assert timeless(result) == whole[2]


def test_history_csv_of_a_resumed_run_has_each_epoch_once(whole: Any, tmp_path: Path) -> None:
    interrupted(tmp_path, 15)
    train(tmp_path, resume=True)
    lines = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4"]


def test_early_stopping_counts_on_after_a_break(tmp_path: Path) -> None:
    trainer = plain(epochs=9, patience=4)
    values = [0.5, 0.4, 0.3, 0.45, 0.2, 0.1, 0.1, 0.1, 0.1]

    def validate() -> dict[str, float]:
        return {"ndcg@10": values[next(calls)]}

    calls = iter(range(9))
    with pytest.raises(Interrupted):
        train(tmp_path, trainer=trainer, validate=validate, before=stop_after(3 * 6 + 2))
    _, result = train(tmp_path, trainer=trainer, validate=validate, resume=True)
    assert (result.stopped, result.epochs, result.best, result.best_epoch) == ("patience", 5, 0.5, 1)


def test_a_finished_run_given_more_epochs_goes_on_as_if_it_had_had_them(tmp_path: Path) -> None:
    short, long = plain(epochs=2, ema=0.9), plain(epochs=4, ema=0.9)
    train(tmp_path / "a", trainer=short)
    train(tmp_path / "a", trainer=long, resume=True)
    train(tmp_path / "b", trainer=long)
    assert_same(final(tmp_path / "a"), final(tmp_path / "b"))


def start(*command: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, *command], env=environment)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)


def test_a_run_killed_with_signal_9_resumes_from_its_newest_whole_checkpoint(whole: Any, tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last.safetensors"
    steps = [0]
    for mode in ("new", "resume"):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start("-m", "tests.tiny_training", str(tmp_path), mode)
        wait_for(lambda before=before: last.exists() and last.stat().st_mtime_ns != before, process)  # type: ignore[misc]
        time.sleep(0.1)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        steps.append(load_checkpoint(last)[1]["step"])
    assert 0 < steps[1] < steps[2] < STEPS
    train(tmp_path, resume=True)
    assert_same(final(tmp_path), whole[1])


def test_at_every_moment_of_writing_a_whole_checkpoint_is_there(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    process = start(
        "-c",
        "import sys, itertools, pathlib, torch; from seqcl.training import save_checkpoint\n"
        "for number in itertools.count():\n"
        "    save_checkpoint(pathlib.Path(sys.argv[1]), {'x': torch.full((300_000,), number)}, {'number': number})",
        str(path),
    )
    try:
        wait_for(path.exists, process)
        numbers, unfinished = [], 0
        for _ in range(40):
            time.sleep(random.uniform(0, 0.01))
            # What a stopped process has on disk is what a killed one would leave.
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            tensors, state = load_checkpoint(path)
            assert torch.equal(tensors["x"], torch.full((300_000,), state["number"]))
            numbers.append(state["number"])
            unfinished += any(tmp_path.glob(PART + "*"))
            process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
        process.wait()
    assert unfinished > 0, "no stop fell into the writing"
    assert numbers == sorted(numbers) and numbers[-1] > numbers[0]


def test_the_best_weights_survive_a_crash_between_the_two_files(tmp_path: Path) -> None:
    from seqcl.training import saver

    def crash(path: Path, *rest: Any) -> None:
        if path.name == "best.safetensors":
            raise MemoryError
        save_checkpoint(path, *rest)

    def falling() -> Callable[[], dict[str, float]]:
        values = iter([0.3, 0.2])
        return lambda: {"ndcg@10": next(values)}

    first_is_best = falling()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(saver, "save_checkpoint", crash)
        train(tmp_path / "crashed", validate=first_is_best)
    assert not (tmp_path / "crashed" / "checkpoints" / "best.safetensors").exists()
    model, _ = train(tmp_path / "crashed", validate=first_is_best, resume=True)
    uncut, result = train(tmp_path / "uncut", validate=falling())
    assert result.best_epoch == 2
    assert_same(dict(model.state_dict()), dict(uncut.state_dict()))


def test_what_a_killed_process_left_unfinished_is_removed_on_resumption(whole: Any, tmp_path: Path) -> None:
    interrupted(tmp_path, 9)
    left = tmp_path / "checkpoints" / f"{PART}0"
    left.write_bytes(b"half of a checkpoint")
    train(tmp_path, resume=True)
    assert not left.exists()
    assert_same(final(tmp_path), whole[1])


def test_a_full_disk_leaves_the_old_history_whole_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_csv([{"epoch": 1}], tmp_path / "history.csv")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"could not write .*history\.csv: No space left on device"):
        write_csv([{"epoch": 1}, {"epoch": 2}], tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text(encoding="utf-8") == "epoch\n1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


def test_what_is_written_comes_back_exactly(tmp_path: Path) -> None:
    table = torch.randn(3, 4)
    tensors = {
        "table": table,
        "tied": table,
        "view": table[1:],
        "transposed": torch.randn(4, 5).T,
        "half": torch.randn(2).bfloat16(),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 2),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    save_checkpoint(tmp_path / "a.safetensors", tensors, {"best": None, "share": 0.1 + 0.2, "list": [1, {"x": 2}]})
    found, state = load_checkpoint(tmp_path / "a.safetensors")
    assert_same(found, tensors)
    assert all(found[name].dtype == tensors[name].dtype for name in tensors)
    assert state == {"best": None, "share": 0.1 + 0.2, "list": [1, {"x": 2}]}


@pytest.mark.parametrize("moment", ["write", "sync"])
def test_a_full_disk_leaves_the_old_checkpoint_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"x": torch.ones(10)}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if moment == "write":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    else:

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    try:
        with pytest.raises(CheckpointError, match=r"could not write .*the checkpoint before it is whole"):
            save_checkpoint(path, {"x": torch.ones(1_000_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(load_checkpoint(path)[0]["x"], torch.ones(10))
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_random_states_come_back_so_that_the_next_draws_are_the_same() -> None:
    def draws() -> list[float]:
        return [torch.rand(()).item(), torch.randn(()).item(), np.random.normal(), random.gauss(0, 1), random.random()]

    draws()
    tensors, numbers = random_states(torch.device("cpu"))
    numbers = json.loads(json.dumps(numbers))
    first = draws()
    draws()
    set_random_states(tensors, numbers, torch.device("cpu"))
    assert draws() == first


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({**IDENTITY, "data_fingerprint": "xyz"}, "data_fingerprint is 'abc' in the checkpoint, 'xyz' now"),
        ({**IDENTITY, "num_items": 21}, "num_items is 20 in the checkpoint, 21 now"),
    ],
)
def test_a_checkpoint_of_other_data_is_refused_with_what_differs(
    whole: Any, identity: dict[str, Any], message: str
) -> None:
    folder = whole[3]
    with pytest.raises(CheckpointError, match=message):
        train(folder, resume=True, identity=identity)
    with pytest.raises(CheckpointError, match=message):
        load_weights(TinyModel(), folder / "checkpoints" / "best.safetensors", identity=identity)


def test_a_checkpoint_of_another_model_is_refused_with_names_and_shapes(whole: Any) -> None:
    model = TinyModel()
    model.encoder.layer = nn.Linear(9, 8)
    model.objective.head = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(CheckpointError) as error:
        load_weights(model, whole[3] / "checkpoints" / "best.safetensors")
    assert "encoder.layer.weight is (8, 8) in the checkpoint, (8, 9) in the model" in str(error.value)
    assert "objective.head.bias is not in the model and 1 more" in str(error.value)


def test_a_run_with_other_batches_or_without_its_average_is_not_resumed(whole: Any) -> None:
    class Fewer(TinyLoader):
        def __len__(self) -> int:
            return 5

    model, folder = TinyModel(), whole[3]
    with pytest.raises(CheckpointError, match=r"6 batches an epoch, there are 5 now.*train\.batch_size"):
        TRAINER.fit(model, Fewer(), folder=folder, identity=IDENTITY, resume=True, progress=False)
    with pytest.raises(CheckpointError, match=r"train\.ema on"):
        train(folder, trainer=replace(TRAINER, ema=0.0), resume=True)


def test_a_file_that_is_no_whole_checkpoint_is_refused_by_name(whole: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    content = (whole[3] / "checkpoints" / "best.safetensors").read_bytes()
    path = tmp_path / "best.safetensors"
    for wrong in (b"", content[: len(content) // 2], content[:100], b"x" * 1000):
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError, match=r"best\.safetensors is not a whole checkpoint"):
            load_checkpoint(path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="has the format 'unknown'"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_a_new_run_does_not_overwrite_an_old_one(whole: Any) -> None:
    with pytest.raises(CheckpointError, match="is there already"):
        train(whole[3])


def test_there_is_nothing_to_resume_without_a_folder_or_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without a folder"):
        train(None, resume=True)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        train(tmp_path, resume=True)


def test_learned_biases_of_version_0_1_0_are_read_under_their_new_name(tmp_path):
    import seqcl
    from seqcl.training.checkpoint import load_checkpoint, load_weights, save_checkpoint

    values = {"data": {"windows": "last"}, "encoder": {"dim": 8}, "train": {"epochs": 1}, "next_item": {"bias": True}}
    run = seqcl.train("markov", model="SASRec", runs=str(tmp_path), progress=False, **values)
    for file in ("best", "last"):
        path = run.folder / "checkpoints" / f"{file}.safetensors"
        tensors, state = load_checkpoint(path)
        old = {name.replace("next_item.scoring.bias", "next_item.bias"): one for name, one in tensors.items()}
        assert old.keys() != tensors.keys()
        save_checkpoint(path, old, state)
    again = run.experiment.build(run.split.train, fresh=False)
    load_weights(again, run.folder / "checkpoints" / "best.safetensors")
    assert torch.equal(again.objective.scoring.bias, run.model.objective.scoring.bias)
    (run.folder / "metrics.json").unlink()
    from seqcl.experiment import execute

    resumed = execute(run.experiment, resume=run.folder, progress=False)
    assert resumed.metrics["test"] == run.metrics["test"]
