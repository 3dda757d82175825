"""Studies: spaces, trials, what they choose on, and how they go on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from seqcl import config, registry
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.encoders import GRU
from seqcl.errors import UserError
from seqcl.experiment.job import Job
from seqcl.experiment.spaces import coded, decoded, ends, read_space, variant
from seqcl.models import MODELS
from tests import processes

optuna = pytest.importorskip("optuna", reason="needs the extra tune")

from seqcl.experiment.study import FIRST, Study  # noqa: E402
from seqcl.experiment.tune import Pruning, work  # noqa: E402

pytestmark = pytest.mark.once
CONFIGS = Path(__file__).parents[1] / "configs"
SPACE = """
train.lr: {low: 0.001, high: 0.02, log: true}
encoder.heads: [1, 2]
objective: {weight: {low: 0.01, high: 1.0, log: true}}
"""
QUICK = ["--encoder.dim", "8", "--encoder.layers", "1", "--data.windows", "last", "--train.batch_size", "64"]
QUICK += ["--eval.exclude_seen", "false", "--track", "none", "--train.ema", "0.9", "--train.warmup", "5"]


def frame() -> pd.DataFrame:
    found = markov(users=80, items=12, length=10, branching=2, seed=1).interactions
    rows = pd.DataFrame({"user_id": found.users, "item_id": found.items})
    return rows.assign(timestamp=10 + rows.groupby("user_id").cumcount())


@pytest.fixture(autouse=True)
def _pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the trials of these tests; one test looks at the page."""
    if "made_again" not in request.node.name:
        monkeypatch.setattr("seqcl.report.write_study", lambda *rows, **options: None)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The words of a study of CL4Rec on a small log, with a space of three options."""
    frame().to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "space.yaml").write_text(SPACE)
    return ["tune", "--dataset", str(tmp_path / "log.csv"), "--space", str(tmp_path / "space.yaml"), *QUICK]


def trials_of(folder: Path) -> list[Any]:
    return Study.read(folder, []).trials().trials


def told(folder: Path) -> list[tuple[dict[str, Any], str, float | None, dict[int, float]]]:
    """What a study has learned: values of options, state, validation, and that of each epoch."""
    return [(one.params, one.state.name, one.value, one.intermediate_values) for one in trials_of(folder)]


# ---- spaces


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("CL4SRec", "Popularity")])
def test_every_recipe_has_a_default_space_of_its_own_options_that_holds_its_defaults(name: str) -> None:
    base = config.experiment({"model": name})
    space, left_out = read_space(base, ["default"])
    assert left_out == (["objective.weight"] if name == "TwoTower" else [])  # its default switches the term off
    assert set(space) <= set(base.flat)
    assert len(space) >= (1 if not base.recipe.trained else 5)
    for end in (0, -1):
        values = {option: ends(entry)[end] for option, entry in space.items()}
        made = variant(base, values).flat
        assert {option: coded(made[option]) for option in space} == {
            option: coded(one) for option, one in values.items()
        }


def test_the_default_space_holds_the_values_of_our_configurations() -> None:
    for file in sorted(CONFIGS.glob("beauty-*.yaml")):
        _, left_out = read_space(config.resolve(["--config", str(file)]), ["default"])
        assert set(left_out) <= {"objective.weight"}, file.name


def test_a_model_without_options_is_refused() -> None:
    with pytest.raises(UserError, match="Popularity has none of its options"):
        read_space(config.experiment({"model": "Popularity"}), ["default"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr: [0.002]\nobjective.wieght: [0.1]", r"space\.yaml:2: unknown option 'objective\.wieght': did you mean objective\.weight"),
        ("seed: [0, 1]", r"space\.yaml:1: option seed is not searched"),
        ("data.k_core: [0, 5]", r"option data\.k_core is not searched"),
        ("train.monitor: [ndcg@10]", r"option train\.monitor is not searched"),
        ("objective.weight: {low: 0.2, high: 1.0}", r"its value 0\.1 is not in .*widen that, or begin elsewhere with --objective\.weight"),
        ("objective.weight: {low: 0.0, high: 1.0, log: true}", r"space\.yaml:1: option objective\.weight: .*low"),
        ("objective.weight: {lo: 0.0, high: 1.0}", r"space\.yaml:1: option objective\.weight: unknown word 'lo': did you mean low"),
        ("objective.weight: {low: 0.0}", r"expected choices in brackets"),
        ("objective.weight: 0.1", r"expected choices in brackets"),
        ("objective.weight: {low: 0.0, high: 1.0, log: 3}", r"log must be true or false"),
        ("objective.head: {low: 1, high: 2}", r"takes choices in brackets, not a range"),
        ("encoder.layers: {low: 1.5, high: 3}", r"low must be a whole number, not 1\.5"),
        ("objective.head: [none, mpl]", r"option objective\.head: unknown value 'mpl': did you mean mlp"),
        ("encoder: [SASRec, GRU]", r"option encoder is not searched: trials share .* components"),
        ("train.lr: {low: 0.001, high: 0.007, step: 0.003}", r"its value 0\.002 is not in"),
        ("train.lr: {low: 0.001, high: 0.01, step: 0.002}", r"option train\.lr: .* not divisible by `step`"),
        ("base: other.yaml", r"a space names options alone"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_space_names_file_line_and_option(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text)
    base = config.experiment({"model": "CL4Rec", "train.lr": 0.002})
    with pytest.raises(UserError, match=message):
        read_space(base, [str(tmp_path / "space.yaml")])


def test_a_number_is_one_without_a_point_too(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "train.lr: {low: 1e-5, high: 1e-2, log: true}\ntrain.weight_decay: [0, 1e-2, 1e-1]\n"
    )
    space, _ = read_space(config.experiment({"train.weight_decay": 0.01}), [str(tmp_path / "space.yaml")])
    assert space == {"train.lr": {"low": 1e-5, "high": 1e-2, "log": True}, "train.weight_decay": [0, 0.01, 0.1]}


def test_a_later_space_wins_and_lists_are_stored_as_text(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("objective.clusters: [[256], [64, 128]]\n")
    space, _ = read_space(config.experiment({"model": "ICLRec"}), ["default", str(tmp_path / "space.yaml")])
    assert space["objective.clusters"] == [[256], [64, 128]]
    assert decoded(space, {"objective.clusters": coded((64, 128))}) == {"objective.clusters": [64, 128]}


# ---- pruning


def test_a_trial_below_the_median_is_pruned_and_told_epochs_are_not_told_again() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(FIRST, FIRST))

    def run(values: list[float]) -> int:
        trial = study.ask()
        callback = Pruning(trial, study.trials[trial.number], "ndcg@10")
        for epoch, value in enumerate(values, 1):
            callback.epoch({"epoch": epoch, "step": 10 * epoch, "valid_ndcg@10": value})
            callback.epoch({"epoch": epoch, "step": 10 * epoch})  # one without validation
        study.tell(trial, max(values))
        again = Pruning(trial, study.trials[trial.number], "ndcg@10")
        assert again.known == set(range(1, len(values) + 1))
        return trial.number

    for level in range(FIRST):
        run([0.1 * level + 0.01 * epoch for epoch in range(8)])
    run([0.9] * 8)
    with pytest.raises(optuna.TrialPruned):
        run([0.05] * 8)
    assert len(study.trials[-1].intermediate_values) == FIRST


# ---- studies


def test_a_study_is_chosen_on_validation_and_its_best_trial_is_made_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    rank = Job.rank
    monkeypatch.setattr(
        Job, "rank", lambda job, model, part, **how: asked.append(part) or rank(job, model, part, **how)
    )
    study = tmp_path / "study"
    assert main([*words, "--train.epochs", "2", "--study", str(study), "--trials", "3"]) == 0
    done = trials_of(study)
    base = config.of_run(study)
    assert done[0].params == {option: base.flat[option] for option in ("train.lr", "encoder.heads", "objective.weight")}
    assert len({json.dumps(one.params) for one in done}) == len(done) == 3
    for one in done:
        (run,) = (study / "trials" / f"{one.number:04d}").glob("*-*/metrics.json")
        found = json.loads(run.read_text())
        assert found["valid"]["ndcg@10"] == one.value and "test" not in found
        stored = config.of_run(run.parent)
        assert {option: stored.flat[option] for option in one.params} == one.params and stored.options.seed == 0
    best = max(done, key=lambda one: one.value)
    kept = sorted(path.parts[-3] for path in study.glob("trials/*/*-*/checkpoints"))
    assert kept == [f"{best.number:04d}"]
    assert set(asked) == {"valid"}

    assert main(["train", "--config", str(study / "best.yaml"), "--runs", str(tmp_path / "again")]) == 0
    (again,) = (tmp_path / "again").glob("*-*/metrics.json")
    assert json.loads(again.read_text())["valid"]["ndcg@10"] == best.value

    page = (study / "study.html").read_text()
    assert "All have seed 0" in page and page.count("<svg") == 2  # ten trials tell of importance
    assert not re.search(r"(src|href)=\"[^#]", page)

    asked.clear()
    capsys.readouterr()
    for _ in range(2):  # the second time it is told, not ranked
        assert main(["tune", "--study", str(study), "--trials", "3", "--test"]) == 0
        assert asked.count("test") == 2  # Popularity is the other one
    assert "test: leave_one_out" in capsys.readouterr().out
    assert main(["tune", "--study", str(study), "--trials", "5"]) == 2
    assert "ranked on test, which ends a study" in capsys.readouterr().err


def test_no_trial_depends_on_a_test_target(words: list[str], tmp_path: Path) -> None:
    """Two logs that differ in the test targets alone make the same study."""
    other = frame()
    tested = ~other["user_id"].duplicated(keep="last")
    other.loc[tested, "item_id"] = np.roll(other.loc[tested, "item_id"], 1)
    assert (frame()["item_id"] != other["item_id"]).mean() > 0.05
    for name, log in (("one", frame()), ("other", other)):
        log.to_csv(tmp_path / "log.csv", index=False)
        assert main([*words, "--train.epochs", "2", "--study", str(tmp_path / name), "--trials", "2"]) == 0
    log = frame()
    assert told(tmp_path / "other") != []
    log.to_csv(tmp_path / "log.csv", index=False)
    one = told(tmp_path / "one")
    other.to_csv(tmp_path / "log.csv", index=False)
    assert one == told(tmp_path / "other") and all(state == "COMPLETE" for _, state, _, _ in one)


def test_a_killed_study_goes_on_with_its_trial_and_ends_as_if_nothing_had_been(
    words: list[str], tmp_path: Path
) -> None:
    told_words = [*words, "--train.epochs", "8"]
    studies = {name: tmp_path / name for name in ("killed", "whole")}
    process = processes.start(
        processes.command, [*told_words, "--study", str(studies["killed"]), "--trials", "2"], cwd=tmp_path
    )
    processes.kill_when(process, lambda: [*studies["killed"].glob("trials/0001/*/history.csv")])
    assert trials_of(studies["killed"])[1].state.name == "RUNNING"
    assert main(["tune", "--study", str(studies["killed"]), "--trials", "2"]) == 0
    assert len([*studies["killed"].glob("trials/*/*-*")]) == 2  # the second run went on in its folder
    (log,) = studies["killed"].glob("trials/0001/*-*/log.txt")
    assert log.read_text().count("CL4Rec on log") == 2
    assert main([*told_words, "--study", str(studies["whole"]), "--trials", "2"]) == 0
    assert told(studies["killed"]) == told(studies["whole"])


def test_processes_share_a_study(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study"
    assert main([*words, "--train.epochs", "1", "--study", str(study), "--trials", "3", "--jobs", "2"]) == 0
    done = trials_of(study)
    assert [one.state.name for one in done] == ["COMPLETE"] * 3
    assert len({json.dumps(one.params) for one in done}) == 3
    assert all((study / "jobs" / f"{number}.txt").is_file() for number in (1, 2))
    said = capfd.readouterr().err
    assert all(f"trial {number}: ndcg@10" in said for number in range(3))


def test_a_trial_that_cannot_be_built_fails_alone_and_a_first_one_leaves_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.yaml").write_text("encoder.heads: [1, 3]\n")  # 3 does not divide 8
    study = tmp_path / "study"
    words = [*words, "--encoder.heads", "1", "--train.epochs", "1"]
    assert main([*words, "--study", str(study), "--trials", "4"]) == 0
    states = {(one.params["encoder.heads"], one.state.name) for one in trials_of(study)}
    assert states == {(1, "COMPLETE"), (3, "FAIL")}
    assert "heads" in capsys.readouterr().err
    assert main([*words, "--encoder.heads", "3", "--study", str(tmp_path / "other"), "--trials", "2"]) == 2
    assert not (tmp_path / "other").exists()


def test_another_study_than_the_one_in_the_folder_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    words = [*words, "--train.epochs", "1", "--study", str(study), "--trials", "1"]
    assert main(words) == 0
    assert main(words) == 0  # the same goes on, and there is nothing to do
    (tmp_path / "other.yaml").write_text("encoder.heads: [1, 2, 4]")
    for change, message in (
        (["--train.epochs", "2"], "train.epochs is 1 in this study, not 2"),
        (["--space", str(tmp_path / "other.yaml")], "its space is another one"),
        (["--pruner", "none"], "its pruner is another one"),
        (["--trials", "0"], "--trials must be 1 or more"),
    ):
        assert main([*words, *change]) == 2
        assert message in capsys.readouterr().err
    frame().iloc[:-10].to_csv(tmp_path / "log.csv", index=False)
    assert main(words) == 2
    assert "learned from another log" in capsys.readouterr().err
    (study / "study.db").write_bytes(b"no database" * 100)
    assert main(words) == 2
    assert f"{study}/study.db cannot be read or written" in capsys.readouterr().err
    for folder in (tmp_path, study / "trials"):
        assert main([*words, "--study", str(folder)]) == 2
        assert "it is no study and holds" in capsys.readouterr().err


def test_optuna_that_is_missing_is_said(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(words) == 2
    assert "pip install 'seqcl[tune]'" in capsys.readouterr().err


def test_a_counted_model_is_tuned_too(words: list[str], tmp_path: Path) -> None:
    words = [*words[:3], "--model", "ItemKNN", "--eval.exclude_seen", "false", "--study", str(tmp_path / "study")]
    assert main([*words, "--trials", "3"]) == 0
    study = Study.read(tmp_path / "study", [])
    assert [*work(study, 3)] == [] and set(study.space) == {"similarity.top_k"}
    assert yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())["model"] == "ItemKNN"


def test_the_best_configuration_says_which_plugin_it_needs(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = registry.TABLES["encoder"]
    monkeypatch.setattr(encoders, "others", {**encoders.others, "Mine": GRU})
    monkeypatch.setattr(encoders, "sources", {**encoders.sources, "Mine": "my_parts.py"})
    words = [*words[:3], "--encoder", "Mine", "--eval.exclude_seen", "false", "--study", str(tmp_path / "study")]
    assert main([*words, "--trials", "1", "--train.epochs", "1"]) == 0
    text = (tmp_path / "study" / "best.yaml").read_text()
    assert "\n# seqcl train --config best.yaml --plugin my_parts.py\nmodel:" in text
