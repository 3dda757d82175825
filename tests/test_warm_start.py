"""A run that goes on from an earlier one: rows by raw id, new items from neighbours, and nothing held out that was learned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

import seqcl
from seqcl import config
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.experiment import tasks, warm
from seqcl.experiment.audit import audit
from seqcl.experiment.grid_file import read_grid
from seqcl.experiment.tasks import keep, tasks_of
from seqcl.models.pretraining import Pretraining
from seqcl.objectives.follower import Follower

SMALL: dict = {
    "encoder": {"dim": 8},
    "data": {"max_len": 6},
    "train": {"epochs": 1, "batch_size": 32},
    "eval": {"exclude_seen": False},
    "track": "none",
}


def frame_of(*, users, items, length, seed=1):
    """A chain as a frame; the items are words that sort in another order than their numbers."""
    log = markov(users=users, items=items, length=length, branching=2, seed=seed).interactions
    words = np.array([f"i{(7 * item) % 31:02}" for item in range(items)])
    times = np.arange(len(log.users)) % length
    return pd.DataFrame(
        {"user_id": [f"u{user:03}" for user in log.users], "item_id": words[log.items], "timestamp": times}
    )


@pytest.fixture(scope="module")
def logs():
    """All of a log, and what was there before: its first days, without five items and ten users."""
    whole = frame_of(users=50, items=20, length=10)
    gone = set(sorted(whole["item_id"].unique())[3:13:2])
    before = whole[(whole["timestamp"] < 7) & ~whole["item_id"].isin(gone) & (whole["user_id"] > "u009")]
    return before.reset_index(drop=True), whole, gone


@pytest.fixture(scope="module")
def earlier(logs, tmp_path_factory):
    return seqcl.train(logs[0], model="CL4Rec", runs=str(tmp_path_factory.mktemp("old")), progress=False, **SMALL)


def on(logs, folder, earlier, **more):
    values = {"model": "CL4Rec", "warm_start": str(earlier.folder), "runs": str(folder), "progress": False}
    return seqcl.train(logs[1], **(values | SMALL | more))


def weights(folder, name):
    with safe_open(folder / "checkpoints" / name, framework="pt") as file:
        return {key.removeprefix("model."): file.get_tensor(key) for key in file.keys() if key.startswith("model.")}  # noqa: SIM118


@pytest.mark.parametrize("model", ["CL4Rec", "MoCoRec", "BYOLRec", "MiCERec"])
def test_rows_are_those_of_the_same_raw_ids_and_new_ones_their_neighbours_mean(logs, earlier, tmp_path, model):
    run = on(logs, tmp_path, earlier, model=model)
    old, new = weights(earlier.folder, "best.safetensors"), weights(run.folder, "start.safetensors")
    names = [name for name in new if name.endswith("table.weight")]
    assert len(names) == (1 if model == "CL4Rec" else 2)
    for name in names:  # a slow copy too begins so
        theirs, ours = old[names[0]], new[name]
        place = {item: number for number, item in enumerate(earlier.sequences.item_ids.tolist(), 1)}
        known = [item in place for item in run.sequences.item_ids.tolist()]
        assert known.count(False) == len(logs[2]) == 5
        for number, item in enumerate(run.sequences.item_ids.tolist(), 1):
            if item in place:
                assert torch.equal(ours[number], theirs[place[item]])
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[-1], theirs[-1])  # PAD and MASK
        length = theirs[1:-1].norm(dim=1).mean()
        for number, item in enumerate(run.sequences.item_ids.tolist(), 1):
            if item not in place:
                beside = []
                for user in range(run.sequences.num_users):  # slow and plain; leave-one-out: the last two are held out
                    row = run.sequences.row(user).tolist()[:-2]
                    for left, right in pairwise(row):
                        beside += [b for a, b in ((left, right), (right, left)) if a == number and known[b - 1]]
                mean = torch.stack([ours[b] for b in beside]).mean(0)
                torch.testing.assert_close(ours[number], mean * length / mean.norm(), rtol=1e-5, atol=1e-6)
    layer = next(
        name
        for name in new
        if name.startswith("encoder.") and name not in names and new[name].dim() == 2 and "position" not in name
    )
    assert torch.equal(new[layer], old[layer])
    slow = [name for name in new if ".follower." in name]
    assert bool(slow) == (model != "CL4Rec")
    for name in slow:
        inner = name.partition(".follower.")[2]
        head = name.replace("follower.head", {"MiCERec": "spaces"}.get(model, "head"))
        assert torch.equal(new[name], new[inner if inner.startswith("encoder.") else head])


@pytest.mark.parametrize("contrast", [True, False])
def test_a_slow_copy_that_pre_trains_begins_as_its_encoder(logs, earlier, tmp_path, monkeypatch, contrast):
    begun = []

    class Watched(Pretraining):
        def __init__(self, *, encoder, objective, stage):
            super().__init__(encoder=encoder, objective=objective, stage=stage)
            (copy,) = (module for module in objective.modules() if isinstance(module, Follower))
            begun.append(
                [torch.equal(a, b) for a, b in zip(copy.encoder.parameters(), encoder.parameters(), strict=True)]
            )

    monkeypatch.setattr("seqcl.models.base.Pretraining", Watched)
    on(logs, tmp_path, earlier, model="MoCoRec", pretrain={"epochs": 1, "contrast": contrast})
    assert begun and all(begun[0])


def test_the_protocol_says_from_which_run_and_the_audit_holds(logs, earlier, tmp_path):
    run = on(logs, tmp_path, earlier, baseline="SASRec", new_items="mean")
    from seqcl.data.sealed import hash_of

    wanted = hash_of(earlier.folder / "checkpoints" / "best.safetensors")
    assert run.metrics["protocol"]["warm_start"] == run.evaluate().protocol["warm_start"] == wanted
    assert (run.folder / "baselines" / "SASRec" / warm.START).exists()
    found = audit(run.folder)
    assert not [check for check in found if check.verdict == "broken"]
    assert len([check for check in found if "which are those of start.safetensors" in check.told]) == 2
    earlier.folder.rename(tmp_path / "moved")  # the run is whole without it
    try:
        found = audit(run.folder)
        assert not [check for check in found if check.verdict == "broken"]
        assert len([check for check in found if "not compared: the weights of start.safetensors" in check.told]) == 2
        assert seqcl.load(run.folder).recommend(user="u000", k=3)
    finally:
        (tmp_path / "moved").rename(earlier.folder)


def test_a_benchmark_takes_a_run_that_went_on_only_while_the_earlier_one_is_the_same(
    logs, earlier, tmp_path, monkeypatch
):
    shutil.copytree(earlier.folder, tmp_path / "old")
    logs[1].to_csv(tmp_path / "log.csv", index=False)
    monkeypatch.chdir(tmp_path)
    options = json.dumps(SMALL | {"warm_start": "old"})
    Path("grid.yaml").write_text(f"data: log.csv\nmodels: CL4Rec\nseeds: 1\noptions: {options}\ncontrast: as-is\n")
    rows = read_grid(Path("grid.yaml")).rows()
    (task,) = tasks_of(rows, Path("runs"))
    task.folder.mkdir(parents=True)
    task.folder.joinpath("asked.yaml").write_text(task.experiment.to_yaml())
    assert main(task.command()) == 0
    assert task.look()
    keep(task, Path("kept"))

    def found(kept_in=None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tasks, "code_version", lambda: "other")
            return tasks_of(rows, Path("runs"), kept_in=kept_in, accept_older=True)[0].run

    assert found() == task.run and found(Path("kept")) == task.file_in(Path("kept"))
    weights = Path("old/checkpoints/best.safetensors")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert found() is None
    with pytest.raises(UserError, match="kept with another hash of the weights of warm_start"):
        found(Path("kept"))


def leaky_neighbours(patch):
    """New items begin from the items that stand beside them in whole rows."""
    made = warm.neighbours
    patch.setattr(warm, "neighbours", lambda train, rows: made(replace(train, ends=train.offsets[1:]), rows))


@pytest.mark.parametrize("clean", [False, True])
def test_first_vectors_made_of_held_out_interactions_are_found(logs, earlier, tmp_path, clean):
    with pytest.MonkeyPatch.context() as patch:
        leaky_neighbours(patch)
        run = on(logs, tmp_path, earlier)
        if not clean:
            found = audit(run.folder)
    if clean:  # the code of the audit is
        found = audit(run.folder)
    broken = {check.name: check.told for check in found if check.verdict == "broken"}
    told = "start.safetensors has others than" if clean else "with other held-out interactions 1 of"
    assert told in broken["tables and first weights"], broken


def test_an_earlier_run_that_had_learned_what_is_held_out_is_found(logs, tmp_path):
    later = seqcl.train(logs[1], model="CL4Rec", runs=str(tmp_path), progress=False, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "check_unseen", lambda *_: None)
        short = logs[1][logs[1]["timestamp"] < 8]
        run = on([None, short], tmp_path, later)
    broken = {check.name: check.told for check in audit(run.folder) if check.verdict == "broken"}
    assert "interactions that this run holds out, such as" in broken["tables and first weights"], broken


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_with_the_same_weights(logs, earlier, tmp_path):
    whole = on(logs, tmp_path / "a", earlier)
    part = on(logs, tmp_path / "b", earlier)
    for name in ("last", "best", "previous"):
        (part.folder / "checkpoints" / f"{name}.safetensors").unlink(missing_ok=True)
    (part.folder / "history.csv").unlink()
    seen: list[str] = []
    again = config.of_run(part.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "carry", lambda *_, **__: seen.append("again"))
        seqcl.experiment.execute(again, resume=part.folder, progress=False)
    ours, theirs = weights(part.folder, "best.safetensors"), weights(whole.folder, "best.safetensors")
    assert not seen and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_was_learned_and_is_held_out_now_is_refused(logs, earlier, tmp_path):
    later = seqcl.train(logs[1], model="SASRec", runs=str(tmp_path), progress=False, **SMALL)
    short = logs[1][logs[1]["timestamp"] < 8]
    with pytest.raises(
        UserError,
        match=r"--warm_start .*: it learned from \d+ interactions that this run holds out, such as that of user u0",
    ):
        seqcl.train(
            short, model="SASRec", warm_start=str(later.folder), runs=str(tmp_path / "no"), progress=False, **SMALL
        )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"encoder": {"dim": 16}},
            r"of other dimensions: encoder.dim is 8, not 16; encoder.table.weight is \(17, 8\) there and \(22, 16\) here",
        ),
        (
            {"encoder": {"dim": 8, "layers": 1}},
            r"of other dimensions: encoder.layers is 2, not 1; encoder\..*1\..* is \(.*\) there and missing here",
        ),
        ({"data": {"max_len": 9}}, "of other dimensions: data.max_len is 6, not 9"),
        ({"encoder": {"name": "GRU", "dim": 8}}, "its encoder is SASRec, and this run's is GRU; give --encoder SASRec"),
        ({"model": "Ensemble"}, "it has 1 network, and this run 2; give --ensemble.networks 1$"),
        ({"new_items": "features"}, "the encoder reads no features of items; take neighbours or mean"),
        ({"new_items": "mena"}, "did you mean mean"),
        ({"start": "spectral"}, "--start spectral: the first item embeddings are those of --warm_start"),
        ({"model": "Popularity", "encoder": {}}, "Popularity is counted, not trained"),
        ({"warm_start": "nowhere"}, "--warm_start nowhere: nowhere is no run"),
    ],
)
def test_another_model_is_refused_with_the_difference_named(logs, earlier, tmp_path, more, message):
    values = {key: value for key, value in more.items() if value}
    if more.get("model") == "Popularity":
        with pytest.raises(UserError, match=message):
            seqcl.train(logs[1], model="Popularity", warm_start=str(earlier.folder), progress=False)
        return
    with pytest.raises(UserError, match=message):
        on(logs, tmp_path / "no", earlier, **values)
    assert not (tmp_path / "no").exists()


def test_towers_of_another_width_are_refused_with_the_width_named(logs, tmp_path):
    items = sorted(logs[1]["item_id"].unique())
    pd.DataFrame({"item_id": items, "kind": [f"k{n % 3}" for n in range(len(items))]}).to_csv(tmp_path / "items.csv", index=False)  # fmt: skip
    own = SMALL | {"model": "TwoTower", "progress": False, "features": {"item_table": str(tmp_path / "items.csv")}}
    before = seqcl.train(logs[0], runs=str(tmp_path / "runs"), **own | {"towers": {"width": 16}})
    with pytest.raises(UserError, match=r"of other dimensions: towers.width is 16, not 8; encoder\..* \(3, 16\) there"):
        seqcl.train(logs[1], runs=str(tmp_path / "no"), warm_start=str(before.folder), **own | {"towers": {"width": 8}})
    with pytest.raises(UserError, match="its model is TwoTower, and this run's is SASRec: one of them alone"):
        on(logs, tmp_path / "no", before, model="SASRec")


def test_a_link_to_the_earlier_run_is_kept_as_the_run_that_it_leads_to(logs, earlier, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(earlier.folder)
    run = seqcl.train(
        logs[1], model="CL4Rec", warm_start=str(link), runs=str(tmp_path / "runs"), progress=False, **SMALL
    )
    assert run.experiment.options.warm_start == str(earlier.folder.resolve())


def test_the_command_takes_the_option_as_other_programs_spell_it(earlier, tmp_path, capsys):
    words = ["train", "--model", "CL4Rec", "--warm-start", str(earlier.folder), "--new-items", "mean", "--print_config"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"warm_start: {earlier.folder}" in shown and "new_items: mean" in shown
