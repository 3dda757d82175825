"""`seqcl compare`: seeds are pooled, differences have intervals, other protocols are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import seqcl
import seqcl.plugins
from seqcl.cli.compare import sheet_of
from seqcl.cli.main import main
from seqcl.data import Sequences, markov
from seqcl.errors import UserError
from seqcl.evaluation import compare, holm, row_metric
from seqcl.experiment import kept
from seqcl.experiment.compare import compare_runs, names
from seqcl.experiment.finished import Finished
from seqcl.report.drawings import colour, draw_time, mark
from seqcl.report.page import Details, cell, drawings, write_page
from seqcl.report.table import chance
from tests import processes

pytestmark = pytest.mark.once

SMALL = {"encoder": {"dim": 8}, "eval": {"exclude_seen": False}, "train": {"epochs": 3, "lr": 0.01, "warmup": 0}}
LOG = markov(users=120, items=30, length=8, branching=2, seed=1).interactions


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of two models and one of a third, by name and seed."""
    folder = str(tmp_path_factory.mktemp("runs"))
    wanted = [("CL4Rec", 0), ("CL4Rec", 1), ("SASRec", 0), ("SASRec", 1), ("GRU4Rec", 0)]
    made = {
        (model, seed): seqcl.train(LOG, model=model, seed=seed, runs=folder, progress=False, **SMALL)
        for model, seed in wanted
    }
    return {key: run.folder for key, run in made.items()}


def gains(folder):
    return row_metric("ndcg@10", pd.read_parquet(folder / "ranks.parquet")["rank"].to_numpy())


def test_seeds_of_one_configuration_are_one_row_and_the_last_run_is_the_baseline(runs):
    found = compare_runs(
        [runs["CL4Rec", 1], runs["CL4Rec", 0], runs["GRU4Rec", 0], runs["SASRec", 0], runs["SASRec", 1]]
    )
    assert found.baseline == "SASRec"
    rows = {row.side.name: row for row in found.rows}
    assert list(rows) == ["SASRec", *sorted(("CL4Rec", "GRU4Rec"), key=lambda name: -rows[name].mean)]
    assert rows["CL4Rec"].side.seeds == [0, 1]
    ours, theirs = ([gains(runs[model, seed]) for seed in (0, 1)] for model in ("CL4Rec", "SASRec"))
    assert rows["CL4Rec"].mean == pytest.approx(np.mean(ours))
    assert rows["CL4Rec"].deviation == pytest.approx(np.std([one.mean() for one in ours], ddof=1))
    assert rows["CL4Rec"].difference == compare(ours, theirs)
    alone = compare([gains(runs["GRU4Rec", 0])], theirs[:1])  # over the seed that both have
    assert rows["GRU4Rec"].difference == alone
    corrected = holm([rows["CL4Rec"].difference.p_value, alone.p_value])
    assert [rows["CL4Rec"].holm, rows["GRU4Rec"].holm] == pytest.approx(corrected)
    apart = np.mean(ours, 0) - np.mean(theirs, 0)
    assert rows["CL4Rec"].effect == pytest.approx(apart.mean() / apart.std(ddof=1))
    apart = gains(runs["GRU4Rec", 0]) - theirs[0]
    assert rows["GRU4Rec"].effect == pytest.approx(apart.mean() / apart.std(ddof=1))


def test_targets_of_one_user_are_no_independent_rows(tmp_path):
    several = {**SMALL, "data": {"split": "temporal", "targets": "all"}}
    words = {"runs": str(tmp_path), "progress": False, **several}
    made = [seqcl.train(LOG, model=model, **words).folder for model in ("CL4Rec", "SASRec")]
    row = compare_runs(made).rows[1]
    users = pd.read_parquet(made[0] / "ranks.parquet")["user"].to_numpy()
    assert len(np.unique(users)) < len(users)
    ours, theirs = (gains(folder) for folder in made)
    assert row.difference == compare([ours], [theirs], users=users)
    assert row.difference.p_value != pytest.approx(compare([ours], [theirs]).p_value)


def test_options_that_are_newer_than_a_run_have_their_defaults(runs):
    older, file = runs["CL4Rec", 0], runs["CL4Rec", 0] / "config.yaml"
    text = file.read_text()
    assert "  compile: false\n" in text
    try:
        file.write_text(text.replace("  compile: false\n", ""))
        found = compare_runs([older, runs["CL4Rec", 1], runs["SASRec", 0]])
    finally:
        file.write_text(text)
    assert [row.side.name for row in found.rows] == ["SASRec", "CL4Rec"] and found.rows[1].side.seeds == [0, 1]


def test_runs_without_a_common_seed_are_compared_and_it_is_said(runs, capsys):
    assert main(["compare", str(runs["CL4Rec", 1]), str(runs["SASRec", 0])]) == 0
    assert "CL4Rec has seed 1 and SASRec has seed 0: none in common, so they are paired" in capsys.readouterr().err
    assert main(["compare", str(runs["CL4Rec", 1]), str(runs["SASRec", 1])]) == 0
    assert "in common" not in capsys.readouterr().err


def test_slices_are_those_of_the_run(runs):
    found = compare_runs([runs["CL4Rec", 0], runs["SASRec", 0]])
    stored = json.loads((runs["CL4Rec", 0] / "metrics.json").read_text())["slices"]
    mine = found.rows[1].slices
    for kind, ending in (("target_popularity", "items"), ("history_length", "histories")):
        for name, part in stored[kind].items():
            if part["targets"] > 1:
                assert mine[f"{name} {ending}"]["mean"] == pytest.approx(part["metrics"]["ndcg@10"])
                assert mine[f"{name} {ending}"]["targets"] == part["targets"]


def test_parameters_and_seconds_come_from_the_checkpoint(runs):
    found = {record["name"]: record for record in compare_runs([runs["CL4Rec", 0], runs["SASRec", 0]]).records()}
    model = seqcl.load(runs["SASRec", 0]).model
    assert found["SASRec"]["parameters"] == sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert 0 < found["SASRec"]["seconds"] < 600


def test_configurations_of_one_model_are_named_by_what_differs(runs, tmp_path):
    wide = seqcl.train(LOG, model="SASRec", runs=str(tmp_path), progress=False, **{**SMALL, "encoder": {"dim": 12}})
    found = compare_runs([wide.folder, runs["SASRec", 0]])
    assert {row.side.name for row in found.rows} == {"SASRec (encoder.dim 8)", "SASRec (encoder.dim 12)"}


def test_a_run_that_is_given_twice_counts_once_also_as_the_baseline(runs, tmp_path):
    shutil.copytree(runs["SASRec", 0], tmp_path / "copy")
    kept.keep(Finished.read(runs["SASRec", 0]), tmp_path / "kept.parquet", key="")
    once = compare_runs([runs["CL4Rec", 0], runs["SASRec", 0]])
    for again in (tmp_path / "copy", tmp_path / "kept.parquet"):
        for baseline in (None, runs["SASRec", 0]):
            found = compare_runs([runs["CL4Rec", 0], runs["SASRec", 0], again], baseline=baseline)
            assert [row.side.seeds for row in found.rows] == [[0], [0]]
            assert found.rows[1].difference == once.rows[1].difference


def test_runs_over_other_tables_or_files_of_one_name_are_two_configurations(runs, tmp_path):
    log = Sequences.load(runs["SASRec", 1] / "sequences")
    made = {}
    for kind in "ab":
        made[kind] = tmp_path / kind
        shutil.copytree(runs["SASRec", 1], made[kind])
        shutil.rmtree(made[kind] / "sequences")
        table = pd.DataFrame({"kind": [kind] * log.num_items}, index=log.item_ids)
        replace(log, item_table=table).save(made[kind] / "sequences")
    found = compare_runs([made["a"], runs["SASRec", 0]])
    told = [row.side.name for row in found.rows]
    assert len(told) == 2 and all(re.fullmatch(r"SASRec \(tables [0-9a-f]{8}\)", name) for name in told)
    files = [tmp_path / f"{kind}.parquet" for kind in "ab"]
    for run, file in zip(made.values(), files, strict=True):
        kept.keep(Finished.read(run), file, key="")
    assert {row.side.name for row in compare_runs([files[0], runs["SASRec", 0]]).rows} == set(told)
    assert (
        len(compare_runs([*made.values(), *files, runs["GRU4Rec", 0]]).rows) == 3
    )  # a file joins the run that it is of
    (made["a"] / "tables").mkdir()
    (made["a"] / "tables" / "0-more.csv").write_text("1")
    shutil.copytree(made["a"], tmp_path / "c")
    (tmp_path / "c" / "tables" / "0-more.csv").write_text("2")
    assert len(compare_runs([made["a"], tmp_path / "c"]).rows) == 2


def test_a_single_run_is_compared_with_its_baselines(tmp_path):
    run = seqcl.train(LOG, model="CL4Rec", baseline="Popularity", runs=str(tmp_path), progress=False, **SMALL)
    found = compare_runs([run.folder])
    assert [row.side.name for row in found.rows] == ["Popularity", "CL4Rec"]
    assert found.rows[0].mean == run.metrics["baselines"]["Popularity"]["test"]["ndcg@10"]


def test_other_protocols_and_data_are_refused_with_the_first_difference(runs, tmp_path):
    options = {**SMALL, "data": {"max_len": 5}}
    short = seqcl.train(LOG, model="SASRec", runs=str(tmp_path), progress=False, **options)
    with pytest.raises(UserError, match=r"another max_len than .*: 5, not 50"):
        compare_runs([runs["CL4Rec", 0], short.folder])
    other = markov(users=120, items=30, length=8, branching=2, seed=2).interactions
    elsewhere = seqcl.train(other, model="SASRec", runs=str(tmp_path), progress=False, **SMALL)
    with pytest.raises(UserError, match=r"another data .*data_fingerprint"):
        compare_runs([runs["CL4Rec", 0], elsewhere.folder])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("valid", "x", "valid in metrics.json is 'x'"),
        ("valid", {"ndcg@10": "high"}, "ndcg@10 in metrics.json is 'high', no number"),
        ("peak_memory_bytes", "much", "peak_memory_bytes in metrics.json is 'much'"),
        ("protocol", [], r"protocol in metrics.json is \[\]"),
        ("rank", np.nan, "a rank in ranks.parquet is no whole number from 1 on"),
        ("rank", 0, "a rank in ranks.parquet is no whole number from 1 on"),
    ],
)
def test_figures_that_are_none_are_refused_by_name(runs, tmp_path, key, value, said):
    spoilt = shutil.copytree(runs["CL4Rec", 0], tmp_path / "spoilt")
    if key == "rank":
        ranks = pd.read_parquet(spoilt / "ranks.parquet")
        ranks["rank"] = [value, *ranks["rank"][1:]]
        ranks.to_parquet(spoilt / "ranks.parquet")
    else:
        figures = json.loads((spoilt / "metrics.json").read_text())
        (spoilt / "metrics.json").write_text(json.dumps(figures | {key: value}))
    with pytest.raises(UserError, match=f"spoilt cannot be read as a finished run: ValueError: {said}"):
        compare_runs([spoilt, runs["SASRec", 0]])


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match=r"no finished run: there is no such folder"):
        compare_runs([runs["CL4Rec", 0], tmp_path / "nothing"])
    with pytest.raises(UserError, match="one configuration alone, SASRec"):
        compare_runs([runs["SASRec", 0], runs["SASRec", 1]])
    with pytest.raises(UserError, match="did you mean ndcg"):
        compare_runs([runs["CL4Rec", 0], runs["SASRec", 0]], metric="ndgc@10")
    begun = tmp_path / "begun"
    shutil.copytree(runs["SASRec", 0], begun)
    (begun / "ranks.parquet").unlink()
    with pytest.raises(UserError, match=r"no ranks\.parquet; go on with: --resume"):
        compare_runs([runs["CL4Rec", 0], begun])


def test_the_command_prints_a_table_or_json_and_writes_csv(runs, tmp_path, capsys):
    words = [str(runs["CL4Rec", 0]), str(runs["SASRec", 0])]
    assert main(["compare", *words]) == 0
    printed = capsys.readouterr().out
    assert "CL4Rec" in printed and "95 % interval" in printed and "leave_one_out" in printed
    assert main(["compare", *words, "--json", "--csv", str(tmp_path / "rows.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert [row["name"] for row in found["rows"]] == list(rows["name"]) == ["SASRec", "CL4Rec"]
    assert rows["difference"][1] == pytest.approx(found["rows"][1]["difference"])
    assert main(["compare", words[0], str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_the_page_needs_nothing_else_and_sorts(runs, tmp_path):
    words = [str(runs[key]) for key in (("CL4Rec", 0), ("CL4Rec", 1), ("GRU4Rec", 0), ("SASRec", 0), ("SASRec", 1))]
    page = tmp_path / "report.html"
    assert main(["compare", *words, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    links = set(re.findall(r"(?:href|src)=[\"']([^#\"'][^\"']*)", text))
    assert not links, links
    assert text.count("<svg") == 4 and "data_fingerprint" in text and "encoder:" in text
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to draw the page")
    press = "<script>document.querySelectorAll('th button')[1].click()</script></body>"
    page.write_text(text.replace("</body>", press), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    body = drawn[drawn.index("<tbody") : drawn.index("</tbody")]
    values = [float(value) for value in re.findall(r'<tr><td[^>]*>[^<]*</td><td data-value="([^"]*)"', body)]
    assert len(values) == 3 and values == sorted(values, reverse=True)


def test_a_page_of_two_comparisons_has_both_under_their_heads(runs, tmp_path):
    sheets = [
        sheet_of(compare_runs([runs["CL4Rec", 0], runs["SASRec", 0]])),
        sheet_of(compare_runs([runs[key] for key in (("CL4Rec", 0), ("GRU4Rec", 0), ("SASRec", 0))])),
    ]
    write_page(tmp_path / "page.html", sheets)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall("<h1>(.*)</h1>", text) == ["2 comparisons", "2 models on markov", "3 models on markov"]
    assert text.count("<section>") == text.count("</section>") == 2 and text.count("<tbody>") == 2


def copied(folder, target, *without):
    """A copy of a run without some of its files and folders."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*without))
    return target


def test_a_trained_run_without_its_checkpoints_is_not_taken_for_a_counted_one(runs, tmp_path):
    light = copied(runs["SASRec", 0], tmp_path / "light", "checkpoints")
    (row,) = compare_runs([runs["CL4Rec", 0], runs["CL4Rec", 1], light]).rows[1:]
    assert row.difference == compare([gains(runs["CL4Rec", 0])], [gains(light)])


def test_slices_need_the_log_of_the_runs(runs, tmp_path):
    ours, theirs = (copied(runs[model, 0], tmp_path / model, "sequences") for model in ("CL4Rec", "SASRec"))
    assert compare_runs([runs["CL4Rec", 1], theirs]).rows[1].slices  # any run that keeps it will do
    with pytest.raises(UserError, match="keeps no packed log, and its data set markov is another one now"):
        compare_runs([ours, theirs])


def test_configurations_that_differ_in_many_options_have_names_of_their_own():
    class Fake:
        def __init__(self, **options):
            self.model, self.options, self.beside = "SASRec", options, {}

    values = [(1, 1, 1, 1, 1), (2, 2, 2, 1, 1), (1, 1, 1, 2, 1)]
    found = names([Fake(**dict(zip("abcde", value, strict=True))) for value in values])
    assert found[1] == "SASRec (a 2, b 2, c 2 and 1 more)" and len(set(found)) == 3


def train_both(plugin, runs):
    """Train the plugin's recipe and one of ours, and print their folders."""
    seqcl.plugins.load(plugin)
    for model in ("HalvedRec", "SASRec"):
        print(seqcl.train(LOG, model=model, runs=runs, progress=False, **SMALL).folder, flush=True)


def test_a_run_and_a_metric_of_a_plugin_are_compared(tmp_path, capsys):
    (tmp_path / "halved_plugin.py").write_text(
        "import seqcl\nfrom seqcl.models import SASRec\n\n\n"
        "@seqcl.register('metric')\ndef halved(ranks, k):\n    return 0.5 * (ranks <= k)\n\n\n"
        "@seqcl.register('model')\nclass HalvedRec(SASRec):\n    'A recipe.'\n"
    )
    words = ["--plugin", str(tmp_path / "halved_plugin.py")]
    made = processes.run(train_both, words[1], str(tmp_path), cwd=tmp_path)
    again = ["compare", *made.stdout.split(), *words, "--metric", "halved@5", "--json"]
    found = json.loads(processes.run(main, again, cwd=tmp_path).stdout)
    assert [row["name"] for row in found["rows"]] == ["SASRec", "HalvedRec"]
    assert 0 < found["rows"][0]["halved@5"] <= 0.5


def test_stored_files_of_an_older_version_or_damaged_ones_are_told(runs, tmp_path, capsys):
    folders = [copied(runs[model, 0], tmp_path / model) for model in ("CL4Rec", "SASRec")]
    for folder in folders:
        figures = json.loads((folder / "metrics.json").read_text())
        del figures["protocol"]["k_core"], figures["protocol"]["min_length"]
        (folder / "metrics.json").write_text(json.dumps(figures))
    words = ["compare", *map(str, folders)]
    assert main(words) == 0
    (folders[0] / "history.csv").write_bytes(b"\xff")
    assert main([*words, "--html", str(tmp_path / "page.html")]) == 2
    assert "history.csv cannot be read" in capsys.readouterr().err


def test_a_page_is_not_put_in_the_place_of_a_device_or_a_folder(runs, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    words = ["compare", str(runs["CL4Rec", 0]), str(runs["SASRec", 0])]
    assert main([*words, "--html", str(tmp_path / "pipe")]) == 2
    assert main([*words, "--csv", str(tmp_path)]) == 2
    assert main([*words, "--html", str(runs["CL4Rec", 0] / "log.txt" / "page.html")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith(f"--html {tmp_path / 'pipe'}: no regular file is there; name a file")
    assert said[1].endswith(f"--csv {tmp_path}: a folder is there; name a file")
    assert said[2].endswith("log.txt is no folder that can be written to")
    assert (tmp_path / "pipe").is_fifo()


def test_odd_names_and_many_rows_are_drawn(recwarn):
    odd = ["SASRec", "<script>", "\u65e5\u672c", "HGN (data.where $a$)", "_small"]
    rows = [{"name": name, "seconds": 60.0, "ndcg@10": 0.1} for name in odd + [f"{'x' * 70}{n}" for n in range(60)]]
    records = [{**row, "difference": 0.1, "low": 0.0, "high": 0.2, "p (Holm)": 0.01} for row in rows]
    details = [
        Details(name=row["name"], seeds="0", folders=[], config="", about={}, curves=[([1], [0.1])]) for row in rows
    ]
    text = "".join(drawing for _, _, drawing in drawings(records, details, (), "ndcg@10"))
    assert not recwarn.list
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "HGN (data.where $a$)" in text
    assert text.count("_small") == text.count("HGN (data.where $a$)")  # in every legend
    assert len({(colour(place), mark(place)) for place in range(60)}) == 60


@pytest.mark.parametrize(
    ("minutes", "wanted"), [((4, 900), "5 10 20 50 100 200 500 1000"), ((240, 620), "300 400 500 600")]
)
def test_minutes_are_written_out_and_stand_apart(minutes, wanted):
    records = [{"name": str(one), "seconds": 60.0 * one, "ndcg@10": 0.1} for one in minutes]
    told = re.findall(r">([^<>]+)</text>", draw_time(records, "ndcg@10") or "")
    assert (
        " ".join(told[: told.index("minutes of training, mean over seeds; dotted: nothing is better in less time")])
        == wanted
    )


def test_a_p_is_never_said_to_be_nought():
    assert [chance(p) for p in (None, 1e-9, 0.0006, 0.04)] == ["", "<0.001", "0.001", "0.040"]
    assert cell(1e-9, "p (Holm)") == {"text": "<0.001", "value": 1e-9, "mark": ""}
