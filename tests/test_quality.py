"""What the benchmark of quality keeps of a run, and compares."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import seqcl
from benchmarks import quality

CONFIG = """
model: SASRec
dataset: markov
encoder: {dim: 8, layers: 1, heads: 1}
train: {epochs: 1}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A configuration and the folder of runs that holds one of it."""
    folder = tmp_path_factory.mktemp("quality")
    file = folder / "tiny.yaml"
    file.write_text(CONFIG)
    runs = folder / "runs"
    small = {"encoder": {"dim": 8, "layers": 1, "heads": 1}, "train": {"epochs": 1}}
    seqcl.train("markov", model="SASRec", runs=str(runs / "tiny" / "seed0"), progress=False, **small)
    return file, runs


def told(runs: Path, measured: bool) -> Namespace:
    return Namespace(runs=runs, measured=measured, threads=1)


def test_kept_figures_give_the_gains_of_all_ranks(measured, monkeypatch, tmp_path):
    file, runs = measured
    monkeypatch.setattr(quality, "MEASURED", tmp_path / "measured")
    made = quality.figures(str(file), 0, told(runs, True), [])
    kept = quality.figures(str(file), 0, told(tmp_path / "nowhere", True), [])  # not run again
    ranks = pd.read_parquet(next(runs.glob("tiny/seed0/*/ranks.parquet")))["rank"].to_numpy()
    expected = np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0)
    assert (ranks > quality.DEEPEST).any() and 0 < expected.mean() < 1
    for found in (made, kept):
        np.testing.assert_allclose(found.gains(), expected)
        assert found.metrics["test"]["ndcg@10"] == pytest.approx(expected.mean())
    assert kept.metrics == json.loads(json.dumps(made.metrics))


def test_figures_of_other_options_are_refused(measured, monkeypatch, tmp_path):
    file, runs = measured
    monkeypatch.setattr(quality, "MEASURED", tmp_path / "measured")
    quality.figures(str(file), 0, told(runs, True), [])
    for measured_too in (True, False):
        with pytest.raises(SystemExit, match=r"another train\.lr \(0\.\d+, now 0\.5\)"):
            quality.figures(str(file), 0, told(runs, measured_too), ["--train.lr", "0.5"])


def test_every_kept_figure_is_of_its_configuration():
    files = sorted(quality.MEASURED.glob("*.parquet"))
    assert files
    for file in files:
        name, _, seed = file.stem.rpartition("-")
        parts = [str(next(quality.ROOT.glob(f"configs/**/{part}.yaml"))) for part in name.split("+")]
        words = [word for path in parts for word in ("--config", path)]
        quality.check_same(quality.Figures.read(file).config, [*words, "--seed", seed], file)


def test_slices_of_the_targets_are_apart_and_whole(measured):
    parts = quality.slices(str(measured[0]), [])
    assert list(parts) == ["head", "torso", "tail"]
    assert (np.stack(list(parts.values())).sum(0) == 1).all()
