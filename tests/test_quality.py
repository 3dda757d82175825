"""The benchmark of quality: the ranks that it keeps of a run, and its comparisons."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import quality
from seqcl.cli.main import main as command

TINY = """
model: SASRec
dataset: markov
encoder: {dim: 8, layers: 1, heads: 1}
train: {epochs: 2, lr: 0.01, warmup: 0}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of configurations and of runs: tiny.yaml run with seed 0, and worse.yaml, learning less."""
    folder = tmp_path_factory.mktemp("quality")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "worse.yaml").write_text(TINY.replace("0.01", "0.000001"))
    for name in ("tiny", "worse"):
        to = ["--runs", str(folder / "runs" / name / "seed0")]
        assert command(["train", "--config", str(folder / f"{name}.yaml"), *to]) == 0
    return folder


@pytest.fixture
def inside(world, monkeypatch, tmp_path) -> Path:
    """The same, the folder being that of configurations."""
    monkeypatch.setattr(quality, "CONFIGS", world)
    monkeypatch.setattr(quality, "MEASURED", tmp_path / "measured")
    return world


def told(runs: Path, measured: bool = True) -> Namespace:
    return Namespace(runs=runs, measured=measured, threads=1)


def run_of(world: Path, name: str = "tiny") -> Path:
    return next((world / "runs" / name / "seed0").glob("*/metrics.json")).parent


def test_kept_figures_give_the_gains_of_all_ranks_and_of_their_slices(inside, tmp_path):
    file = str(inside / "tiny.yaml")
    made = quality.figures(file, 0, told(inside / "runs"), [])
    kept = quality.figures(file, 0, told(tmp_path / "nowhere"), [])  # not run again
    ranks = pd.read_parquet(run_of(inside) / "ranks.parquet")["rank"].to_numpy()
    expected = np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0)
    assert (ranks > quality.DEEPEST).any() and 0 < expected.mean() < 1
    for found in (made, kept):
        np.testing.assert_allclose(found.gains(), expected)
    assert kept.metrics == json.loads(json.dumps(made.metrics))
    assert str(inside) not in json.dumps(kept.config)
    whole = json.loads((run_of(inside) / "metrics.json").read_text())
    parts = quality.slices(file, [], made.protocol())
    assert (np.stack(list(parts.values())).sum(0) == 1).all()
    for name, rows in parts.items():
        of_slice = whole["slices"]["target_popularity"][name]["metrics"]["ndcg@10"]
        assert kept.gains()[rows].mean() == pytest.approx(of_slice)


def test_figures_of_other_options_or_other_data_are_refused(inside):
    file = str(inside / "tiny.yaml")
    quality.figures(file, 0, told(inside / "runs"), [])
    for measured in (True, False):
        with pytest.raises(SystemExit, match=r"another train\.lr \(0\.01, now 0\.5\)"):
            quality.figures(file, 0, told(inside / "runs", measured), ["--train.lr", "0.5"])
        with pytest.raises(SystemExit, match=r"another dataset \(markov, now markov-shuffled\)"):
            quality.figures(file, 0, told(inside / "runs", measured), ["--dataset", "markov-shuffled"])


def test_an_option_that_came_up_later_counts_as_its_default_and_one_that_is_gone_is_told(inside):
    words = ["--config", str(inside / "tiny.yaml"), "--seed", "0"]
    found = quality.Figures.of(run_of(inside))
    earlier = {**found.config, "encoder": {k: v for k, v in found.config["encoder"].items() if k != "activation"}}
    quality.check_same(dataclasses.replace(found, config=earlier), words, Path("somewhere"))
    gone = {**found.config, "encoder": {**found.config["encoder"], "colour": "red"}}
    with pytest.raises(SystemExit, match=r"somewhere was made with options that are no more.*colour"):
        quality.check_same(dataclasses.replace(found, config=gone), words, Path("somewhere"))


def benchmark(world: Path, monkeypatch, capsys, *words: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["quality.py", *words, "--seeds", "1", "--runs", str(world / "runs")])
    quality.main()
    return capsys.readouterr().out.splitlines()


def test_every_configuration_is_compared_with_the_last(inside, monkeypatch, capsys):
    tiny, worse = str(inside / "tiny.yaml"), str(inside / "worse.yaml")
    lines = benchmark(inside, monkeypatch, capsys, tiny, worse, "--measured")
    found = json.loads(lines[-1])
    difference = found["tiny"]["ndcg@10"]["mean"] - found["worse"]["ndcg@10"]["mean"]
    assert difference > 0.01
    ahead = found["tiny - worse, all"]
    assert ahead["difference"] == pytest.approx(difference) and ahead["seeds better"] == 1
    assert ahead["low"] < difference < ahead["high"] and ahead["p"] < 0.05
    assert [name for name in found if " - " in name] == [
        f"tiny - worse, {part}" for part in ("all", "head", "torso", "tail")
    ]
    assert sorted(path.name for path in quality.MEASURED.iterdir()) == ["tiny-0.parquet", "worse-0.parquet"]
    turned = json.loads(benchmark(inside, monkeypatch, capsys, worse, tiny, "--measured")[-1])
    assert turned["worse - tiny, all"]["difference"] == pytest.approx(-difference)


def test_two_protocols_are_not_compared(inside, monkeypatch, capsys):
    runs = inside / "runs" / "kept" / "seed0"
    shutil.copytree(inside / "runs" / "tiny" / "seed0", runs)
    folder = next(runs.glob("*/metrics.json")).parent
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["protocol"]["exclude_seen"] = not metrics["protocol"]["exclude_seen"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (inside / "kept.yaml").write_text(TINY)
    with pytest.raises(SystemExit, match="tiny, seed 0, has another exclude_seen"):
        benchmark(inside, monkeypatch, capsys, str(inside / "tiny.yaml"), str(inside / "kept.yaml"))


def test_what_is_measured_is_a_configuration_as_it_is(inside, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        benchmark(inside, monkeypatch, capsys, str(inside / "tiny.yaml"), "--measured", "--train.lr", "0.5")
    outside = tmp_path / "tiny.yaml"
    outside.write_text(TINY)
    with pytest.raises(SystemExit):
        benchmark(inside, monkeypatch, capsys, str(outside), "--measured")
    assert capsys.readouterr().err.count("--measured takes files in configs/ as they are") == 2


def test_a_configuration_is_named_by_its_place():
    names = {"configs/beauty-sasrec.yaml": "beauty-sasrec", "configs/papers/sasrec.yaml": "papers.sasrec"}
    for file, name in names.items():
        assert quality.name_of(str(quality.ROOT / file)) == name
    files = [str(quality.ROOT / file) for file in names]
    assert quality.name_of("+".join(files)) == "beauty-sasrec+papers.sasrec"


def test_every_kept_figure_is_of_its_configuration_as_it_is_now():
    assert kept()
    for name, runs in kept().items():
        configs = [quality.CONFIGS / f"{part.replace('.', '/')}.yaml" for part in name.split("+")]
        words = quality.options_of("+".join(map(str, configs)))
        for seed, run in enumerate(runs):
            alike = run.config == {**runs[0].config, "seed": seed} and run.metrics["data"] == runs[0].metrics["data"]
            if seed == 0 or not alike:  # the check is slow, and the same options on the same data pass it alike
                quality.check_same(run, [*words, "--seed", str(seed)], Path(f"{name}-{seed}"))


@functools.cache
def kept() -> dict[str, list[quality.Figures]]:
    """The kept ranks of every configuration, by seed, from 0 on."""
    found: dict[str, list[quality.Figures]] = {}
    for file in sorted(quality.MEASURED.glob("*.parquet")):
        found.setdefault(file.stem.rpartition("-")[0], []).append(quality.Figures.read(file))
    for name, runs in found.items():
        assert [run.metrics["seed"] for run in runs] == list(range(len(runs))), name
    return found


def test_heads_of_configurations_say_what_is_kept():
    for name, runs in kept().items():
        if "+" not in name:
            head = (quality.CONFIGS / f"{name.replace('.', '/')}.yaml").read_text()
            assert f"# Measured: {quality.summary(quality.row_of(runs))}, 20" in head, name


def test_the_tables_of_the_page_say_what_is_kept():
    lines = (quality.ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    every = {name: runs for name, runs in kept().items() if not {"+", "."} & set(name)}
    of_data = {runs[0].metrics["data"]["name"]: name for name, runs in every.items() if name.endswith("-sasrec")}
    for name, runs in every.items():
        row = quality.row_of(runs)
        prefix = of_data[row["data"]].removesuffix("sasrec")
        encoder = name.removeprefix(prefix).partition("-")[2] or "sasrec"  # cl4rec-bsarec is beside bsarec
        last = f"{prefix}{encoder}"
        recall, ndcg = (quality.spread(row[metric]) for metric in quality.SHOWN)
        cells = [ndcg, recall]
        if name != last and runs[0].metrics["training"] is not None:
            sides = {name: runs, last: every[last][: len(runs)]}
            found = quality.compared(name, last, sides, {"all": slice(None)})
            cells += quality.verdict(found[f"{name} - {last}, all"])[:2]
        rows = [line for line in lines if line.startswith(f"| {row['model']}")]
        end = f" | {quality.digits(row['valid ndcg@10'])} | `configs/{name}.yaml` |"
        assert any(f" | {' | '.join(cells)} |" in line and end in line for line in rows), (name, cells, end)


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.05968, ".0597", "+.0597"),
        (-0.0011, ".0011", "−.0011"),
        (1.0, "1.0000", "+1.0000"),
        (-1e-5, ".0000", "−.0000"),
    ],
)
def test_figures_are_written_as_in_the_tables(value, plain, signed):
    assert (quality.digits(value), quality.digits(value, signed=True)) == (plain, signed)


def test_a_verdict_names_a_small_p_as_such():
    found = {"difference": 0.0016, "low": -0.0009, "high": 0.0022, "seeds better": 3}
    told = [quality.verdict({**found, "p": p}) for p in (0.0004, 0.0061, 0.074, 0.4)]
    assert [chance for _, chance, _ in told] == ["< .001", ".006", ".07", ".40"]
    assert {(difference, ahead) for difference, _, ahead in told} == {("+.0016 [−.0009, +.0022]", "3")}
