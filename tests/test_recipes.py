"""Every trained recipe, whole: near the ceiling on a chain, at chance on noise, resumed to the same bits, not collapsed."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

import seqcl
from seqcl.augment import Crop, Mask, Pair, Reorder
from seqcl.config import experiment
from seqcl.data import Preparation, leave_one_out, markov, pack, shuffled
from seqcl.encoders import SASRec
from seqcl.errors import UserError
from seqcl.experiment import training_batches
from seqcl.experiment.job import Job
from seqcl.losses import cosine_gap
from seqcl.models import MODELS, Pretraining, Recommender
from seqcl.objectives import BYOL, SimSiam, SwAV
from seqcl.testing import check_model
from seqcl.testing.models import TINY, Stopping, begun, tiny
from seqcl.training import Clock, Interrupted, Trainer

RECIPES = sorted({kind.__name__ for kind in MODELS.values() if issubclass(kind, Recommender)})
SMALL = {
    "encoder": {"dim": 32, "layers": 1},
    "data": {"windows": "last"},
    "train": {"epochs": 8, "lr": 0.005, "batch_size": 64},
    "eval": {"exclude_seen": False},  # a chain comes back to its items
}
SLOWER = {
    "SimCLRv2Rec": {"pretrain": {"epochs": 2, "keep": 1}},
    "NARM": {"train": SMALL["train"] | {"epochs": 12}},
    "CASR": {"objective": {"warmup": 4}},
    # A row for every position, each as long as the longest.
    "BSARec": {"data": {"windows": "last", "max_len": 12}},
    # A fifth of the positions learns in one pass.
    "BERT4Rec": {"encoder": {"dim": 32, "dropout": 0.1, "layers": 1}, "train": SMALL["train"] | {"epochs": 20}},
}
"""Options of the models that need more steps to learn the chain."""
ATTRIBUTES = pd.DataFrame({"kind": [f"k{item % 7}" for item in range(500)]}, index=range(500))
OWN = {
    "S3Rec": {"pretrain": {"epochs": 2}},
    "SimCLRv2Rec": {"pretrain": {"epochs": 2, "keep": 1}},
    "CoSeRec": {"views": {"warmup": 1}},
    "CASR": {"objective": {"warmup": 1, "confidence": 0}},
    "TiCoSeRec": {"views": {"warmup": 1, "threshold": 4}},
    "DuoRec": {"views": {"positives": "both"}},
    "ICLRec": {"objective": {"clusters": [8, 4]}},
    "ICSRec": {"objective": {"clusters": [8, 4]}},
    "PCLRec": {"objective": {"clusters": [8, 4], "momentum": 0.9}},
    "SpCLRec": {"objective": {"clusters": 8, "negatives": 16}},
    "MCLRec": {"objective": {"weight": 0.1}},
    "MoCoRec": {"objective": {"queue": 32}},
    "SwAVRec": {"objective": {"queue": 32, "prototypes": 8}},
    "TwoTower": {"objective": {"weight": 0.1}},
}
"""Options with which a recipe uses all that it has within three epochs."""
TERMS = {
    "BERT4Rec": "masked_items",
    "Distil": "next_item distil",
    "CauseRec": "next_item observed interest",
    "DuoRec": "next_item contrast same_target_contrast",
    "ICLRec": "next_item contrast intent",
    "ICSRec": "next_item contrast intent",
    "PCLRec": "next_item contrast intent",
    **dict.fromkeys(["MCLRec", "InfoMinRec"], "next_item contrast learned"),
    "SwAVRec": "next_item swap",
    "TwoTower": "next_item features contrast",
    "AlignUniformRec": "next_item spread",
    **dict.fromkeys(["CPCRec", "MMInfoRec"], "next_item ahead"),
    "SGLRec": "next_item graph",
    "CASR": "next_item counterfactual",
    "DirectAU": "align_uniform",
    **dict.fromkeys(["IMixRec", "CLAERec"], "next_item contrast"),
    **dict.fromkeys(["BYOLRec", "SimSiamRec"], "next_item predict"),
    **dict.fromkeys(["BarlowRec", "VICRegRec"], "next_item decorrelate"),
    **dict.fromkeys(
        ["SASRec", "BSARec", "TapRec", "GRU4Rec", "NARM", "HSTU", "S3Rec", "Ensemble", "Blend"], "next_item"
    ),
    **dict.fromkeys(
        [
            "CL4Rec",
            "CCLRec",
            "CoSeRec",
            "TiCoSeRec",
            "MoCoRec",
            "MoCoV3Rec",
            "PIRLRec",
            "SupConRec",
            "LoCoRec",
            "SpCLRec",
            "MiCERec",
            "LooCRec",
            "GraphCLRec",
            "MarginRec",
            "InstanceRec",
            "SimCLRv2Rec",
            "DIMRec",
        ],
        "next_item contrast",
    ),
}
"""The terms of each recipe; those of S3Rec's pre-training have a test of their own."""
APART = {("TwoTower", "features"): "history", ("TwoTower", "contrast"): "item_", ("SGLRec", "graph"): ""}
"""Parameters of the encoder that a term does not reach, besides the table: those of histories, or of items."""
every_recipe = pytest.mark.parametrize("model", RECIPES)


def some_log(**sizes):
    """The log of a chain, with something known of its items."""
    return replace(markov(**sizes, branching=2, seed=1).interactions, item_features=ATTRIBUTES)


@pytest.fixture(scope="module")
def chain():
    made = markov(users=600, items=30, length=12, branching=2, seed=1)
    return replace(made, interactions=replace(made.interactions, item_features=ATTRIBUTES))


@pytest.fixture(scope="module")
def ceiling(chain):
    """The best NDCG@10 that any model can have on the chain."""
    sequences = pack(chain.interactions)
    return chain.ceiling(leave_one_out(sequences).test, sequences.item_ids, ks=(10,))["ndcg@10"]


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
def test_a_recipe_comes_near_the_ceiling_of_a_markov_chain(ceiling, trained, model):
    assert 0.9 * ceiling < trained(model).metrics["test"]["ndcg@10"] < 1.05 * ceiling


@every_recipe
def test_a_recipe_stays_at_chance_on_shuffled_data(chain, ceiling, tmp_path, model):
    control = replace(shuffled(chain.interactions, seed=0), item_features=ATTRIBUTES)
    values = SMALL | SLOWER.get(model, {})
    values |= {
        "train": values["train"] | {"epochs": values["train"]["epochs"] * 3 // 4}
    }  # the chain's order is learned by then
    made = seqcl.train(control, model=model, runs=str(tmp_path), progress=False, **values)
    # What is left is which items a user has, a little more than popularity; the order, most of the ceiling, is gone.
    assert made.metrics["test"]["ndcg@10"] < 0.25 * ceiling


def tiny_of(model):
    """A tiny experiment of a recipe that uses all that it has."""
    return tiny(model, **OWN.get(model, {}))


@every_recipe
def test_every_term_of_a_recipe_reaches_every_parameter_of_the_encoder(model):
    recipe, batches = begun(tiny_of(model))
    recipe.objective.before_epoch(recipe.encoder, batches, epoch=9, epochs=10)  # past every warm-up
    batch = next(iter(batches))
    recipe(batch)  # fills queues and banks
    terms = recipe(batch)
    assert set(terms) == set(TERMS.get(model, " ".join(terms)).split()) and terms
    for name, term in terms.items():
        recipe.zero_grad()
        term.backward(retain_graph=True)
        missed = {key for key, one in recipe.encoder.named_parameters() if one.grad is None or not one.grad.any()}
        apart = {key for key in missed if key.startswith(APART.get((model, name), "-")) and "table" not in key}
        assert missed == apart, (name, missed)


@pytest.mark.parametrize("model", [*RECIPES, "EASE", "SLIST", "ItemKNN", "SKNN", "VSKNN", "Markov", "Popularity"])
def test_a_recipe_passes_the_checks_that_anyone_can_run(model):
    check_model(model, **OWN.get(model, {}))


def test_pretraining_that_is_stopped_goes_on_to_the_same_bits(tmp_path):
    expected, batches, trainer = pretrained()
    trainer.fit(expected, batches, progress=False)
    stopped, batches, trainer = pretrained()
    with pytest.raises(Interrupted):
        trainer.fit(stopped, Stopping(batches, (1, 1)), folder=tmp_path, progress=False)
    resumed, batches, trainer = pretrained()
    torch.manual_seed(99)
    trainer.fit(resumed, batches, folder=tmp_path, resume=True, progress=False)
    for (name, one), two in zip(expected.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def pretrained(held_out=None, **mutual):
    """The stage before training of S3Rec, its batches and its trainer."""
    found = tiny("S3Rec", mutual=mutual, **OWN["S3Rec"])
    recipe, batches = begun(found, held_out=held_out)
    return recipe.pretraining(), batches, found.train


def test_pretraining_can_have_smaller_batches_than_training(tmp_path, monkeypatch):
    sizes = []
    call = torch.nn.Module.__call__
    monkeypatch.setattr(
        Pretraining, "__call__", lambda self, batch: sizes.append(len(batch.lengths)) or call(self, batch)
    )
    log = some_log(users=60, items=20, length=8)
    common = {"progress": False, **TINY, "train": {"epochs": 1, "batch_size": 32}}
    seqcl.train(log, model="S3Rec", runs=str(tmp_path), **common, pretrain={"epochs": 1, "batch_size": 16})
    assert sizes == [16, 16, 16, 12]


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
        config = experiment({"model": "S3Rec", "dataset": "x", **TINY})
        sequences = config.data.sequences(log)
        split = leave_one_out(sequences, windows="last")
        where = {"folder": tmp_path, "device": torch.device("cpu"), "clock": Clock()}
        job = Job(experiment=config, sequences=sequences, split=split, **where, resume=resume, progress=False)
        return job.pretrain(config.build(split.train))

    kinds = [f"k{item % 7}" for item in range(20)]
    before, after = fit(kinds, resume=False), fit(kinds, resume=True)
    assert before["epochs"] == after["epochs"] == 20 and before["attributes"] == after["attributes"]
    with pytest.raises(UserError, match="was made from other data: attributes is"):
        fit(kinds[::-1], resume=True)


def test_pretraining_without_attributes_says_what_to_do_and_leaves_no_folder_behind(tmp_path):
    log = markov(users=60, items=20, length=8, branching=2, seed=1).interactions
    with pytest.raises(UserError, match=r"has no table of items, so the attributes of its items are not known"):
        seqcl.train(log, model="S3Rec", runs=str(tmp_path / "runs"), progress=False, **TINY)
    assert not (tmp_path / "runs").exists()
    mutual = {"item_attribute": 0, "masked_attribute": 0}
    assert seqcl.train(
        log, model="S3Rec", mutual=mutual, runs=str(tmp_path), progress=False, **TINY, pretrain={"epochs": 1}
    )


def test_an_encoder_that_reads_one_way_cannot_be_pretrained():
    config = experiment({"model": "S3Rec", "dataset": "x", "encoder": {"name": "GRU", "dim": 8}})
    split = leave_one_out(config.data.sequences(some_log(users=30, items=20, length=8)))
    with pytest.raises(UserError, match="GRU cannot read what follows a masked item; an encoder that can: SASRec"):
        config.build(split.train).pretraining()


@torch.no_grad()
def effective_rank(encoder, head, batches):
    """Of the projected states of all training rows, as unit vectors (Roy and Vetterli, 2007): 1 if all are one."""
    states = torch.cat([head(encoder.last(batch)) for batch in batches])
    states = torch.nn.functional.normalize(states, dim=1)
    spectrum = torch.linalg.svdvals(states).clamp(min=1e-9)
    share = spectrum / spectrum.sum()
    return float(torch.exp(-(share * share.log()).sum()))


@pytest.mark.parametrize("model", ["BYOLRec", "SimSiamRec", "SwAVRec", "BarlowRec", "VICRegRec"])
def test_what_has_no_negatives_does_not_collapse(trained, model):
    run = trained(model)
    batches = list(training_batches(run.split, Trainer(), seed=0, device=torch.device("cpu")))
    assert effective_rank(run.model.encoder, run.model.objective.parts["contrast"].head, batches) > 8  # of 32


class OwnProjection(BYOL):
    """BYOL that predicts what itself makes of the other view, and with no predictor."""

    def forward(self, encoder, batch):
        one, two = self.head(encoder.last(self.make_views(batch))).chunk(2)
        return {"predict": cosine_gap(one, two)}


class OwnCodes(SwAV):
    """SwAV whose codes need not share the rows evenly."""

    def codes(self, scores, kept, prototypes):
        return (scores.detach() / self.epsilon).softmax(1)


@pytest.mark.parametrize(
    ("kinds", "broken", "options"),
    [
        ([BYOL, SimSiam], OwnProjection, {}),
        ([SwAV], OwnCodes, {"head": "mlp"}),  # batch norm alone would keep states apart
    ],
)
def test_what_keeps_an_objective_without_negatives_from_collapse_is_what_does_it(kinds, broken, options):
    chain = markov(users=300, items=30, length=12, branching=2, seed=1).interactions
    split = leave_one_out(Preparation().sequences(chain), windows="last", max_len=50)
    batches = training_batches(split, Trainer(batch_size=64), seed=0, device=torch.device("cpu"))
    ranks = []
    for made in (*kinds, broken):
        torch.manual_seed(0)
        encoder = SASRec(num_items=30, max_len=50, dim=32)
        objective = made(views=Pair(views=[Crop(), Mask(), Reorder()]), dim=32, weight=1.0, **options)
        objective.prepare(encoder, split.train)
        objective.before_epoch(encoder, batches, epoch=0, epochs=16)
        learned = [one for one in (*encoder.parameters(), *objective.parameters()) if one.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=0.005)
        for epoch in range(16):
            for batch in batches.epoch(epoch):
                optimizer.zero_grad()
                sum(objective(encoder, batch).values()).backward()
                optimizer.step()
                objective.after_step(encoder)
        encoder.eval()
        objective.eval()
        ranks.append(effective_rank(encoder, objective.head, list(batches)))
    assert ranks[-1] < 3 and min(ranks[:-1]) > 2 * ranks[-1], ranks


@pytest.mark.parametrize("view", ["Identity", "Crop", "SameTarget"])
@pytest.mark.parametrize("model", ["CL4Rec", "DuoRec", "ICSRec"])
def test_a_single_view_can_be_chosen_by_name(model, view):
    config = experiment({"model": model, "dataset": "x", "views": {"name": view}, **TINY})
    log = markov(users=30, items=20, length=8, branching=2, seed=1).interactions
    split = leave_one_out(config.data.sequences(log), windows="last", max_len=50)
    recipe = config.build(split.train)
    batch = next(iter(training_batches(split, Trainer(), seed=0, device=torch.device("cpu"))))
    assert all(torch.isfinite(term) for term in recipe(batch).values())


@pytest.mark.parametrize(
    ("model", "objective", "said"),
    [
        (
            "CL4Rec",
            "Counterfactual",
            "Counterfactual does not fit CL4Rec, which takes: TwoViews.*; it has no parameter views",
        ),
        (
            "CauseRec",
            "TwoViews",
            "TwoViews does not fit CauseRec, which takes: Counterfactual, CPC, MemoryCPC; it needs views",
        ),
        ("CauseRec", "MutualInformation", "unknown objective 'MutualInformation'"),
    ],
)
def test_an_objective_that_does_not_fit_says_so_and_names_those_that_do(model, objective, said):
    with pytest.raises(UserError, match=said):
        experiment({"model": model, "objective": {"name": objective}})
