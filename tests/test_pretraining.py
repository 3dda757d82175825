"""Tests of the stage that learns the contrastive terms alone, and of the layers of a head that the encoder keeps."""

from __future__ import annotations

import pytest
import torch

from seqcl.config import baseline, experiment
from seqcl.encoders import Extended
from seqcl.errors import UserError
from seqcl.experiment import training_batches
from seqcl.models import MODELS, Recommender
from seqcl.models.pretraining import ContrastFirst
from seqcl.parts import declared
from seqcl.testing.models import begun, small_split, tiny
from tests.test_recipes import OWN

RECIPES = sorted(
    name
    for name, kind in MODELS.items()
    if issubclass(kind, Recommender)
    and kind.__name__ == name
    and (stage := declared(kind).get("pretrain"))
    and stage.component is ContrastFirst
)


def recipe(name, **options):
    """A small model of a recipe, and its batches, with times for a stage that reads them."""
    made = tiny(name, **{**OWN.get(name, {}), **options})
    model, _ = begun(made)
    return model, training_batches(small_split(made), made.train, seed=0, device=torch.device("cpu"), times=True)


@pytest.mark.parametrize("contrast", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_the_stage_learns_every_term_but_the_next_item_and_training_goes_on_from_it(name, contrast):
    model, batches = recipe(name, pretrain={"epochs": 1, "lr": 0.01, "contrast": contrast})
    batch = next(iter(batches))
    model.objective.before_epoch(model.encoder, batches, epoch=9, epochs=10)
    stage = model.pretraining()
    stage.objective.before_epoch(model.encoder, batches, epoch=9, epochs=10)
    stage(batch)  # fills queues and banks
    alone, whole = set(stage(batch)), set(model(batch))
    assert alone and "next_item" not in alone
    assert whole == ({"next_item", *alone} if contrast else {"next_item"})
    assert (set(model.objective.parts) == {"next_item"}) != contrast
    before = model.encoder.item_embeddings().detach().clone()
    tiny(name).train.fit(stage, batches, progress=False)
    assert not torch.equal(before, model.encoder.item_embeddings())


def test_a_follower_s_momentum_begins_again_with_training():
    model, batches = recipe("BYOLRec", pretrain={"epochs": 1})
    stage = model.pretraining()
    tiny("BYOLRec").train.fit(stage, batches, progress=False)
    objective = model.objective.parts["contrast"]
    assert int(objective.step) > 0
    objective.before_epoch(model.encoder, batches, epoch=0, epochs=3)
    assert int(objective.step) == 0 and int(objective.steps) == 3 * len(batches)
    objective.step += 1
    objective.before_epoch(model.encoder, batches, epoch=1, epochs=3)
    assert int(objective.step) == 1


@pytest.mark.parametrize("keep", [1, 2])
def test_the_layers_that_are_kept_change_the_ranking_and_not_the_contrast(keep):
    plain, batches = recipe("SimCLRv2Rec", pretrain={"epochs": 1, "keep": 0})
    kept, _ = recipe("SimCLRv2Rec", pretrain={"epochs": 1, "keep": keep})
    batch = next(iter(batches))
    for model in (plain, kept):
        model.eval()
    head = plain.objective.parts["contrast"].head
    layers = torch.nn.Sequential(*list(head)[: 2 * keep])
    assert isinstance(kept.encoder, Extended)
    torch.testing.assert_close(kept.encoder.last(batch), layers(plain.encoder.last(batch)))
    torch.testing.assert_close(kept.encoder(batch), layers(plain.encoder(batch)))
    scoring = plain.objective.scoring
    torch.testing.assert_close(kept.queries(batch), scoring.queries(layers(plain.encoder.last(batch))))
    torch.testing.assert_close(kept.vectors(), plain.vectors())
    torch.manual_seed(0)
    mine = kept.pretraining()(batch)["contrast"]
    torch.manual_seed(0)
    torch.testing.assert_close(mine, plain.pretraining()(batch)["contrast"])
    assert sum(one.numel() for one in kept.parameters()) == sum(one.numel() for one in plain.parameters())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("CL4Rec", {"pretrain": {"keep": 1}}, "pretrain.keep needs pre-training: give pretrain.epochs"),
        ("CL4Rec", {"pretrain": {"contrast": False}}, "pretrain.contrast needs pre-training"),
        ("CL4Rec", {"pretrain": {"epochs": -1}}, "must not be negative"),
        ("CL4Rec", {"pretrain": {"epochs": 1, "keep": 1}}, "there are 0; give --objective.head mlp3"),
        ("CauseRec", {"pretrain": {"epochs": 1, "keep": 1}}, "there are 0"),
        ("SGLRec", {"pretrain": {"epochs": 1, "keep": 1}}, "there are 0; leave it at 0"),
        ("CPCRec", {"pretrain": {"epochs": 1, "keep": 1}}, "there are 0; leave it at 0"),
        ("MCLRec", {"pretrain": {"epochs": 1, "keep": 1}}, "there are 0; leave it at 0"),
        ("SpCLRec", {"pretrain": {"epochs": 1, "keep": 1}}, "there are 0; leave it at 0"),
        ("LoCoRec", {"pretrain": {"epochs": 1, "keep": 1}}, "LoCo has heads of other kinds, of which none can be kept"),
        ("LooCRec", {"pretrain": {"epochs": 1, "keep": 1}}, "LooC has heads of other kinds, of which none can be kept"),
        ("MiCERec", {"pretrain": {"epochs": 1, "keep": 1}}, "MiCE has heads of other kinds, of which none can be kept"),
        ("SimCLRv2Rec", {"pretrain": {"epochs": 1, "keep": 3}}, "has 3 layers, of which the last is never kept"),
        ("BYOLRec", {"pretrain": {"epochs": 1, "keep": 1}}, "a head with batch norm cannot be kept"),
        ("BarlowRec", {"pretrain": {"epochs": 1, "keep": 1}, "objective": {"head": "mlp"}}, "not 8 wide"),
        ("TwoTower", {"pretrain": {"epochs": 1, "keep": 1}, "objective": {"weight": 0.1}}, "no part of two towers"),
        (
            "CL4Rec",
            {"pretrain": {"epochs": 1}, "objective": {"weight": 0.0}},
            "no contrastive term with a weight above 0",
        ),
    ],
)
def test_a_stage_that_cannot_be_says_so(name, options, said):
    with pytest.raises(UserError, match=said):
        recipe(name, **options)


def test_a_baseline_takes_the_stage_of_a_recipe_that_has_the_same_and_no_other():
    def stage(of, name):
        return baseline(of, name).flat["pretrain.epochs"]

    given = experiment({"model": "CL4Rec", "dataset": "x", "pretrain": {"epochs": 3}})
    assert stage(given, "MoCoRec") == 3 and stage(given, "SimCLRv2Rec") == 10 and stage(given, "S3Rec") == 20
    assert stage(experiment({"model": "S3Rec", "dataset": "x"}), "CL4Rec") == 0
    assert stage(experiment({"model": "SimCLRv2Rec", "dataset": "x"}), "CL4Rec") == 0
