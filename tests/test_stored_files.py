"""Files of runs and bundles: changed ones are refused, what a kill left is swept, and one process trains a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqcl
from seqcl import config, disk
from seqcl.cli.main import main
from seqcl.errors import Diverged, UserError
from seqcl.experiment import execute
from seqcl.experiment.folder import new_folder, only_one
from seqcl.retrieval.bundle import Bundle
from seqcl.training import load_checkpoint, save_checkpoint

VALUES: dict[str, Any] = {
    "model": "SASRec",
    "encoder": {"dim": 8, "layers": 1},
    "data": {"max_len": 5},
    "train": {"epochs": 2, "batch_size": 512},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> seqcl.Run:
    return seqcl.train("markov", progress=False, runs=str(tmp_path_factory.mktemp("runs")), **VALUES)


@pytest.fixture
def run(done: seqcl.Run, tmp_path: Path) -> Path:
    """A copy of the run's folder."""
    subprocess.run(["cp", "-r", done.folder, tmp_path / "run"], check=True)
    return tmp_path / "run"


@pytest.fixture
def bundle(done: seqcl.Run, tmp_path: Path) -> Path:
    return done.export(tmp_path / "bundle", index="hnsw")


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def within(seconds: float, work: Callable[[], Any]) -> BaseException | None:
    """The error of some work that must end in so many seconds."""
    found: list[BaseException | None] = []

    def tried() -> None:
        try:
            work()
            found.append(None)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, f"it has not ended after {seconds} s"
    return found[0]


def test_every_byte_of_an_index_counts(bundle: Path) -> None:
    whole = (bundle / "index.faiss").read_bytes()
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        flipped(bundle / "index.faiss", int(place))
        with pytest.raises(UserError, match=r"index\.faiss is not the file that was exported"):
            Bundle(bundle)
        (bundle / "index.faiss").write_bytes(whole)
    assert Bundle(bundle).recommend([1, 2])


def test_a_manifest_that_hides_a_file_or_tells_other_sizes_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    without = {name: known for name, known in manifest["files"].items() if name != "index.faiss"}
    outside = {**manifest["files"], "../run": "0"}
    wrong: list[dict[str, Any]] = [{"files": without}, {"files": outside}, {"files": []}, {"items": 7}, {"dim": 3}]
    wrong += [{"query": {**manifest["query"], key: 10**9}} for key in ("num_items", "longest")]
    wrong += [{"query": {**manifest["query"], "options": {**manifest["query"]["options"], "dim": 10**8}}}]
    for one in wrong:
        (bundle / "manifest.json").write_text(json.dumps(manifest | one))
        with pytest.raises(UserError):
            Bundle(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "index.faiss", "index.json", "item_ids.npy", "query.safetensors"])
def test_a_pipe_in_a_bundle_does_not_hang(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    assert isinstance(within(20, lambda: Bundle(bundle)), UserError)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "plugins.json", "checkpoints/best.safetensors"])
def test_a_pipe_in_a_run_does_not_hang(run: Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    error = within(20, lambda: seqcl.load(run))
    assert isinstance(error, UserError) or (name == "metrics.json" and error is None)


def test_weights_that_are_no_numbers_are_said_to_be(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "best.safetensors"
    tensors, state = load_checkpoint(path)
    save_checkpoint(path, {name: torch.full_like(one, torch.nan) for name, one in tensors.items()}, state)
    for words in (["evaluate", run], ["recommend", run, "--items", "1,2"], ["export", run, run / "out"]):
        assert main([str(word) for word in words]) == 2
        assert "holds a value that is not finite" in capsys.readouterr().err
    with pytest.raises(Diverged):
        seqcl.load(run)


@pytest.mark.parametrize("rate", [1e8, 1e20, 1e38])
def test_a_run_whose_steps_break_its_weights_diverges(tmp_path: Path, rate: float) -> None:
    steps = {"epochs": 2, "batch_size": 4096, "lr": rate, "warmup": 0}
    options = VALUES | {"train": steps, "data": {"max_len": 5, "windows": "last"}}  # one step an epoch
    with pytest.raises(Diverged):
        seqcl.train("markov", progress=False, runs=str(tmp_path), **options)


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_flipped_bit_of_a_checkpoint_is_refused_and_the_one_before_it_offered(run: Path, name: str) -> None:
    path = run / "checkpoints" / f"{name}.safetensors"
    flipped(path, path.stat().st_size - 3)
    experiment = replace_epochs(run, 3)
    with pytest.raises(UserError, match=r"is not as it was written .* has another hash"):
        execute(experiment, resume=run, progress=False) if name == "last" else seqcl.load(run)
    if name == "last":
        with pytest.raises(UserError, match=r"the checkpoint before it is previous\.safetensors"):
            execute(experiment, resume=run, progress=False)
        (run / "checkpoints" / "previous.safetensors").replace(path)
        assert execute(experiment, resume=run, progress=False).metrics["training"]["epochs"] == 3


def replace_epochs(run: Path, epochs: int) -> config.Experiment:
    return config.of_run(run, ["--train.epochs", str(epochs)])


def test_a_state_of_another_shape_is_refused_and_a_checkpoint_without_hashes_is_read(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = run / "checkpoints" / "last.safetensors"
    tensors, (_, state) = load_file(path), load_checkpoint(path)
    wrong: list[Any] = [[], {}, 3, None, state | {"meter": 3}, state | {"history": [3]}, state | {"best": "x"}]
    wrong += [{key: value for key, value in state.items() if key != gone} for gone in ("batches", "random", "epoch")]
    experiment = replace_epochs(run, 3)
    for one in [*wrong, state]:
        text = {"format": "seqcl-checkpoint-1", "state": json.dumps(one)}
        save_file(tensors, path, text)
        if one is state:
            assert execute(experiment, resume=run, progress=False).metrics["training"]["epochs"] == 3
        else:
            with pytest.raises(UserError, match=r"is not as it was written|was made"):
                execute(experiment, resume=run, progress=False)


def test_a_cut_metrics_json_hinders_no_recommendation(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("{", "[]", "[" * 100_000, '{"a": ' + "1" * 5000 + "}"):
        (run / "metrics.json").write_text(text)
        assert seqcl.load(run).recommend(items=[1, 2]) and "metrics.json" in caplog.text


def test_what_a_killed_writer_left_is_swept_by_resumption_and_by_the_next_export(run: Path, tmp_path: Path) -> None:
    left = [run / "checkpoints" / ".tmpAbC123", run / "checkpoints" / f"{disk.PART}1", run / f"{disk.PART}2"]
    for path in left:
        path.write_bytes(b"half")
    execute(replace_epochs(run, 3), resume=run, progress=False)
    assert not any(path.exists() for path in left)
    program = (
        "import sys, time; from pathlib import Path; from seqcl.disk import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('x'); print('begun', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "other")], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline().strip() == b"begun"
    with disk.whole_folder(tmp_path / "first"):
        pass
    assert len(list(tmp_path.glob(f"{disk.PART}*"))) == 1  # its writer lives
    writer.kill()
    writer.wait()
    writer.stdout.close()
    with disk.whole_folder(tmp_path / "second"):
        pass
    assert not list(tmp_path.glob(f"{disk.PART}*"))


def test_runs_that_start_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(new_folder(tmp_path, "x"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16


def test_one_process_goes_on_with_a_run_and_a_killed_one_holds_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys, time; from pathlib import Path; from seqcl.experiment.folder import only_one\n"
        "with only_one(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(run)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline().strip() == b"held"
    assert main(["train", "--resume", str(run), "--train.epochs", "3"]) == 2
    assert "another process trains this run" in capsys.readouterr().err
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with only_one(run):
        pass


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_every_file_of_a_run_follows_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        run = seqcl.train("markov", progress=False, runs=str(tmp_path), **VALUES | {"train": {"epochs": 1}})
        run.export(run.folder / "out", index="flat")
    finally:
        os.umask(before)
    modes = {
        path.relative_to(run.folder): path.stat().st_mode & 0o777 for path in run.folder.rglob("*") if path.is_file()
    }
    assert set(modes.values()) == {0o666 & ~mask}, modes


def test_another_number_of_threads_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads, path = torch.get_num_threads(), run / "checkpoints" / "last.safetensors"
    tensors, state = load_checkpoint(path)
    assert state["threads"] == threads
    save_checkpoint(path, tensors, state | {"threads": threads + 1})
    execute(replace_epochs(run, 3), resume=run)
    assert capsys.readouterr().err.count(f"trained on {threads + 1} threads and goes on with {threads}") == 1
    assert f"OMP_NUM_THREADS={threads + 1}" in (run / "log.txt").read_text()
