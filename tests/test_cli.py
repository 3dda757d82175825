"""The commands as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from seqcl.cli.main import main
from tests import processes

ROOT = Path(__file__).parents[1]
QUICK = ["--dataset", "markov", "--encoder.dim", "8", "--data.windows", "last", "--train.batch_size", "128"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *QUICK, "--train.epochs", "1", "--runs", str(folder)]) == 0
    return next(folder.glob("*-*"))


def test_train_prints_one_table_beside_popularity(tmp_path, capsys):
    assert main(["train", *QUICK, "--train.epochs", "1", "--runs", str(tmp_path), "--baseline", "SASRec"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("CL4Rec", "SASRec", "Popularity", "ndcg@10", "leave_one_out"))


def test_evaluate_ranks_under_the_other_rule_for_seen_items(tmp_path, capsys):
    """A counted model knows nothing of the rule, so that a run under it must have these figures."""
    metrics = {}
    for excluded in ("true", "false"):
        words = ["--model", "Markov", "--dataset", "markov", "--eval.exclude_seen", excluded]
        assert main(["train", *words, "--runs", str(tmp_path / excluded)]) == 0
        (folder,) = (tmp_path / excluded).glob("Markov-*")
        metrics[excluded] = json.loads((folder / "metrics.json").read_text())["test"]
        capsys.readouterr()
        other = {"true": "keep", "false": "exclude"}[excluded]
        assert main(["evaluate", str(folder), "--seen", other]) == 0
        found = json.loads(capsys.readouterr().out)
        metrics[other], excludes = found["metrics"], found["protocol"]["exclude_seen"]
        assert excludes == (other == "exclude")
    assert metrics["keep"] == metrics["false"] != metrics["true"] == metrics["exclude"]


def test_evaluate_agrees_with_the_run(run, capsys):
    assert main(["evaluate", str(run), "--index", "flat", "--slices"]) == 0
    found = json.loads(capsys.readouterr().out)
    whole = json.loads((run / "metrics.json").read_text())
    kept = whole["test"]
    for kind, slices in found["slices"].items():
        assert sum(it["users"] for it in slices.values()) == found["protocol"]["num_targets"]
        for name, it in slices.items():
            assert it["metrics"] == pytest.approx(whole["slices"][kind][name]["metrics"])
            assert set(it) == set(whole["baselines"]["Popularity"]["slices"][kind][name])
    assert found["metrics"] == pytest.approx(kept)
    assert found["index"]["metrics"]["ndcg@10"] == pytest.approx(kept["ndcg@10"], abs=1e-6)
    assert found["index"]["overlap"]["overlap@10"] == pytest.approx(1.0, abs=1e-3)
    assert {"build_seconds", "query_seconds"} <= set(found["index"])


def test_all_indexes_are_compared_and_drawn(run, capsys):
    assert main(["evaluate", str(run), "--index", "all"]) == 0
    rows = json.loads(capsys.readouterr().out)["index"]
    assert {row["kind"] for row in rows} == {"exact", "flat", "hnsw", "ivf", "ivfpq"}
    kept = json.loads((run / "metrics.json").read_text())["test"]
    for row in rows:
        if row["kind"] in ("exact", "flat"):
            assert row["ndcg@10"] == pytest.approx(kept["ndcg@10"], abs=1e-6) and row["overlap@10"] > 0.999
    cells = [row["overlap@10"] for row in rows if row["kind"] == "ivf"]
    assert len(cells) > 2 and cells[0] < cells[-1] == pytest.approx(
        1.0, abs=1e-3
    )  # in the end all cells are looked into
    assert all(row["candidates"].startswith("top 20 of") and row["part"] == "test" for row in rows)
    table = pd.read_csv(run / "indexes-test.csv")
    assert len(table) == len(rows) and (table["queries_per_second"] > 0).all()
    assert (run / "indexes-test.png").read_bytes().startswith(b"\x89PNG")


def test_recommend_prints_items(run, capsys):
    assert main(["recommend", str(run), "--user", "0", "--k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_data_commands(tmp_path, capsys):
    target = tmp_path / "log.parquet"
    assert main(["data", "convert", "markov", str(target)]) == 0
    assert main(["data", "stats", str(target), "--data.user", "user_id"]) == 0  # as messages name it
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :])["interactions"] == len(pd.read_parquet(target))
    assert main(["data", "list"]) == 0
    assert "ml-100k" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean train"),
        (["train", "--model", "CL4Rek"], "did you mean CL4Rec"),
        (["train", "--model", "Popularity", "--encoder.dim", "4"], "Popularity has no section encoder"),
        (["train", "--dataset", "Beuty"], "did you mean Beauty"),
        (["train", "--dataset", "markov", "--baseline", "SASRek"], "did you mean SASRec"),
        (["train", "--dataset", "markov", "--device", "tpu"], "--device tpu"),
        (["train", "--resume", "nowhere"], "nowhere is no run: there is no such folder"),
        (["evaluate", "nowhere"], "nowhere is no run: there is no such folder"),
        (["compare", "nowhere", "nowhere"], "nowhere is no finished run: there is no such folder"),
        (["serve", "nowhere"], "nowhere is neither a run nor one that was exported: there is no such folder"),
        (["evaluate", __file__], "is no run: it is a file"),
        (["evaluate"], "needs a run folder"),
        (["recommend", "nowhere", "--user", "1"], "is no run"),
        (["recommend", "nowhere"], "recommend nowhere: give --user or --items, one of the two"),
        (["recommend", "nowhere", "--user", "1", "--items", "2"], "give --user or --items, one of the two"),
        (["train", "--train.epochs", "0"], "train.epochs is 0, must be 1 or more"),
        (["data", "stats", "Beuty"], "did you mean Beauty"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.strip().splitlines()) == 1


def test_a_misspelt_folder_of_a_run_is_named_with_the_nearest_ones(tmp_path, capsys):
    (tmp_path / "CL4Rec-shop-20261201-101500").mkdir()
    (tmp_path / "note.txt").write_text("")
    assert main(["evaluate", str(tmp_path / "CL4Rec-shop-20261201-101550")]) == 2
    assert f"did you mean {tmp_path / 'CL4Rec-shop-20261201-101500'}?" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "it has no config.yaml" in capsys.readouterr().err
    (tmp_path / "latest").symlink_to("CL4Rec-shop-20261201-101500")
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"did you mean {tmp_path / 'latest'}?" in capsys.readouterr().err


def test_a_folder_of_runs_is_resumed_with_the_one_that_was_killed_last(tmp_path, capsys):
    for place, name in enumerate(("ended", "killed-first", "killed-last")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("model: SASRec\n")
        os.utime(tmp_path / name / "config.yaml", (place, place if name != "ended" else 9))
    (tmp_path / "ended" / "metrics.json").write_text("{}")
    (tmp_path / "latest").symlink_to("ended")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert f"did you mean {tmp_path / 'killed-last'}, which has not ended?" in capsys.readouterr().err
    (tmp_path / "ended" / "unended").write_text("")  # it went on under another configuration, and was killed
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert f"did you mean {tmp_path / 'ended'}, which has not ended?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder.dim", "32"], "encoder.dim was 8 and cannot become 32"),
        (["--seed", "3"], "seed was 0 and cannot become 3"),
        (["--model", "SASRec"], "model was CL4Rec and cannot become SASRec"),
        (["--model", "CoSeRec"], "model was CL4Rec and cannot become CoSeRec"),
        (["--objective", "SimSiam"], "objective was TwoViews and cannot become SimSiam"),
        (["--encoder", "GRU", "--objective", "SimSiam"], "encoder was SASRec and cannot become GRU"),
        (["--train.lr", "0.5"], "train.lr was 0.001 and cannot become 0.5"),
        (["--train.batch_size", "7"], "train.batch_size was 128 and cannot become 7"),
        (["--train.weight_decay", "0.5"], "train.weight_decay was 0.01 and cannot become 0.5"),
        (["--train.warmup", "7"], "train.warmup was 100 and cannot become 7"),
        (["--train.schedule", "cosine"], "train.schedule was constant and cannot become cosine"),
        (["--train.clip", "0.5"], "train.clip was 0.0 and cannot become 0.5"),
        (["--train.precision", "bf16"], "train.precision was 32 and cannot become bf16"),
        (["--train.eval_every", "2"], "train.eval_every was 1 and cannot become 2"),
        (["--train.monitor", "recall@5"], "train.monitor was ndcg@10 and cannot become recall@5"),
        (["--train.ema", "0.5"], "train.ema was 0.995 and cannot become 0.5"),
        (["--eval.exclude_seen", "false"], "eval.exclude_seen was True and cannot become False"),
    ],
)
def test_a_run_cannot_go_on_as_another_experiment_and_is_left_as_it_was(run, words, message, capsys):
    before = (run / "config.yaml").read_text()
    assert main(["train", "--resume", str(run), *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.strip().splitlines()) == 1
    assert (run / "config.yaml").read_text() == before


def test_a_finished_run_goes_on_with_more_epochs(tmp_path, capsys):
    assert main(["train", *QUICK, "--train.epochs", "1", "--runs", str(tmp_path)]) == 0
    folder = next(tmp_path.glob("*-*"))
    assert main(["train", "--resume", str(folder), "--train.epochs", "2"]) == 0
    assert json.loads((folder / "metrics.json").read_text())["training"]["epochs"] == 2


def test_latest_leads_to_the_run_that_ended_last_and_a_run_goes_on_through_it(tmp_path):
    for model in ("Popularity", "Markov"):
        assert main(["train", "--dataset", "markov", "--model", model, "--runs", str(tmp_path)]) == 0
        assert (tmp_path / "latest").resolve() == next(tmp_path.glob(f"{model}-*"))
    assert not os.path.isabs(os.readlink(tmp_path / "latest"))
    first = next(tmp_path.glob("Popularity-*"))
    assert main(["train", "--resume", str(first)]) == 0
    assert main(["train", "--resume", str(tmp_path / "latest")]) == 0
    assert (tmp_path / "latest").resolve() == first
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()  # somebody's own
    assert main(["train", "--resume", str(first)]) == 0
    assert not (tmp_path / "latest").is_symlink()


def test_a_run_killed_in_its_first_save_starts_again(tmp_path):
    assert main(["train", *QUICK, "--train.epochs", "1", "--runs", str(tmp_path)]) == 0
    folder = next(tmp_path.glob("*-*"))
    kept = json.loads((folder / "metrics.json").read_text())["test"]
    for file in ("best", "last"):
        (folder / "checkpoints" / f"{file}.safetensors").unlink()
    (folder / "checkpoints" / "last.safetensors.tmp").write_text("half")
    assert main(["train", "--resume", str(folder)]) == 0
    assert json.loads((folder / "metrics.json").read_text())["test"] == kept


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder.heads", "3"], "does not divide"),
        (["--encoder.layers", "0"], "encoder.layers must be 1 or more"),
        (["--seed", "-1"], "--seed -1"),
        (["--train.monitor", "ndgc@10"], "did you mean ndcg@10"),
        (["--eval.ks", "[5]"], "unknown metric in --train.monitor 'ndcg@10'"),
        (["--eval.candidates", "popular"], "did you mean popularity"),
        (["--train.epochs", "0"], "train.epochs is 0"),
        (["--objective.weight", "-1"], "weight must not be negative"),
        (["--encoder", "BERT4Rec"], "reads the next item at every position"),
        (["--model", "BERT4Rec", "--encoder", "SASRec"], "does not read what follows a masked item"),
        (["--model", "BERT4Rec", "--objective.rate", "1"], "rate must be from 0 to below 1"),
    ],
)
def test_what_cannot_work_leaves_no_folder_behind(tmp_path, words, message, capsys):
    assert main(["train", "--dataset", "markov", "--runs", str(tmp_path / "runs"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_is_said_and_not_a_traceback(run, capsys, monkeypatch):
    def full(*arguments, **values):
        raise OSError(28, "No space left on device", "ranks.parquet")

    monkeypatch.setattr("seqcl.experiment.job.write_ranks", full)
    assert main(["train", *QUICK, "--train.epochs", "1", "--runs", str(run.parent)]) == 2
    assert "ranks.parquet: No space left on device" in capsys.readouterr().err


def test_an_index_that_does_not_exist_is_named(run, capsys):
    assert main(["evaluate", str(run), "--index", "hsnw"]) == 2
    assert "did you mean hnsw" in capsys.readouterr().err


def test_print_config_gives_a_file_that_config_takes(tmp_path, capsys):
    assert main(["train", *QUICK, "--print_config"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert main(["train", "--config", str(file), "--print_config"]) == 0
    assert capsys.readouterr().out == text


PRETRAINED = [
    *("--model", "S3Rec", "--mutual.item_attribute", "0", "--mutual.masked_attribute", "0"),
    *("--pretrain.epochs", "3", "--train.save_minutes", "0"),
]

CONTRASTED = [
    *("--model", "MoCoRec", "--objective.queue", "64", "--pretrain.epochs", "3", "--pretrain.keep", "1"),
    *("--train.save_minutes", "0"),
]


@pytest.mark.parametrize(
    ("more", "kills"),
    [
        (["--encoder.dropout", "0.3", "--next_item.bias", "true"], ["checkpoints/best.safetensors"]),
        (PRETRAINED, ["pretrain/checkpoints/last.safetensors", "checkpoints/best.safetensors"]),
        (CONTRASTED, ["pretrain/checkpoints/last.safetensors", "checkpoints/best.safetensors"]),
    ],
    ids=["in training", "in pre-training and in training", "in pre-training by contrast"],
)
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, more, kills):
    words = ["train", *QUICK, *more, "--train.epochs", "4", "--runs"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    command = [*words, str(tmp_path / "broken")]
    for seen in kills:
        process = processes.start(processes.command, command, cwd=ROOT)
        processes.kill_when(process, lambda seen=seen: list((tmp_path / "broken").glob(f"*/{seen}")))
        broken = next((tmp_path / "broken").glob("*-*"))
        assert not (broken / "metrics.json").exists()
        command = ["train", "--resume", str(broken)]
    resumed = processes.run(processes.command, command, cwd=ROOT)
    assert resumed.returncode == 0, resumed.stderr
    whole = next((tmp_path / "whole").glob("*-*"))
    kept, again = (json.loads((folder / "metrics.json").read_text()) for folder in (whole, broken))
    assert kept["test"] == again["test"] and kept["training"]["steps"] == again["training"]["steps"]
    best = "checkpoints/best.safetensors"
    from safetensors.torch import load_file

    one, two = load_file(whole / best), load_file(broken / best)
    assert all((one[name] == two[name]).all() for name in one)
