"""Kept results: what a file holds of a run, and that every file, head and table says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from docs import figures
from seqcl.cli.main import main
from seqcl.config import experiment, resolve
from seqcl.errors import UserError
from seqcl.evaluation import compare, row_metric
from seqcl.experiment import kept
from seqcl.experiment.compare import compare_runs
from seqcl.experiment.finished import Finished, figures_of

FILES = sorted(figures.MEASURED.rglob("*.parquet"))
SEEDS: dict[str, int] = {
    "beauty-bsarec": 1,
    "beauty-casr": 1,
    "beauty-cclrec": 1,
    "beauty-dimrec": 1,
    "beauty-distil": 1,
    "beauty-infominrec": 1,
    "beauty-instancerec": 1,
    "beauty-loocrec": 1,
    "beauty-marginrec": 2,
    "beauty-mminforec": 1,
    "beauty-mocov3rec": 1,
    "beauty-sglrec": 1,
    "beauty-simclrv2rec": 1,
    "lastfm/SASRec": 5,
    "lastfm/TwoTower": 5,
    "lastfm/TwoTower-without-contrast": 5,
}
"""Seeds of configurations that have not three, below their folder where it is one of their own."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in the rate of learning."""
    folder = tmp_path_factory.mktemp("runs")
    small = [
        "--dataset",
        "markov",
        "--encoder.dim",
        "8",
        "--encoder.layers",
        "1",
        "--encoder.heads",
        "1",
        "--train.epochs",
        "2",
    ]
    for lr in ("0.01", "0.0001"):
        words = ["train", "--model", "SASRec", *small, "--train.warmup", "0", "--train.lr", lr]
        assert main([*words, "--runs", str(folder / lr)]) == 0
    return [next((folder / lr).glob("*-*")) for lr in ("0.01", "0.0001")]


def test_a_kept_file_is_compared_as_its_run(runs, tmp_path, capsys):
    files = [tmp_path / f"{place}.parquet" for place in range(2)]
    for run, file in zip(runs, files, strict=True):
        kept.keep(Finished.read(run), file, key="key")
        assert Finished.read(run).options == Finished.read(file).options  # so that seeds of both kinds are one row
        assert file.stat().st_size < 60_000 and str(run.parent) not in json.dumps(kept.read(file)[0])
    whole, small = compare_runs(runs), compare_runs(files)
    beside = compare_runs([runs[0], files[1]])
    for ours in (small, beside):
        for one, other in zip(whole.records(), ours.records(), strict=True):
            assert {**one, "name": ""} == pytest.approx({**other, "name": ""})
    assert whole.rows[1].difference.difference != 0 and whole.rows[1].slices.keys() >= {"head items", "tail items"}
    with pytest.raises(UserError, match="keeps ranks of at most 20, so nothing is known of ndcg@21"):
        compare_runs(files, metric="ndcg@21")
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, files), "--html", str(page)]) == 0
    assert "encoder:" in page.read_text(encoding="utf-8")


def test_what_is_no_kept_file_is_refused(tmp_path, capsys):
    missing, other, text = (tmp_path / f"{name}.parquet" for name in ("missing", "other", "text"))
    pq.write_table(pa.table({"row": [1]}), other)
    text.write_text("row")
    for file in (missing, other, text):
        assert main(["compare", str(file), str(file)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all("kept results" in line for line in said)


def configurations():
    """The resolved configuration of each row of a benchmark whose files have a folder of their own, by folder and name of the file."""
    found = {}
    for folder in (one for one in figures.MEASURED.iterdir() if one.is_dir()):
        grid = figures.benchmarks()[folder.name]
        for row in grid.rows():
            name = row.name.replace(" ", "-") if len(grid.data) == 1 else f"{row.data}-{row.name}"
            found[folder.name, name] = row.experiment
    return found


def test_every_kept_file_is_of_its_configuration_as_it_is_now():
    names = {}
    figures_once = cache(lambda config: figures_of(experiment(json.loads(config), stored=True).flat))
    for file in FILES:
        about, ranks = kept.read(file)
        assert row_metric("ndcg@10", ranks).mean() == pytest.approx(about["metrics"]["test"]["ndcg@10"])
        name, _, seed = file.stem.rpartition("-")
        assert about["metrics"]["seed"] == int(seed) == about["config"]["seed"]
        first = names.setdefault((file.parent.name, name), about)
        theirs, ours = (json.dumps(one["config"] | {"seed": 0}) for one in (first, about))
        assert figures_once(theirs) == figures_once(ours), file  # an option that came later has its default
        assert about["metrics"]["data"] == first["metrics"]["data"]
    counted = [name for name, about in names.items() if about["metrics"]["training"] is None]  # once for all seeds
    told = {name: name[1] if name[0] == figures.MEASURED.name else "/".join(name) for name in names}
    seeds = {name: 1 if name in counted else SEEDS.get(told[name], 3) for name in names}
    assert len(FILES) == sum(seeds.values()) and len(names) > 30
    harder = configurations()
    for (folder, name), about in names.items():
        own = folder != figures.MEASURED.name
        now = harder[folder, name] if own else resolve(["--config", str(figures.CONFIGS / f"{name}.yaml")])
        assert figures_once(json.dumps(about["config"] | {"seed": 0})) == figures_of(now.flat), name
        assert about["config"]["dataset"] == now.options.dataset


def test_a_row_is_beside_its_plain_form_as_a_benchmark_has_it():
    grid = figures.benchmarks()["beauty"]
    names = ["beauty-sasrec", "beauty-taprec", "beauty-cl4rec", "beauty-cl4rec-taprec"]
    few = replace(grid, models=[model for model in grid.models if model.name in names])
    found = {row.name: row.plain.name for row in few.rows() if row.plain}
    assert found == {name: figures.base_of(name, "beauty") for name in ("beauty-cl4rec", "beauty-cl4rec-taprec")}
    assert [figures.base_of(name, "beauty") for name in ("beauty-sasrec", "beauty-taprec", "beauty-s3rec")] == [
        None,
        "beauty-sasrec",
        "beauty-sasrec",
    ]


def test_heads_of_configurations_say_what_is_kept():
    for benchmark in ("beauty", "sports"):
        for name, runs in figures.kept_of(benchmark).items():
            head = (figures.CONFIGS / f"{name}.yaml").read_text()
            assert f"# Measured: {figures.summary(figures.row_of(runs))}, 20" in head, name


def test_the_tables_of_the_page_say_what_is_kept():
    lines = (figures.ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    for benchmark in ("beauty", "sports"):
        every = figures.kept_of(benchmark)
        for name, runs in every.items():
            row = figures.row_of(runs)
            encoder = name.removeprefix(f"{benchmark}-").partition("-")[2] or "sasrec"  # cl4rec-taprec is beside taprec
            recall, ndcg = (figures.spread(row[metric]) for metric in figures.SHOWN)
            cells = [ndcg, recall]
            if name != f"{benchmark}-sasrec" and runs[0].metrics["training"] is not None:
                theirs = every[f"{benchmark}-{encoder}"]
                test = compare([run.gains() for run in runs], [run.gains() for run in theirs[: len(runs)]])
                found = {"low": test.low, "high": test.high, "p": test.p_value, "seeds better": test.seeds_better}
                cells += figures.verdict({"difference": test.difference, **found})[:2]
            rows = [line for line in lines if line.startswith(f"| {row['model']}")]
            end = f" | {figures.digits(row['valid ndcg@10'])} | `seqcl benchmark configs/benchmarks/{benchmark}.yaml --only {name}` |"
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
    assert (figures.digits(value), figures.digits(value, signed=True)) == (plain, signed)


def test_a_verdict_names_a_small_p_as_such():
    found = {"difference": 0.0016, "low": -0.0009, "high": 0.0022, "seeds better": 3}
    told = [figures.verdict({**found, "p": p}) for p in (0.0004, 0.0061, 0.074, 0.4)]
    assert [chance for _, chance, _ in told] == ["< .001", ".006", ".07", ".40"]
    assert {(difference, ahead) for difference, _, ahead in told} == {("+.0016 [−.0009, +.0022]", "3")}
