"""The whole matrix: every objective takes two training steps with every encoder, or is refused in words."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from seqcl.config import experiment
from seqcl.data import Split, leave_one_out
from seqcl.encoders import ENCODERS
from seqcl.errors import UserError
from seqcl.experiment import training_batches
from seqcl.objectives import OBJECTIVES
from seqcl.testing.models import TINY, small_log
from seqcl.training import Trainer

pytestmark = pytest.mark.once

VIEWS = {
    **dict.fromkeys(["TwoViews", "SupCon", "Margin", "Instance", "LoCo", "LooC", "MoCo", "MoCoV3"], "contrast"),
    **dict.fromkeys(["IMix", "CLAE", "SpCL", "MiCE", "PIRL", "DIM"], "contrast"),
    **dict.fromkeys(["LearnedViews", "InfoMin"], "contrast learned"),
    **dict.fromkeys(["BYOL", "SimSiam"], "predict"),
    **dict.fromkeys(["Barlow", "VICReg"], "decorrelate"),
    "AlignUniform": "spread",
    "Detect": "detect",
    "SwAV": "swap",
    "Prototypes": "contrast intent",
}
"""The objectives over views, which stand beside the next item in CL4Rec, and their terms."""
OWN = {
    "NextItem": ("SASRec", "next_item"),
    "MaskedItems": ("BERT4Rec", "masked_items"),
    "DirectAU": ("DirectAU", "align_uniform"),
    "Distillation": ("Distil", "next_item distil"),
    "Counterfactual": ("CauseRec", "next_item observed interest"),
    "CounterfactualRows": ("CASR", "next_item counterfactual"),
    "CPC": ("CPCRec", "next_item ahead"),
    "MemoryCPC": ("MMInfoRec", "next_item ahead"),
    "ItemGraph": ("SGLRec", "next_item graph"),
    "BatchSoftmax": ("TwoTower", "next_item features"),
    "FeatureContrast": ("TwoTower", "next_item features"),
}
"""The recipe of every other objective, and the terms of both."""
MATRIX = {name: ("CL4Rec", f"next_item {terms}") for name, terms in VIEWS.items()} | OWN
STAGE = ("S3Rec", "item_attribute masked_item masked_attribute segment")
OPTIONS = {
    "CounterfactualRows": {"sampler": "random", "confidence": 0.0},  # the sampler is as new as the model
    "MoCo": {"queue": 32},
    "SwAV": {"queue": 32, "prototypes": 8},
    "Prototypes": {"clusters": [4]},
    "SpCL": {"clusters": 4, "negatives": 16},
}
"""Options with which an objective has all that it needs in two steps of sixteen rows."""
READS_ON = "use --encoder BERT4Rec, or a model that learns the next item, such as --model SASRec"
ONE_WAY = "cannot read what follows a masked item; an encoder that can"
REFUSED = {("MaskedItems", encoder): READS_ON for encoder in ENCODERS if encoder != "BERT4Rec"} | {
    ("MutualInformation", encoder): ONE_WAY for encoder in ("GRU", "HSTU", "NARM", "BSARec")
}
"""The pairs that nothing can be learned with, and words of the error that says why. All others train."""


@cache
def split(windows: str) -> Split:
    """The small log, with rows of one target or of all."""
    config = experiment({"model": "SASRec", "dataset": "x"})
    return leave_one_out(config.data.sequences(small_log()), windows=windows, max_len=50)


def windows_of(encoder: str) -> str:
    """The windows that every objective can learn with an encoder."""
    return "prefix" if encoder == "BERT4Rec" else "last"


def built(objective: str, encoder: str, windows: str | None = None) -> torch.nn.Module:
    """The recipe of an objective with an encoder, or its stage before training."""
    recipe = STAGE[0] if objective == "MutualInformation" else MATRIX[objective][0]
    values = {"model": recipe, "dataset": "x", "encoder": {"name": encoder, "dim": 8}}
    if objective in VIEWS or objective in OPTIONS:
        values["objective"] = {"name": objective, **OPTIONS.get(objective, {})}
    model = experiment({**TINY, **values}).build(split(windows or windows_of(encoder)).train)
    return model.pretraining() if objective == "MutualInformation" else model


def test_the_matrix_has_every_objective_of_the_table():
    assert MATRIX.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("objective", [*MATRIX, "MutualInformation"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_objective_takes_two_steps_with_every_encoder_or_is_refused(objective, encoder):
    if (objective, encoder) in REFUSED:
        with pytest.raises(UserError, match=re.escape(REFUSED[objective, encoder])):
            built(objective, encoder)
        return
    model = built(objective, encoder)
    expected = set((STAGE if objective == "MutualInformation" else MATRIX[objective])[1].split())
    learned = {name: one for name, one in model.named_parameters() if one.requires_grad}
    before = {name: one.detach().clone() for name, one in learned.items()}
    optimizer = torch.optim.Adam(learned.values(), lr=0.01)
    batches = training_batches(
        split(windows_of(encoder)), Trainer(batch_size=16), seed=0, device=torch.device("cpu"), times=False
    )
    model.objective.before_epoch(model.encoder, batches, epoch=9, epochs=10)  # past every warm-up
    reached = set()
    for _, batch in zip(range(2), batches.epoch(0), strict=False):
        terms = model(batch)
        assert set(terms) == expected
        assert all(term.dim() == 0 and term.isfinite() for term in terms.values()), terms
        reached |= {name for name, term in terms.items() if reaches(term, model.encoder)}
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        model.objective.after_step(model.encoder)
    assert reached == expected  # a queue may be empty in the first step
    unmoved = [name for name, one in learned.items() if torch.equal(one, before[name])]
    assert not unmoved


@pytest.mark.parametrize("objective", [name for name in MATRIX if name != "MaskedItems"])
def test_every_objective_but_the_masked_items_refuses_whole_rows_of_an_encoder_that_reads_both_ways(objective):
    with pytest.raises(UserError, match=r"reads the next item at every position.*--data.windows prefix"):
        built(objective, "BERT4Rec", "last")


def reaches(term: torch.Tensor, encoder: torch.nn.Module) -> bool:
    """True if a term has a gradient that is not 0 at some weight of the encoder."""
    if not term.requires_grad:
        return False
    found = torch.autograd.grad(term, list(encoder.parameters()), retain_graph=True, allow_unused=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in found)
