"""`seqcl diagnose`: each figure against a slow reference, a closed form or a planted truth, and its pictures."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from scipy import stats

import seqcl
from seqcl.augment import Crop, Mask, Reorder
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.evaluation import by_count, hardest_share, quantiles
from seqcl.experiment import training_batches
from seqcl.experiment.diagnose import compared, diagnose, encoded, plain_json, prepared, some_rows
from seqcl.experiment.geometry import curves_of
from seqcl.experiment.maps import map_of
from seqcl.report import read_history

pytestmark = pytest.mark.once

KINDS = pd.DataFrame({"kind": [f"k{item % 3}" for item in range(40)]}, index=range(40))
LOG = replace(markov(users=150, items=40, length=8, branching=2, seed=1).interactions, item_features=KINDS)
SMALL = {
    "encoder": {"dim": 8}, "eval": {"exclude_seen": False},
    "train": {"epochs": 2, "lr": 0.02, "warmup": 0, "batch_size": 32, "patience": 0},
}  # fmt: skip
PICTURES = ["geometry", "views", "false_negatives", "hardness", "popularity"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("runs"))
    return seqcl.train(LOG, model="CL4Rec", runs=folder, progress=False, data={"max_len": 5}, **SMALL)


@pytest.fixture(scope="module")
def found(run):
    return diagnose(run, rows=60, map=False)


def test_the_hardest_negatives_have_the_share_of_the_gradient_that_autograd_gives():
    torch.manual_seed(0)
    rows, temperature, parts = 12, 0.3, (0.01, 0.2, 0.5, 1.0)
    vectors = torch.nn.functional.normalize(torch.randn(2 * rows, 5, dtype=torch.float64), dim=1)
    cosines = vectors @ vectors.T
    negatives = ~(torch.eye(2 * rows, dtype=torch.bool) | torch.eye(2 * rows, dtype=torch.bool).roll(rows, 1))
    negatives[0] = False  # an anchor without negatives
    expected = []
    for part in parts:
        shares = []
        for anchor in range(1, 2 * rows):
            mine = cosines[anchor].clone().requires_grad_()
            positive = (anchor + rows) % (2 * rows)
            others = [place for place in range(2 * rows) if place != anchor]
            (torch.logsumexp(mine[others] / temperature, 0) - mine[positive] / temperature).backward()
            pulls = mine.grad[negatives[anchor]]
            order = cosines[anchor][negatives[anchor]].argsort(descending=True)
            shares.append(float(pulls[order[: math.ceil(part * len(pulls))]].sum() / pulls.sum()))
        expected.append(np.mean(shares))
    assert hardest_share(cosines, negatives, temperature=temperature, parts=parts) == pytest.approx(expected)
    assert hardest_share(
        torch.zeros(3, 9), torch.ones(3, 9, dtype=torch.bool), temperature=1, parts=[1 / 3]
    ) == pytest.approx([1 / 3])
    assert math.isnan(hardest_share(cosines, torch.zeros_like(negatives), temperature=1, parts=[1])[0])


def test_a_low_temperature_puts_the_weight_on_the_hardest_and_a_high_one_on_all(found):
    curves = {curve["temperature"]: curve["shares"] for curve in found["hardness"]["curves"]}
    assert found["hardness"]["temperature"] in curves
    ordered = [curves[key] for key in sorted(curves)]
    for sharper, flatter in pairwise(ordered):
        assert all(one >= other - 1e-12 for one, other in zip(sharper, flatter, strict=True))
    for shares in ordered:
        assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
        assert all(share >= part - 1e-9 for share, part in zip(shares, found["hardness"]["parts"], strict=True))


def test_geometry_is_that_of_numpy(run, found):
    model, geometry = run.model, found["geometry"]
    items = model.encoder.item_embeddings()[1:-1].detach().double().numpy()
    values = np.linalg.svd(items, compute_uv=False)
    shares = values / values.sum()
    assert geometry["items"]["singular_values"] == pytest.approx(values.tolist())
    assert geometry["items"]["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    gaps = [((one - other) ** 2).sum() for place, one in enumerate(unit) for other in unit[:place]]
    assert geometry["items"]["uniformity"] == pytest.approx(np.log(np.mean(np.exp(-2 * np.array(gaps)))), abs=1e-6)
    windows, cosines = run.split.valid, []
    for place in np.linspace(0, len(windows) - 1, min(120, len(windows))).astype(int):
        row = windows.items[windows.start[place] : windows.stop[place]].astype(np.int64)
        batch = seqcl.types.SeqBatch(torch.from_numpy(row)[None], torch.tensor([len(row)]))
        state = model.encoder.last(batch)[0].detach().double().numpy()
        target = items[windows.items[windows.stop[place]] - 1]
        cosines.append(state @ target / np.linalg.norm(state) / np.linalg.norm(target))
    assert geometry["target_cosine"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert geometry["target_alignment"] == pytest.approx(2 - 2 * np.mean(cosines), abs=1e-5)


def test_false_negatives_are_those_of_a_loop_over_the_batches_of_the_first_epoch(run, found):
    told = found["false_negatives"]
    row = next(one for one in told["sizes"] if one["batch_size"] == told["batch_size"] == 32)
    loader = training_batches(run.split, run.experiment.train, seed=0, device=torch.device("cpu"))
    sums = []
    for batch in loader.epoch(0):
        if len(batch.users) < 32:
            continue
        who = list(zip(batch.users.tolist(), batch.last_targets().tolist(), strict=True))
        pairs = [(one, other) for a, one in enumerate(who) for b, other in enumerate(who) if a != b]
        target = np.mean([one[1] == other[1] for one, other in pairs])
        user = np.mean([one[0] == other[0] for one, other in pairs])
        either = np.mean([one[1] == other[1] or one[0] == other[0] for one, other in pairs])
        rows = np.mean([any(a != b and (one[1] == other[1] or one[0] == other[0]) for b, other in enumerate(who)) for a, one in enumerate(who)])  # fmt: skip
        sums.append([target, user, either, rows])
    names = ("same_target", "same_user", "either", "rows_with_one")
    assert [row[name] for name in names] == pytest.approx(np.mean(sums, 0).tolist())
    assert row["same_user"] > 0  # sliding windows of a short max_len: a user has several rows
    everything = [int(one) for one in run.split.train.items[run.split.train.stop]]
    same = sum(one == other for a, one in enumerate(everything) for b, other in enumerate(everything) if a != b)
    assert told["expected"] == pytest.approx(same / len(everything) / (len(everything) - 1))


def test_views_that_change_nothing_are_one_and_cosines_are_those_of_each_row(run, found):
    model, batch = run.model, some_rows(run, 40)
    with torch.no_grad():
        for unchanged in (Mask(rate=0.0), Reorder(rate=0.0), Crop(rate=1.0)):
            same = compared(model, batch, prepared(unchanged, run))
            assert same["mean"] == pytest.approx(1, abs=1e-5) and same["alignment"] == pytest.approx(0, abs=1e-5)
        torch.manual_seed(3)
        measured = compared(model, batch, prepared(Mask(rate=0.5), run))
        torch.manual_seed(3)
        first, second = prepared(Mask(rate=0.5), run)(batch, torch.default_generator)
        states = [[model.encoder.last(seqcl.types.SeqBatch(view.items[row, : view.lengths[row]][None], view.lengths[row][None]))[0].double().numpy() for row in range(40)] for view in (first, second)]  # fmt: skip
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*states, strict=True)]
    assert measured["mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert [measured["low"], measured["high"]] == pytest.approx(np.quantile(cosines, [0.1, 0.9]).tolist(), abs=1e-5)
    assert measured["alignment"] == pytest.approx(2 - 2 * np.mean(cosines), abs=1e-5)
    rates = {(row["operator"], row["rate"]): row["mean"] for row in found["views"]["operators"]}
    assert len(rates) == 25 and rates["mask", 0.1] > rates["mask", 0.9]
    assert found["views"]["own"]["mean"] > found["views"]["rows"]["mean"]


def test_rows_are_encoded_in_pieces_as_alone(run, monkeypatch):
    batch = some_rows(run, 33)
    with torch.no_grad():
        together = encoded(run.model, batch)
        monkeypatch.setattr("seqcl.experiment.diagnose.ENCODED", 7)
        assert torch.allclose(encoded(run.model, batch), together, atol=1e-6)


def test_popular_items_are_grouped_and_correlated_as_planted():
    random = np.random.default_rng(0)
    counts = random.permutation(100)
    directions = torch.nn.functional.normalize(torch.from_numpy(random.standard_normal((100, 6))), dim=1)
    found = by_count(directions * torch.from_numpy(1.0 + counts)[:, None], counts)
    assert found["correlation"]["norm"] == pytest.approx(1)
    assert [(row["from"], row["to"], row["items"]) for row in found["groups"]] == [
        (10 * n, 10 * n + 9, 10) for n in range(10)
    ]
    assert [row["norm"] for row in found["groups"]] == pytest.approx([10 * n + 5.5 for n in range(10)])
    mean = (directions * torch.from_numpy(1.0 + counts)[:, None]).mean(0)
    angles = [math.degrees(math.acos(float(one @ mean / mean.norm()))) for one in directions]
    assert found["angle"].tolist() == pytest.approx(angles)
    assert found["correlation"]["angle"] == pytest.approx(stats.spearmanr(angles, counts).statistic)
    alike = by_count(directions, counts)
    assert alike["correlation"]["norm"] is None  # all are of length 1


def test_quantiles_of_nothing_are_no_numbers():
    assert quantiles(torch.tensor([1.0, 2.0, 3.0])) == {"mean": 2.0, "low": 1.2, "high": 2.8}
    assert all(math.isnan(value) for value in quantiles(torch.empty(0)).values())


def test_a_map_keeps_planted_clusters_apart():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.neighbors import NearestNeighbors

    random = np.random.default_rng(0)
    group = np.arange(120) % 4
    vectors = torch.from_numpy(np.eye(8)[group] * 3 + 0.1 * random.standard_normal((120, 8))).float()
    vectors[5] = 0  # an item without a vector has no place
    found = map_of(vectors, np.ones(120, int), np.arange(1, 121), np.array([f"i{n}" for n in range(120)]), None)
    kept = np.array([int(item[1:]) for item in found["item"]])
    assert 5 not in kept and len(kept) == 119 and found["trustworthiness"] > 0.9
    places = np.stack((found["x"], found["y"]), 1)
    near = NearestNeighbors(n_neighbors=6).fit(places).kneighbors(places, return_distance=False)[:, 1:]
    assert (group[kept][near] == group[kept][:, None]).mean() > 0.99


def test_what_is_no_number_is_null_in_json():
    assert plain_json({"a": np.array([1.0, math.nan]), "b": (np.float32(0.5), math.inf, "x", None)}) == {"a": [1.0, None], "b": [0.5, None, "x", None]}  # fmt: skip


def test_the_command_writes_figures_and_a_picture_for_each_topic(run, tmp_path, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert main(["diagnose", str(run.folder), "--rows", "40", "--out", str(tmp_path / "out"), "--colour", "kind"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("items: effective rank") and lines[-1].endswith(f"in {tmp_path / 'out'}")
    stored = json.loads((tmp_path / "out" / "diagnose.json").read_text())
    assert set(stored) == {"model", "data", *PICTURES, "map"}
    assert set(stored["map"]["word"]) == {"kind=k0", "kind=k1", "kind=k2"}
    assert all(
        word == f"kind=k{item % 3}" for word, item in zip(stored["map"]["word"], stored["map"]["item"], strict=True)
    )
    for name in (*PICTURES, "map"):
        picture = imread(tmp_path / "out" / f"{name}.png")[..., :3]
        assert picture.shape[1] >= 700 and 0.005 < (picture < 0.9).any(-1).mean() < 0.6, name


def test_a_map_without_scikit_learn_is_left_out_or_refused_and_never_another_one(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    asked = ["diagnose", str(run.folder), "--rows", "20", "--out", str(tmp_path / "out")]
    assert main([*asked, "--map", "tsne"]) == 2
    assert "pip install 'seqcl[maps]'" in capsys.readouterr().err
    assert main(asked) == 0
    assert capsys.readouterr().out.startswith("no map: ")
    assert not (tmp_path / "out" / "map.png").exists() and "map" not in json.loads(
        (tmp_path / "out" / "diagnose.json").read_text()
    )


def test_what_cannot_be_diagnosed_is_refused(run, tmp_path, capsys):
    assert main(["diagnose", str(run.folder / "baselines" / "Popularity")]) == 2
    assert "Popularity is counted, not trained" in capsys.readouterr().err
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    for wrong, message in ((["--rows", "1"], "must be 2 or more"), (["--map", "none", "--colour", "kind"], "--colour is for the map"), (["--colour", "kin"], "kind")):  # fmt: skip
        assert main(["diagnose", str(run.folder), *wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="rows 1"):
        diagnose(run, rows=1)


def test_effective_ranks_alignment_and_uniformity_are_logged_at_every_validation(run):
    rows = read_history(run.folder / "history.csv")
    best = max(rows, key=lambda row: row["valid_ndcg@10"])
    with torch.no_grad():
        now = curves_of(run.model, run.split, run.experiment.eval, run.device)
    assert {name: best[f"valid_{name}"] for name in now} == pytest.approx(now, rel=1e-5)
    assert len(rows) == 2 and all(f"valid_{name}" in row for row in rows for name in now)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert {f"valid/{name}" for name in now} | {"observed/alignment", "observed/uniformity"} <= set(
        events.Tags()["scalars"]
    )
