"""A student learns what finished runs and counted models know: the loss, the teachers, the runs, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import seqcl
from seqcl.cli.distil import words_of
from seqcl.cli.main import main
from seqcl.config import of_run, resolve
from seqcl.data import markov, shuffled, write
from seqcl.encoders import ENCODERS
from seqcl.errors import UserError
from seqcl.experiment import keys, load
from seqcl.experiment.audit import audit
from seqcl.experiment.tasks import same_but_for_code
from seqcl.experiment.versions import data_version
from seqcl.losses import distillation
from seqcl.models.slist import SLIST
from seqcl.models.teachers import OfCounts, teacher_of
from seqcl.objectives.teachers import Teacher, joint_chances, prefixes
from seqcl.retrieval.bundle import Bundle
from seqcl.testing.models import TINY, begun, small_log, tiny
from seqcl.types import SeqBatch
from tests import processes
from tests import reference_losses as slow


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("chunk", [1, 4, None])
def test_the_loss_equals_its_reference_and_passes_gradcheck(temperature, chunk):
    states, table = normal(6, 4).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    wanted = (2 * normal(6, 9, seed=2)).softmax(1)

    def loss(states, table):
        return distillation(states, table, wanted.__getitem__, temperature=temperature, chunk=chunk)

    assert loss(states, table).item() == pytest.approx(slow.distillation(states, table, wanted, temperature))
    assert torch.autograd.gradcheck(loss, (states, table))


def test_a_student_that_is_its_teacher_costs_nothing_and_a_teacher_sure_of_one_item_is_cross_entropy():
    states, table = normal(6, 4), normal(9, 4, seed=1)
    own = (states @ table.T).softmax(1)
    assert float(distillation(states, table, own.__getitem__)) == pytest.approx(0, abs=1e-12)
    targets = torch.tensor([0, 3, 8, 8, 2, 1])
    sure = torch.nn.functional.one_hot(targets, 9).double()
    expected = torch.nn.functional.cross_entropy(states @ table.T, targets)
    torch.testing.assert_close(distillation(states, table, sure.__getitem__), expected)
    assert float(distillation(states[:0], table, own.__getitem__)) == 0


def test_prefixes_end_at_their_places():
    batch = SeqBatch(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]), users=torch.tensor([7, 8]))
    found = prefixes(batch, torch.tensor([1, 4, 0]))
    assert found.items.tolist() == [[1, 2], [4, 5], [1, 0]]
    assert found.lengths.tolist() == [2, 2, 1] and found.users.tolist() == [7, 8, 7]
    assert len(prefixes(batch, torch.tensor([], dtype=torch.long)).items) == 0


@pytest.mark.parametrize("options", [*ENCODERS, {"name": "SASRec", "positions": "end"}], ids=str)
def test_a_network_says_of_all_places_at_once_what_it_says_of_each_prefix_alone(options):
    options = options if isinstance(options, dict) else {"name": options}
    model = "BERT4Rec" if options["name"] == "BERT4Rec" else "SASRec"
    network, batches = begun(tiny(model, encoder=options if model == "SASRec" else {}))
    teacher, batch = teacher_of(network), next(iter(batches))
    places = (batch.targets.flatten() > 0).nonzero()[:, 0]
    at_once = teacher.at(batch, places)
    for part in (slice(0, 7), slice(7, 20)):
        each = torch.cat(
            [network.scores(SeqBatch(row[None, :n], torch.tensor([n]))) for row, n in rows_to(batch, places[part])]
        )
        torch.testing.assert_close(at_once(part), each, rtol=1e-4, atol=1e-4)


def rows_to(batch, places):
    width = batch.items.shape[1]
    return [(batch.items[place // width], place % width + 1) for place in places.tolist()]


def test_a_counted_model_teaches_by_shares_and_several_teachers_by_the_mean_of_their_softmax():
    model, batches = begun(tiny("SASRec"))
    batch = next(iter(batches))
    windows = batches.windows
    counted, places = OfCounts(SLIST(windows)), torch.tensor([0, 1])
    scores = [SLIST(windows).scores(SeqBatch(row[None, :n], torch.tensor([n])))[0] for row, n in rows_to(batch, places)]
    for logits, row in zip(counted.at(batch, places)(slice(0, 2)), scores, strict=True):
        positive = [max(one, 0.0) for one in row.tolist()]
        wanted = [math.log(one / sum(positive) + 1e-5) for one in positive]
        assert logits.tolist() == pytest.approx(wanted, rel=1e-4)
    network = teacher_of(model)
    found = joint_chances([counted, network], batch, places, temperature=2.0)(slice(0, 2))
    expected = sum((one.at(batch, places)(slice(0, 2)) / 2.0).softmax(1) for one in (counted, network)) / 2
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


class Fixed(Teacher):
    """Sure of one item, whatever the row."""

    def logits(self, batch):
        return torch.zeros(len(batch.lengths), 20).index_fill(1, torch.tensor([4]), 50.0)


@pytest.mark.parametrize("model", ["SASRec", "CL4Rec", "BERT4Rec", "TwoTower", "S3Rec"])
def test_any_recipe_learns_from_any_teacher_beside_its_own_terms(model):
    student, batches = begun(tiny(model, distil={"teachers": "Markov", "alpha": 0.25}))
    plain, _ = begun(tiny(model))
    batch = next(iter(batches))
    for one in (student, plain):
        one.eval()
    student.objective.parts["next_item"].teachers = [Fixed()]
    torch.manual_seed(0)
    found = student(batch)
    torch.manual_seed(0)
    alone = plain(batch)
    assert found.keys() == {*alone, "distil"}
    own = "masked_items" if model == "BERT4Rec" else "next_item"
    torch.testing.assert_close(found[own], 0.75 * alone[own])
    scores = [
        student.scores(SeqBatch(row[None, :n], torch.tensor([n])))[0]
        for row, n in rows_to(batch, learned(student, batch))
    ]
    if model != "TwoTower":  # which hides users and ids at random in training alone
        expected = -sum(row.log_softmax(0)[4].item() for row in scores) / len(scores)
        assert found["distil"].item() == pytest.approx(0.25 * expected, rel=1e-3)
    found["distil"].backward()
    assert student.encoder.item_embeddings().requires_grad


def learned(student, batch):
    """The places that the student learns: all, or the newest of each row."""
    if student.objective.parts["next_item"].newest:
        return torch.arange(len(batch.lengths)) * batch.items.shape[1] + batch.lengths - 1
    return (batch.targets.flatten() > 0).nonzero()[:, 0]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A file with a chain."""
    path = tmp_path_factory.mktemp("log") / "chain.csv"
    write(markov(users=200, items=20, length=8, branching=2, seed=1).interactions, path)
    return path


@pytest.fixture(scope="module")
def teachers(log, tmp_path_factory):
    """Two runs that know the chain, one of them with a counted baseline in it."""
    runs = tmp_path_factory.mktemp("teachers")
    common = {"train": {"epochs": 8, "lr": 0.01, "batch_size": 64}, "eval": {"exclude_seen": False}, "track": "none"}
    made = [
        seqcl.train(
            log, model=model, baseline="SLIST", runs=str(runs / model), progress=False, encoder={"dim": 32}, **common
        )
        for model in ("SASRec", "GRU4Rec")
    ]
    return [run.folder for run in made]


def test_distil_takes_the_words_of_the_other_models():
    words = words_of(["SLIST", "--distil.kept", "20", "--dataset", "markov"])
    assert words[-3:] == ["--dataset", "markov", "--distil.teachers=SLIST"] and "--distil.kept" in words


def test_distil_without_teachers_is_refused_and_its_former_spelling_is_read_or_named(tmp_path):
    with pytest.raises(UserError, match=r"Distil learns from teachers: give --distil\.teachers"):
        seqcl.train(small_log(), model="Distil", runs=str(tmp_path), progress=False, distil={"teachers": ""}, **TINY)
    with pytest.raises(UserError, match=r"option objective\.alpha of Distil is called distil\.alpha now"):
        resolve(["--model", "Distil", "--dataset", "markov", "--objective.alpha", "1"])
    text = "model: Distil\ndataset: markov\nobjective: {name: Distillation, teachers: EASE, alpha: 0.7}\n"
    (tmp_path / "config.yaml").write_text(text)
    said = []
    found = of_run(tmp_path, notify=said.append)
    assert found.flat["distil.teachers"] == "EASE" and found.flat["distil.alpha"] == 0.7
    assert any(
        "objective.teachers of Distil is called distil.teachers now; it is read as that" in line for line in said
    )


SMALL = ("--encoder.dim", "16", "--train.epochs", "4", "--train.lr", "0.01", "--train.batch_size", "64")
SMALL = (*SMALL, "--eval.exclude_seen", "false", "--track", "none")


def test_a_counted_teacher_alone_does_not_say_which_data(capsys):
    assert main(["distill", "SLIST"]) == 2
    assert "distill SLIST: it is no run, so it does not say which data: give --dataset" in capsys.readouterr().err


def test_a_run_whose_data_are_not_there_is_named_with_the_way_out(teachers, tmp_path, monkeypatch, capsys):
    moved = tmp_path / "run"
    shutil.copytree(teachers[0], moved)
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(re.sub("(?m)^dataset: .*$", "dataset: shop.csv", config))
    monkeypatch.chdir(tmp_path)
    assert main(["distill", str(moved), "--runs", str(tmp_path / "runs")]) == 2
    told = f"distill {moved}: its data set is shop.csv, which is not there; go where the run was started, or give --dataset FILE"
    assert told in capsys.readouterr().err


def distilled(teachers, runs, *words):
    assert main(["distill", *map(str, teachers), "--runs", str(runs), *SMALL, *words]) == 0
    (folder,) = runs.glob("*-*")
    return folder


def test_a_smaller_student_of_several_teachers_is_an_ordinary_run_near_them(teachers, tmp_path, capsys):
    three = [*teachers, teachers[0] / "baselines" / "SLIST"]
    folder = distilled(three, tmp_path / "runs", "--distil.alpha", "1", "--train.epochs", "12")
    run, best = load(folder), load(teachers[0])
    assert run.metrics["test"]["ndcg@10"] > 0.9 * best.metrics["test"]["ndcg@10"]
    assert run.evaluate("test").metrics == pytest.approx(run.metrics["test"])
    assert (folder / "history.csv").read_text().splitlines()[0].count("loss_distil") == 1
    assert all(str(one) in run.metrics["training"]["teachers"] for one in three)
    history = [run.sequences.item_ids[2], run.sequences.item_ids[4]]
    bundle = Bundle(run.export(tmp_path / "out", index="flat"))
    theirs, ours = (one.recommend(items=history, k=3, exclude_seen=False) for one in (bundle, run))
    assert [item for item, _ in theirs] == [item for item, _ in ours]
    assert not [check.told for check in audit(folder) if check.verdict == "broken"]


def test_a_student_that_is_killed_goes_on_to_the_same_bits_unless_its_teacher_is_gone_or_another(
    teachers, tmp_path, capsys
):
    whole = distilled(teachers[:1], tmp_path / "whole", "--model", "CL4Rec", "--train.save_minutes", "0")
    moved = tmp_path / "teacher"
    shutil.copytree(teachers[0], moved)
    words = [
        "distill",
        str(moved),
        "--runs",
        str(tmp_path / "runs"),
        *SMALL,
        "--model",
        "CL4Rec",
        "--train.save_minutes",
        "0",
    ]
    process = processes.start(processes.command, words, cwd=tmp_path)
    processes.kill_when(process, lambda: list((tmp_path / "runs").glob("*/checkpoints/best.safetensors")))
    (folder,) = (tmp_path / "runs").glob("*-*")
    best = moved / "checkpoints" / "best.safetensors"
    kept = best.read_bytes()
    shutil.copy(teachers[1] / "metrics.json", best)
    assert main(["train", "--resume", str(folder)]) == 2
    assert f"teachers: {best} is not a whole checkpoint" in capsys.readouterr().err
    best.unlink()
    moved.rename(tmp_path / "elsewhere")
    assert main(["train", "--resume", str(folder)]) == 2
    assert f"teachers: {moved} is no folder of a run" in capsys.readouterr().err
    (tmp_path / "elsewhere").rename(moved)
    best.write_bytes(kept)
    assert main(["train", "--resume", str(folder)]) == 0
    one, two = (load_file(run / "checkpoints" / "best.safetensors") for run in (whole, folder))
    assert all(torch.equal(one[name], two[name]) for name in one)
    moved.rename(tmp_path / "elsewhere")
    assert main(["evaluate", str(folder)]) == 0  # a finished run needs no teacher


def test_a_link_is_followed_once_and_a_blend_teaches_nobody(teachers, log, tmp_path, capsys):
    link = tmp_path / "latest"
    link.symlink_to(teachers[0])
    folder = distilled([link], tmp_path / "runs", "--train.epochs", "1")
    assert f"teachers: {teachers[0]}" in (folder / "config.yaml").read_text()
    words = ["train", "--dataset", str(log), *SMALL, "--model", "Distil", "--distil.teachers", str(link)]
    assert main([*words, "--runs", str(tmp_path / "none")]) == 2
    assert f"{link} is a link, which may lead to another run later: give {teachers[0]}" in capsys.readouterr().err
    blend = ["train", "--dataset", str(log), *SMALL, "--model", "Blend", "--train.epochs", "1", "--baseline", ""]
    assert main([*blend, "--runs", str(tmp_path / "blends")]) == 0
    (blended,) = (tmp_path / "blends").glob("Blend-*")
    assert main(["distill", str(blended), "--runs", str(tmp_path / "none")]) == 2
    assert "is a blend, which was weighed on validation" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_another_teacher_under_the_same_name_is_not_gone_on_with(teachers, tmp_path, capsys):
    teacher = tmp_path / "teacher"
    shutil.copytree(teachers[0], teacher)
    folder = distilled([teacher], tmp_path / "runs")
    other = json.loads((folder / "metrics.json").read_text())["training"]["teachers"]
    task = SimpleNamespace(experiment=of_run(folder), log=data_version(load(folder).sequences))
    key = keys.key_of(task.experiment, "data", "code")
    assert same_but_for_code(task, folder)
    shutil.rmtree(teacher)
    shutil.copytree(teachers[1], teacher)
    assert keys.key_of(task.experiment, "data", "code") != key and not same_but_for_code(task, folder)
    before = (folder / "config.yaml").read_text()
    assert main(["train", "--resume", str(folder), "--train.epochs", "5"]) == 2
    assert f"teachers is '{other}' in the checkpoint" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == before, "a refused run is as it was"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.max_len", "4"], "under another protocol: its max_len is 50, not 4"),
        (["--data.split", "temporal"], "under another protocol: its split is leave_one_out, not temporal"),
        (["--dataset", "OTHER"], "learned other data (chain, fingerprint"),
        (["--distil.alpha", "0"], "alpha must be above 0"),
        (["--model", "EASE"], "EASE is counted, so it learns from nobody"),
        (["--model", "SASRex"], "did you mean SASRec"),
    ],
)
def test_what_cannot_teach_or_learn_says_so_and_leaves_no_folder_behind(teachers, log, tmp_path, capsys, words, said):
    other = tmp_path / "other.csv"
    write(shuffled(markov(users=200, items=20, length=8, branching=2, seed=1).interactions, seed=0), other)
    words = [str(other) if word == "OTHER" else word for word in words]
    assert main(["distill", str(teachers[0]), "--runs", str(tmp_path / "runs"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model", "SASRec"], "distill needs the folder of a finished run"),
        (["nowhere"], "nowhere is no folder of a run, nor a model that is counted (EASE"),
        (["a,b"], "cannot have a comma"),
    ],
)
def test_no_teacher_is_said(tmp_path, capsys, given, said):
    assert main(["distill", *given, "--runs", str(tmp_path / "runs")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_folder_of_runs_in_the_place_of_a_teacher_is_answered_with_its_newest_run(tmp_path, capsys):
    (tmp_path / "latest").mkdir()
    assert main(["distill", str(tmp_path)]) == 2
    assert f"it has no config.yaml; did you mean {tmp_path / 'latest'}?" in capsys.readouterr().err


def test_a_folder_cannot_teach_where_nobody_reads_it():
    model, batches = begun(tiny("SASRec", distil={"teachers": "runs/x"}))
    with pytest.raises(UserError, match="the folder of a run teaches where seqcl trains"):
        model(next(iter(batches)))


def test_a_baseline_of_a_student_learns_from_nobody(tmp_path):
    run = seqcl.train(small_log(), model="Distil", baseline="SASRec", runs=str(tmp_path), progress=False, **TINY)
    rows = (run.folder / "baselines" / "SASRec" / "history.csv").read_text().splitlines()
    assert "loss_distil" not in rows[0] and "teachers" not in run.metrics["training"]
