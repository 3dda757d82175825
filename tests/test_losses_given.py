"""Losses refuse by name what they have no formula for, and no rows cost nothing."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from seqcl.errors import UserError
from seqcl.losses import (
    alignment,
    barlow,
    bce,
    bpr,
    contrast,
    cosine_gap,
    cosine_margin,
    distillation,
    gbce,
    info_nce,
    kept_distillation,
    margin_contrast,
    mixture,
    nt_xent,
    sampled_softmax,
    sinkhorn,
    softmax,
    spreading,
    swapped,
    triplet,
    uniformity,
    vicreg,
    view_regularizer,
)
from tests.test_losses import gradients, normal, numbers

STATES, TABLE, TARGETS, KEPT = normal(4, 3), normal(7, 3, seed=1), numbers(7, 4), numbers(7, 4, 2)
FIRST, SECOND, SAME = normal(4, 3), normal(4, 3, seed=2), torch.eye(4, dtype=torch.bool)
DIVIDED = {
    "nt_xent": lambda value: nt_xent(FIRST, SECOND, temperature=value),
    "info_nce": lambda value: info_nce(FIRST, SECOND, temperature=value),
    "swapped": lambda value: swapped(FIRST, SECOND.softmax(1), temperature=value),
    "spreading": lambda value: spreading(FIRST, SECOND, temperature=value, same=SAME),
    "mixture": lambda value: mixture(FIRST[:, None], SECOND[:, None], FIRST[:, :1], temperature=value, same=SAME)[0],
    "distillation": lambda value: distillation(STATES, TABLE, lambda part: normal(4, 7)[part], temperature=value),
    "kept_distillation": lambda value: kept_distillation(STATES, TABLE, KEPT, normal(4, 2), temperature=value),
}


@pytest.mark.parametrize("value", [0, -0.5, math.nan])
@pytest.mark.parametrize("name", DIVIDED)
def test_a_temperature_that_is_not_above_zero_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"^{name}: temperature must be above 0, not {value}"):
        DIVIDED[name](value)


def test_a_temperature_that_is_a_tensor_is_taken_unseen():
    assert nt_xent(FIRST, SECOND, temperature=torch.tensor(0.5)) == nt_xent(FIRST, SECOND, temperature=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nt_xent(FIRST, SECOND, temperature=0.5, prior=1), "prior must be from 0 to below 1, not 1"),
        (lambda: nt_xent(FIRST, SECOND, temperature=0.5, prior=-0.1), "prior must be from 0 to below 1, not -0.1"),
        (lambda: contrast(FIRST[:, :3], SAME[:, :3], hardness=-1), "contrast: hardness must not be negative, not -1"),
        (lambda: sinkhorn(FIRST, epsilon=0), "sinkhorn: epsilon must be above 0, not 0"),
        (lambda: sinkhorn(FIRST, epsilon=0.05, iterations=0), "sinkhorn: iterations must be above 0, not 0"),
        (lambda: uniformity(FIRST, t=-1), "uniformity: t must be above 0, not -1"),
        (lambda: alignment(FIRST, SECOND, power=0), "alignment: power must be above 0, not 0"),
        (lambda: margin_contrast(FIRST, SECOND, margin=0, same=SAME), "margin_contrast: margin must be above 0, not 0"),
        (lambda: softmax(STATES, TABLE, TARGETS, smoothing=1.5), "softmax: smoothing must be from 0 to 1, not 1.5"),
        (lambda: gbce(STATES, TABLE, TARGETS, TARGETS, t=2), "gbce: t must be from 0 to 1, not 2"),
        (lambda: sampled_softmax(STATES, TABLE, TARGETS, TARGETS, correction="bot"), "unknown correction 'bot'"),
        (lambda: triplet(FIRST, FIRST[None][:0], FIRST[None], margin=1), "triplet: positives must be above 0"),
        (
            lambda: cosine_margin(FIRST, FIRST[None][:0], FIRST[None], margin=1),
            "cosine_margin: positives must be above",
        ),
    ],
)
def test_an_option_outside_its_range_is_refused_by_name(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("loss", [bce, gbce, bpr, sampled_softmax])
def test_no_negatives_and_those_of_other_positions_are_refused(loss):
    for none in (numbers(7, 0), numbers(7, 4, 0)):
        with pytest.raises(
            UserError, match=rf"^{loss.__name__}: negatives must be 1 or more, .* not \({none.shape[0]}"
        ):
            loss(STATES, TABLE, TARGETS, none)
    with pytest.raises(UserError, match=rf"^{loss.__name__}: every state has its negatives, .*\(4, 3\) and \(1, 2\)"):
        loss(STATES, TABLE, TARGETS, numbers(7, 1, 2))


@pytest.mark.parametrize("loss", [bce, gbce, bpr, sampled_softmax, softmax])
def test_a_target_for_other_states_is_refused(loss):
    negatives = () if loss is softmax else (numbers(7, 5),)
    with pytest.raises(UserError, match=rf"^{loss.__name__}: every state has one target, .*\(4, 3\) and \(1,\)"):
        loss(STATES, TABLE, TARGETS[:1], *negatives)


PAIRED = {
    "nt_xent": partial(nt_xent, temperature=0.5),
    "alignment": alignment,
    "alignment, power 1": partial(alignment, power=1),
    "cosine_gap": cosine_gap,
    "swapped": partial(swapped, temperature=0.5),
    "spreading": lambda one, two: spreading(one, two, temperature=0.5, same=SAME[: len(one), : len(one)]),
    "margin_contrast": lambda one, two: margin_contrast(one, two, margin=1, same=SAME[: len(one), : len(one)]),
    "view_regularizer": lambda one, two: view_regularizer(one, two, SAME[: len(one), : len(one)]),
}


@pytest.mark.parametrize("name", [*PAIRED, "barlow", "vicreg"])
def test_views_of_different_rows_are_refused(name):
    loss = {**PAIRED, "barlow": barlow, "vicreg": vicreg}[name]
    with pytest.raises(UserError, match=rf"^{name.split(',')[0]}: both must .* not \(4, 3\) and \(1, 3\)"):
        loss(FIRST, SECOND[:1])


@pytest.mark.parametrize("name", PAIRED)
def test_no_rows_cost_nothing(name):
    one, two = (view[:0].clone().requires_grad_() for view in (FIRST, SECOND))
    value = PAIRED[name](one, two)
    assert value == 0 and gradients(value, one)[0].shape == (0, 3)


def test_no_rows_of_several_vectors_cost_nothing():
    none = FIRST[:0]
    assert mixture(none[:, None], none[:, None], none[:, :1], temperature=1, same=SAME[:0, :0])[0] == 0
    assert triplet(none, none[None], none[None], margin=1) == 0
    assert triplet(FIRST, FIRST[None], FIRST[None][:0], margin=1) == 0
    assert cosine_margin(none, none[None], none[None], margin=1) == 0
    assert cosine_margin(FIRST, FIRST[None], FIRST[None][:0], margin=1).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("loss", [barlow, vicreg])
def test_a_deviation_needs_two_rows(loss, rows):
    with pytest.raises(UserError, match=f"^{loss.__name__}: needs 2 rows or more, .* not {rows}"):
        loss(FIRST[:rows], SECOND[:rows])
