"""Every trained recipe, whole: near the ceiling on a chain, at chance on noise, resumed to the same bits, not collapsed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl.config import from_mapping
from seqcl.data import leave_one_out, markov, shuffled
from seqcl.encoders import ENCODERS
from seqcl.errors import UserError
from seqcl.experiment import SHARED, Options, Preparation, build, training_batches
from seqcl.experiment.trial import Trial
from seqcl.models import MODELS, Recommender
from seqcl.training import Interrupted, Trainer

RECIPES = sorted({kind.__name__ for kind in MODELS.values() if issubclass(kind, Recommender)})
SMALL = {
    "encoder": {"dim": 32},
    "data": {"windows": "last"},
    "train": {"epochs": 8, "lr": 0.005, "batch_size": 64},
    "eval": {"exclude_seen": False},  # a chain comes back to its items
}
SLOWER = {
    "NARM": {"train": SMALL["train"] | {"epochs": 12}},
    # A fifth of the positions learns in one pass.
    "BERT4Rec": {"encoder": {"dim": 32, "dropout": 0.1, "layers": 1}, "train": SMALL["train"] | {"epochs": 20}},
}
"""What the models that need more steps to learn the chain take."""
ATTRIBUTES = pd.DataFrame({"kind": [f"k{item % 7}" for item in range(500)]}, index=range(500))
OWN = {
    "S3Rec": {"pretrain": {"epochs": 2}},
    "CoSeRec": {"views": {"warmup": 1}},
    "TiCoSeRec": {"views": {"warmup": 1, "threshold": 4}},
    "DuoRec": {"views": {"positives": "both"}},
}
"""What makes a recipe use all that it has within three epochs."""
TINY = {"encoder": {"dim": 8}, "data": {"windows": "last"}, "train": {"epochs": 3, "batch_size": 16, "patience": 0}}
FREE_OF_NEGATIVES = ["BYOLRec", "SimSiamRec", "SwAVRec"]
every_recipe = pytest.mark.parametrize("model", RECIPES)


def some_log(**sizes):
    """The log of a chain, with something known of its items."""
    return replace(markov(**sizes, branching=2, seed=1).interactions, item_features=ATTRIBUTES)


@pytest.fixture(scope="module")
def chain():
    made = markov(users=600, items=30, length=12, branching=2, seed=1)
    return replace(made, interactions=replace(made.interactions, item_features=ATTRIBUTES))


def ceiling(chain, run):
    return chain.ceiling(run.split.test, run.sequences.item_ids, ks=(10,))["ndcg@10"]


@pytest.fixture(scope="module")
def trained(chain, tmp_path_factory):
    """Runs by model, each made once."""
    runs = {}

    def run(model):
        if model not in runs:
            folder = tmp_path_factory.mktemp("runs")
            runs[model] = seqcl.train(
                chain.interactions, model=model, runs=str(folder), progress=False, **SMALL | SLOWER.get(model, {})
            )
        return runs[model]

    return run


@every_recipe
def test_a_recipe_comes_near_the_ceiling_of_a_markov_chain(chain, trained, model):
    found, best = trained(model), ceiling(chain, trained(model))
    assert 0.9 * best < found.metrics["test"]["ndcg@10"] < 1.05 * best


@every_recipe
def test_a_recipe_stays_at_chance_on_shuffled_data(tmp_path, model):
    chain = markov(users=300, items=30, length=12, branching=2, seed=1)
    control = replace(shuffled(chain.interactions, seed=0), item_features=ATTRIBUTES)
    values = SMALL | {"train": {"epochs": 3, "lr": 0.005, "batch_size": 64}}
    made = seqcl.train(control, model=model, runs=str(tmp_path), progress=False, **values)
    # What is left is which items a user has, a little more than popularity; the order, most of the ceiling, is gone.
    assert made.metrics["test"]["ndcg@10"] < 0.25 * ceiling(chain, made)


@every_recipe
def test_every_term_of_a_recipe_reaches_the_encoder(tmp_path, model):
    recipe, batches, _ = whole(model)
    recipe.objective.before_epoch(recipe.encoder, batches, epoch=9, epochs=10)  # past every warm-up
    table = next(one for name, one in recipe.encoder.named_parameters() if name.endswith("table.weight"))
    batch = next(iter(batches))
    recipe(batch)  # fills queues and banks
    for name, term in recipe(batch).items():
        recipe.zero_grad()
        term.backward(retain_graph=True)
        assert table.grad.abs().sum() > 0, name
        recipe.zero_grad()


def whole(model, seed=0, held_out=None):
    """A tiny model, its batches and its trainer; `held_out` overwrites every item that training may not know."""
    config = from_mapping({"model": model, "dataset": "x", "seed": seed, **OWN.get(model, {}), **TINY}, SHARED, Options)
    log = some_log(users=60, items=20, length=8)
    split = leave_one_out(Preparation(**config.data.as_dict()).sequences(log), windows="last", max_len=50)
    if held_out is not None:
        items = np.array(split.train.items)
        for begin, end in zip(split.train.ends, split.train.offsets[1:], strict=True):
            items[begin:end] = held_out
        parts = {name: replace(getattr(split, name), items=items) for name in ("train", "valid", "test")}
        split = replace(split, **parts)
    recipe, trainer = build(config, split), Trainer(**config.train.as_dict())
    torch.manual_seed(seed)
    times = recipe.objective.times_needed
    return recipe, training_batches(split, trainer, seed=seed, device=torch.device("cpu"), times=times), trainer


@every_recipe
def test_similarity_clusters_and_rows_come_from_training_items_alone(model):
    weights = []
    for held_out in (1, 7):
        recipe, batches, trainer = whole(model, held_out=held_out)
        trainer.fit(recipe, batches, progress=False)
        weights.append({key: value for key, value in recipe.state_dict().items()})
    assert all(torch.equal(one, two) for one, two in zip(weights[0].values(), weights[1].values(), strict=True))


class Stopped:
    """Batches that send SIGTERM to this process before one of them."""

    def __init__(self, batches, at):
        self.batches, self.at = batches, at

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def epoch(self, number, start=0):
        for place, batch in enumerate(self.batches.epoch(number, start)):
            if (number, place + start) == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


@every_recipe
def test_a_stopped_recipe_goes_on_to_the_same_bits(tmp_path, model):
    expected, batches, trainer = whole(model)
    trainer.fit(expected, batches, progress=False)
    stopped, batches, trainer = whole(model)
    with pytest.raises(Interrupted):
        trainer.fit(stopped, Stopped(batches, (1, 1)), folder=tmp_path, progress=False)
    resumed, batches, trainer = whole(model, seed=0)
    torch.manual_seed(99)
    trainer.fit(resumed, batches, folder=tmp_path, resume=True, progress=False)
    for (name, one), two in zip(expected.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def pretrained(held_out=None, **mutual):
    """What S3Rec is pre-trained with, its batches and its trainer."""
    recipe, batches, trainer = whole("S3Rec", held_out=held_out)
    recipe.mutual.keywords.update(mutual)
    return recipe.pretraining(), batches, trainer


def test_every_term_of_pretraining_reaches_the_encoder_and_its_own_map():
    stage, batches, _ = pretrained()
    batch = next(iter(batches))
    terms = stage(batch)
    assert set(terms) == {"item_attribute", "masked_item", "masked_attribute", "segment"}
    for name, term in terms.items():
        stage.zero_grad()
        term.backward(retain_graph=True)
        assert stage.encoder.item_embeddings().grad.abs().sum() > 0, name
        assert {key for key, one in stage.objective.maps.items() if one.weight.grad is not None} == {name}
    assert stage.encoder.causal


def test_pretraining_learns_and_knows_no_item_that_training_does_not():
    weights, losses = [], []
    for held_out in (1, 7):
        stage, batches, trainer = pretrained(held_out=held_out)
        result = replace(trainer, epochs=15, lr=0.01, warmup=0, ema=0).fit(stage, batches, progress=False)
        losses = [row["loss"] for row in result.history]
        weights.append(stage.state_dict())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(one, two) for one, two in zip(weights[0].values(), weights[1].values(), strict=True))


def test_pretraining_changes_what_training_begins_with_and_leaves_nothing_else_behind(tmp_path, chain):
    common = {
        "model": "S3Rec",
        "progress": False,
        **SMALL,
        "train": {"epochs": 1, "lr": 0.0, "ema": 0, "batch_size": 64},
    }
    with_it = seqcl.train(chain.interactions, **common, runs=str(tmp_path / "with"), pretrain={"epochs": 2})
    without = seqcl.train(chain.interactions, **common, runs=str(tmp_path / "without"), pretrain={"epochs": 0})
    one, two = with_it.model.state_dict(), without.model.state_dict()
    assert one.keys() == two.keys() and not any("mutual" in name or "attributes" in name for name in one)
    assert not torch.equal(one["encoder.table.weight"], two["encoder.table.weight"])
    assert (with_it.folder / "pretrain" / "history.csv").exists() and not (without.folder / "pretrain").exists()
    about = with_it.metrics["training"]["pretraining"]
    assert about["epochs"] == 2 and about["seconds"] > 0 and about["attributes"]
    assert without.metrics["training"]["pretraining"] is None


def test_pretraining_begins_the_same_alone_beside_a_baseline_and_as_one(tmp_path):
    log = some_log(users=60, items=20, length=8)
    common = {"progress": False, **TINY, "train": {"epochs": 1, "batch_size": 16}}
    alone = seqcl.train(log, model="S3Rec", runs=str(tmp_path / "a"), **common)
    beside = seqcl.train(log, model="S3Rec", baseline="SASRec", runs=str(tmp_path / "b"), **common)
    one, two = alone.model.state_dict(), beside.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    behind = seqcl.train(log, model="SASRec", baseline="S3Rec", runs=str(tmp_path / "c"), **common)
    assert behind.metrics["baselines"]["S3Rec"]["test"] == alone.metrics["test"]


@pytest.mark.parametrize("minutes", [0.02, 1e-6])
def test_pretraining_has_half_of_the_time_and_training_is_validated_at_least_once(tmp_path, caplog, minutes):
    log = some_log(users=60, items=20, length=8)
    common = {"progress": False, **TINY, "train": {"epochs": 5000, "patience": 0, "max_minutes": minutes}}
    run = seqcl.train(log, model="S3Rec", runs=str(tmp_path), **common, pretrain={"epochs": 5000})
    about = run.metrics["training"]
    assert about["stopped"] == "minutes" and about["best_epoch"] >= 1 and about["pretraining"]["epochs"] < 5000
    assert "pre-training was ended by train.max_minutes after" in caplog.text


def test_pretraining_is_not_resumed_with_other_attributes(tmp_path):
    def fit(kinds, resume):
        log = replace(some_log(users=60, items=20, length=8), item_features=pd.DataFrame({"kind": kinds}))
        config = from_mapping({"model": "S3Rec", "dataset": "x", **TINY}, SHARED, Options)
        sequences = Preparation(**config.data.as_dict()).sequences(log)
        split = leave_one_out(sequences, windows="last")
        trial = Trial(config=config, sequences=sequences, split=split, folder=tmp_path, device=torch.device("cpu"))
        trainer = Trainer(**config.train.as_dict())
        return trial.pretrain(build(config, split), trainer, resume=resume, spent=0.0, progress=False)

    kinds = [f"k{item % 7}" for item in range(20)]
    before, after = fit(kinds, resume=False), fit(kinds, resume=True)
    assert before["epochs"] == after["epochs"] == 20 and before["attributes"] == after["attributes"]
    with pytest.raises(UserError, match="was made from other data: attributes is"):
        fit(kinds[::-1], resume=True)


def test_pretraining_without_attributes_says_what_to_do_and_leaves_no_folder_behind(tmp_path):
    log = markov(users=60, items=20, length=8, branching=2, seed=1).interactions
    with pytest.raises(UserError, match=r"has no table of items, so that it is not known what they are"):
        seqcl.train(log, model="S3Rec", runs=str(tmp_path / "runs"), progress=False, **TINY)
    assert not (tmp_path / "runs").exists()
    mutual = {"item_attribute": 0, "masked_attribute": 0}
    assert seqcl.train(
        log, model="S3Rec", mutual=mutual, runs=str(tmp_path), progress=False, **TINY, pretrain={"epochs": 1}
    )


def test_an_encoder_that_reads_one_way_cannot_be_pretrained():
    config = from_mapping({"model": "S3Rec", "dataset": "x", "encoder": {"name": "GRU", "dim": 8}}, SHARED, Options)
    split = leave_one_out(Preparation(**config.data.as_dict()).sequences(some_log(users=30, items=20, length=8)))
    with pytest.raises(UserError, match="GRU cannot read what follows a masked item; an encoder that can: SASRec"):
        build(config, split).pretraining()


@torch.no_grad()
def effective_rank(encoder, head, batches):
    """Of the projected states of all training rows, as unit vectors (Roy and Vetterli, 2007): 1 if all are one."""
    states = torch.cat([head(encoder.last(batch)) for batch in batches])
    states = torch.nn.functional.normalize(states, dim=1)
    spectrum = torch.linalg.svdvals(states).clamp(min=1e-9)
    share = spectrum / spectrum.sum()
    return float(torch.exp(-(share * share.log()).sum()))


@pytest.mark.parametrize("model", FREE_OF_NEGATIVES)
def test_what_has_no_negatives_does_not_collapse(trained, model):
    run = trained(model)
    contrast = run.model.objective.parts["contrast"]
    batches = list(training_batches(run.split, Trainer(), seed=0, device=torch.device("cpu")))
    kept = effective_rank(run.model.encoder, contrast.head, batches)
    # The control: the same projection, pulled to one vector and nothing else.
    optimizer = torch.optim.Adam(contrast.head.parameters(), lr=0.02)
    contrast.head.train()
    for _ in range(20):
        for batch in batches:
            optimizer.zero_grad()
            (contrast.head(run.model.encoder.last(batch).detach()) - 1).square().mean().backward()
            optimizer.step()
    contrast.head.eval()
    collapsed = effective_rank(run.model.encoder, contrast.head, batches)
    assert kept > 8 and collapsed < 4, f"{kept:.1f} of 32 dimensions are in use, {collapsed:.1f} after a collapse"


@pytest.mark.parametrize(
    "objective", ["TwoViews", "SupCon", "MoCo", "BYOL", "SimSiam", "SwAV", "Prototypes", "PIRL", "LearnedViews"]
)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_paradigm_works_with_every_encoder(objective, encoder):
    values = {
        "model": "CL4Rec",
        "dataset": "x",
        "objective": {"name": objective},
        "encoder": {"name": encoder, "dim": 8},
    }
    config = from_mapping({**TINY, **values}, SHARED, Options)
    log = markov(users=30, items=20, length=8, branching=2, seed=1).interactions
    windows = "prefix" if encoder == "BERT4Rec" else "last"
    split = leave_one_out(Preparation(**config.data.as_dict()).sequences(log), windows=windows, max_len=50)
    recipe = build(config, split)
    batches = training_batches(split, Trainer(batch_size=16), seed=0, device=torch.device("cpu"))
    result = Trainer(epochs=1, batch_size=16).fit(recipe, batches, progress=False)
    assert all(value == value for value in result.history[0].values())


@pytest.mark.parametrize("view", ["Identity", "Crop", "SameTarget"])
@pytest.mark.parametrize("model", ["CL4Rec", "DuoRec", "ICSRec"])
def test_a_single_view_can_be_chosen_by_name(model, view):
    config = from_mapping({"model": model, "dataset": "x", "views": {"name": view}, **TINY}, SHARED, Options)
    log = markov(users=30, items=20, length=8, branching=2, seed=1).interactions
    split = leave_one_out(Preparation(**config.data.as_dict()).sequences(log), windows="last", max_len=50)
    recipe = build(config, split)
    batch = next(iter(training_batches(split, Trainer(), seed=0, device=torch.device("cpu"))))
    assert all(torch.isfinite(term) for term in recipe(batch).values())


def test_an_objective_that_does_not_fit_says_so_and_names_those_that_do():
    with pytest.raises(UserError, match=r"Counterfactual does not fit CL4Rec, which takes: TwoViews"):
        from_mapping({"model": "CL4Rec", "objective": {"name": "Counterfactual"}}, SHARED, Options)
