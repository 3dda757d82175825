"""DirectAU against a loop over positions, its closed forms, and what it leaves out."""

from __future__ import annotations

import math

import pytest
import torch

from seqcl import models
from seqcl.encoders import SASRec
from seqcl.errors import UserError
from seqcl.objectives import DirectAU, Distillation, FeatureContrast, ItemGraph
from seqcl.parts import part
from seqcl.types import SeqBatch
from tests import reference_losses as slow
from tests.test_contrastive_objectives import DIM, MAX_LEN, TRAIN, N


def encoder_and(**options):
    """A small encoder in evaluation mode, and the objective."""
    torch.manual_seed(0)
    encoder = SASRec(num_items=N, max_len=MAX_LEN, dim=DIM).eval()
    with torch.no_grad():
        encoder.item_embeddings()[1:].normal_()
    objective = DirectAU(**options)
    objective.prepare(encoder, TRAIN)
    return encoder, objective


BATCH = SeqBatch(
    torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0]]),
    torch.tensor([3, 2, 1]),
    targets=torch.tensor([[2, 3, 9], [5, 9, 0], [7, 0, 0]]),
    users=torch.tensor([0, 1, 1]),
)


@pytest.mark.parametrize("newest", [False, True])
@torch.no_grad()
def test_it_equals_a_loop_over_positions(newest):
    encoder, objective = encoder_and(balance=0.7, t=1.5)
    objective.only_last = newest
    states, targets, users = [], [], []
    for row in range(3):
        for place in range(int(BATCH.lengths[row])):
            if not newest or place == BATCH.lengths[row] - 1:
                states.append(
                    encoder.last(SeqBatch(BATCH.items[row : row + 1, : place + 1], torch.tensor([place + 1])))[0]
                )
                targets.append(int(BATCH.targets[row, place]))
                users.append(int(BATCH.users[row]))
    table, places = encoder.item_embeddings(), range(len(states))
    near = sum(2 - 2 * slow.cosine(states[i], table[targets[i]]) for i in places) / len(states)
    pairs = [(i, j) for i in places for j in places if users[i] != users[j] and targets[i] != targets[j]]
    apart = math.log(sum(math.exp(-1.5 * (2 - 2 * slow.cosine(states[i], states[j]))) for i, j in pairs) / len(pairs))
    items = sorted(set(targets))
    two = [(i, j) for i in items for j in items if i != j]
    spread = math.log(sum(math.exp(-1.5 * (2 - 2 * slow.cosine(table[i], table[j]))) for i, j in two) / len(two))
    found = objective(encoder, BATCH)["align_uniform"]
    assert float(found) == pytest.approx(near + 0.7 * (apart + spread) / 2, rel=1e-4)
    every = len(states) * (len(states) - 1)
    assert float(objective.observed["masked_share"]) == pytest.approx(1 - len(pairs) / every)


def test_a_state_at_its_item_costs_nothing_but_uniformity_and_gradients_reach_both():
    encoder, objective = encoder_and(balance=0.0)
    targets = torch.tensor([1, 2, 3])
    objective.learned = lambda encoder, batch: (encoder.item_embeddings()[targets], targets, torch.arange(3))
    assert objective(encoder, BATCH)["align_uniform"].item() == pytest.approx(0, abs=1e-6)
    encoder, objective = encoder_and()
    objective(encoder, BATCH)["align_uniform"].backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in encoder.parameters())


def test_positions_of_one_user_have_nobody_to_be_apart_from_which_is_said():
    encoder, objective = encoder_and()
    alone = BATCH._replace(users=torch.zeros(3, dtype=torch.long))
    assert objective(encoder, alone)["align_uniform"].item() == 0 and bool(objective.missing["align_uniform"])
    nothing = BATCH._replace(targets=torch.zeros_like(BATCH.targets))
    assert objective(encoder, nothing)["align_uniform"].item() == 0 and bool(objective.missing["align_uniform"])
    assert objective(encoder, BATCH)["align_uniform"].item() != 0 and not bool(objective.missing["align_uniform"])


def test_as_many_positions_as_are_asked_for_are_spread():
    encoder, objective = encoder_and(spread=4, balance=3.0)
    _, whole = encoder_and(spread=100, balance=3.0)
    torch.manual_seed(0)
    drawn = [objective(encoder, BATCH)["align_uniform"].item() for _ in range(6)]
    assert len(set(drawn)) > 1 and whole(encoder, BATCH)["align_uniform"].item() not in drawn


@pytest.mark.parametrize("options", [{"balance": -1.0}, {"t": 0.0}, {"spread": 0}, {"similarity": "cos"}])
def test_a_value_out_of_its_range_is_refused(options):
    with pytest.raises(UserError):
        DirectAU(**options)


@pytest.mark.parametrize("objective", [ItemGraph, FeatureContrast])
def test_an_objective_that_ranks_nothing_does_not_fit(objective):
    with pytest.raises(UserError, match=f"objective {objective.__name__} does not fit DirectAU: .*; take DirectAU"):
        models.DirectAU(TRAIN, objective=part(objective))


def test_cosines_without_a_temperature_are_no_student():
    with pytest.raises(UserError, match="cosines of DirectAU, from -1 to 1, cannot follow a teacher"):
        models.DirectAU(TRAIN, distil=part(Distillation, teachers="SLIST"))
    models.DirectAU(TRAIN, distil=part(Distillation, teachers="SLIST"), objective=part(DirectAU, similarity="dot"))


def test_the_part_of_the_distillation_is_checked_without_teachers():
    with pytest.raises(UserError, match="alpha must be above 0 and at most 1, not 2"):
        models.SASRec(TRAIN, distil=part(Distillation, alpha=2))
    with pytest.raises(UserError, match=r"distil\.alpha=0\.2 needs teachers: give --distil\.teachers"):
        models.SASRec(TRAIN, distil=part(Distillation, alpha=0.2))
    with pytest.raises(UserError, match=r"distil\.temperature=2\.0 needs teachers"):
        models.SASRec(TRAIN, distil=part(Distillation, temperature=2.0))
