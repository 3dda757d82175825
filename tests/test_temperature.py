"""Tests of temperatures that change in training: along a cosine, and learned."""

from __future__ import annotations

import math

import pytest
import torch

from seqcl.augment import Crop
from seqcl.errors import UserError
from seqcl.experiment.diagnose import hardness_of
from seqcl.losses import nt_xent
from seqcl.objectives import CPC, OBJECTIVES, MemoryCPC
from seqcl.objectives.temperature import Tempered
from seqcl.testing import check_model
from seqcl.testing.models import begun, tiny
from tests.test_contrastive_objectives import BUILT, DIM, ENCODERS, ROWS, TRAIN, Rowwise, rows_batch

TEMPERED = sorted(name for name, kind in OBJECTIVES.items() if issubclass(kind, Tempered))


def made(name, **options):
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    kinds = {"CPC": CPC, "MemoryCPC": MemoryCPC}
    objective = kinds[name](dim=DIM, **options) if name in kinds else BUILT[name](Crop(), **options)
    objective.eval()
    objective.prepare(encoder, TRAIN)
    return encoder, objective


def value(encoder, objective) -> torch.Tensor:
    """The term of a second batch; the first one fills queues and banks."""
    torch.manual_seed(1)
    objective(encoder, rows_batch(range(60)))
    torch.manual_seed(2)
    (term,) = objective(encoder, rows_batch(range(ROWS))).values()
    return term


def test_those_that_contrast_by_a_temperature_are_known():
    assert set(TEMPERED) == {"TwoViews", "SupCon", "MoCo", "MoCoV3", "PIRL", "DIM", "CPC", "MemoryCPC"}


@pytest.mark.parametrize("name", TEMPERED)
def test_a_schedule_divides_by_what_it_says_at_the_time(name):
    def of(temperature):
        return value(*made(name, temperature=temperature)).item()

    encoder, objective = made(name, temperature=0.25)
    assert not {"scheduled", "log_scale"} & objective.state_dict().keys(), "a constant one keeps nothing"
    assert "temperature" not in objective.observed
    encoder, objective = made(name, temperature=0.25, schedule="cosine", highest=0.75)
    for epoch, expected in enumerate((0.75, 0.5, 0.25, 0.5)):
        objective.before_epoch(encoder, Rowwise(), epoch=epoch, epochs=4)
        assert float(objective.temperature) == pytest.approx(expected)
        if epoch < 3:
            assert value(encoder, objective).item() == pytest.approx(of(expected), rel=1e-5)
            assert float(objective.observed["temperature"]) == pytest.approx(expected)
    encoder, objective = made(name, temperature=0.25, schedule="learned")
    term = value(encoder, objective)
    assert term.item() == pytest.approx(of(0.25), rel=1e-5)
    (slope,) = torch.autograd.grad(term, objective.log_scale)
    low, high = (of(1 / math.exp(math.log(4) + step)) for step in (-0.01, 0.01))
    assert slope.item() == pytest.approx((high - low) / 0.02, rel=0.02, abs=1e-4)


def test_the_cosine_has_a_period_of_its_own_where_it_is_asked_for():
    encoder, objective = made("TwoViews", temperature=0.1, schedule="cosine", highest=1.0, period=10)
    found = []
    for epoch in range(20):
        objective.before_epoch(encoder, Rowwise(), epoch=epoch, epochs=500)
        found.append(float(objective.temperature))
    assert found == pytest.approx([0.1 + 0.9 * (1 + math.cos(2 * math.pi * epoch / 10)) / 2 for epoch in range(20)])


def test_the_gradient_by_the_temperature_passes_gradcheck_with_corrected_negatives():
    draws = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 3, dtype=torch.float64, generator=draws) for _ in range(2))
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    for options in ({}, {"hardness": 0.7, "prior": 0.1}, {"prior": 0.9}):
        assert torch.autograd.gradcheck(lambda t, o=options: nt_xent(first, second, temperature=t, **o), (temperature,))


def test_a_learned_temperature_falls_while_it_helps_and_never_below_a_hundredth():
    encoder, objective = made("TwoViews", temperature=0.5, schedule="learned", weight=1.0)
    objective.views.views[0].rate = 1.0  # equal views: the colder the better
    optimizer = torch.optim.Adam([objective.log_scale], lr=1.0)
    found = []
    for _ in range(12):
        optimizer.zero_grad()
        value(encoder, objective).backward()
        optimizer.step()
        objective.after_step(encoder)
        found.append(float(objective.temperature.detach()))
    assert found == sorted(found, reverse=True) and found[0] < 0.5
    assert found[-1] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("model", "schedule"), [("CL4Rec", "learned"), ("MoCoRec", "learned"), ("MMInfoRec", "cosine")]
)
def test_a_recipe_with_a_schedule_passes_the_checks_and_resumes_to_the_same_bits(model, schedule):
    check_model(model, objective={"schedule": schedule, "temperature": 0.2})


@torch.no_grad()
def test_diagnose_draws_the_curve_of_the_temperature_that_was_learned():
    recipe, batches = begun(tiny("CL4Rec", objective={"schedule": "learned", "temperature": 0.37}))
    found = hardness_of(recipe.eval(), next(iter(batches)))
    assert found["temperature"] == pytest.approx(0.37)
    assert found["temperature"] in [curve["temperature"] for curve in found["curves"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"schedule": "cosine", "temperature": 2.0}, r"highest=1\.0 is below temperature=2\.0"),
        ({"period": -1}, "period must not be negative"),
        ({"schedule": "learned", "temperature": 0.001}, r"a learned temperature is at least 0\.01, not 0\.001"),
        ({"highest": 2.0}, r"TwoViews: highest=2\.0 needs schedule=cosine, not constant"),
        ({"schedule": "learned", "period": 3}, "TwoViews: period=3 needs schedule=cosine, not learned"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_an_impossible_schedule_is_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        BUILT["TwoViews"](Crop(), **options)
