"""Counterfactual rows against a loop over rows, on a chain whose answers are known, and what is kept of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import seqcl
from seqcl.data import Preparation, leave_one_out, markov
from seqcl.encoders import SASRec
from seqcl.errors import UserError
from seqcl.experiment import training_batches
from seqcl.objectives import CounterfactualRows, NextItem
from seqcl.training import Trainer
from seqcl.types import SeqBatch
from tests import reference_losses as slow
from tests.test_contrastive_objectives import DIM, MAX_LEN, TRAIN, N, Rowwise, rows_batch

BATCH = rows_batch(range(24))


def made(**options):
    """An encoder, and the objective with a sampler that the encoder has moved away from."""
    torch.manual_seed(0)
    encoder = SASRec(num_items=N, max_len=MAX_LEN, dim=DIM).double()
    with torch.no_grad():
        encoder.item_embeddings()[1:].normal_()
    ranks = NextItem(similarity="cosine", temperature=0.2, bias=True)
    objective = CounterfactualRows(next_item=ranks, warmup=0, **options)
    for one in (ranks, objective):
        one.prepare(encoder, TRAIN)
    ranks.double(), objective.double()
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=1)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *ranks.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder.eval(), objective


def chances(encoder, scoring, row):
    """The chance of each item behind a row, by a loop over items."""
    state = encoder.last(SeqBatch(torch.tensor([row]), torch.tensor([len(row)])))[0]
    table = encoder.item_embeddings()
    scores = [slow.cosine(state, table[item]) / 0.2 + float(scoring.bias[item - 1]) for item in range(1, N + 1)]
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def unseen(found, row):
    """The chances among the items that a row does not hold; 0 for the others."""
    total = sum(chance for item, chance in enumerate(found, 1) if item not in row)
    return [0.0 if item in row else chance / total for item, chance in enumerate(found, 1)]


@pytest.mark.parametrize("sampler", ["nearest", "random"])
@torch.no_grad()
def test_rows_and_loss_are_those_of_a_loop(sampler):
    encoder, objective = made(sampler=sampler, confidence=0.2, weight=0.7)
    copy = objective.follower.encoder.eval()
    torch.manual_seed(1)
    found = objective(encoder, BATCH)
    torch.manual_seed(1)
    ends, places = torch.rand(24).tolist(), torch.rand(24).tolist()
    drawn = torch.randint(1, N + 1, (24,)).tolist()
    losses, unsure, put_in = [], 0, 0
    for row, length, end, place, other in zip(
        BATCH.items.tolist(), BATCH.lengths.tolist(), ends, places, drawn, strict=True
    ):
        begun = row[: int(end * length) + 1]
        at = int(place * len(begun))
        own, table = begun[at], copy.item_embeddings()
        near = sorted(set(range(1, N + 1)) - {own}, key=lambda item: -slow.cosine(table[item], table[own]))[:4]
        before = int(np.argmax(unseen(chances(copy, objective.follower.head, begun), begun)))
        for item in near if sampler == "nearest" else [other]:
            changed = [*begun[:at], item, *begun[at + 1 :]]
            chance = unseen(chances(copy, objective.follower.head, changed), {*changed, own})
            answer = int(np.argmax(chance))
            put_in += item - 1 == before
            if sampler == "nearest" and before in (answer, item - 1):
                continue
            if chance[answer] >= 0.2:
                losses.append(-math.log(chances(encoder, objective.ranks[0].scoring, changed)[answer]))
            else:
                unsure += 1
            break
    assert unsure and len(losses) > 4 and (put_in or sampler == "random")
    assert found["counterfactual"].item() == pytest.approx(0.7 * sum(losses) / 24, rel=1e-9)
    assert objective.observed["kept_share"].item() == pytest.approx(len(losses) / 24)


def test_the_sampler_is_made_after_the_warm_up_and_stays_or_is_made_anew():
    encoder, objective = made()
    fixed = objective.follower.encoder.item_embeddings().clone()
    objective.before_epoch(encoder, Rowwise(), epoch=7, epochs=9)
    assert torch.equal(objective.follower.encoder.item_embeddings(), fixed)
    objective.renew = 4
    objective.before_epoch(encoder, Rowwise(), epoch=7, epochs=9)
    assert torch.equal(objective.follower.encoder.item_embeddings(), fixed)
    objective.before_epoch(encoder, Rowwise(), epoch=8, epochs=9)
    assert torch.equal(objective.follower.encoder.item_embeddings(), encoder.item_embeddings())
    early = CounterfactualRows(next_item=objective.ranks[0], warmup=2)
    early.prepare(encoder, TRAIN)
    early.before_epoch(encoder, Rowwise(), epoch=1, epochs=9)
    assert early(encoder, BATCH) == {}


def test_an_item_of_the_row_is_no_target_and_a_warm_up_without_an_end_is_said(caplog):
    for repeats in (False, True):
        encoder, objective = made(confidence=0.0, repeats=repeats)
        rows, targets = objective.rows(BATCH)
        own = (rows.items == targets[:, None]).any(1)
        assert own.any() == repeats
    CounterfactualRows(next_item=objective.ranks[0], warmup=3).before_epoch(encoder, Rowwise(), epoch=0, epochs=3)
    assert "warmup 3 of 3 epochs: no counterfactual row is ever learned" in caplog.text


def test_no_row_is_sure_enough_and_the_term_is_missing():
    encoder, objective = made(confidence=1.0)
    terms = objective(encoder, BATCH)
    terms["counterfactual"].backward()
    assert terms["counterfactual"].item() == 0 and bool(objective.missing["counterfactual"])
    assert not any(one.grad is not None and one.grad.any() for one in encoder.parameters())


def test_only_the_anchor_learns_and_the_batch_is_left_alone():
    encoder, objective = made(confidence=0.0)
    before = BATCH.items.clone()
    objective(encoder, BATCH)["counterfactual"].backward()
    assert encoder.item_embeddings().grad.any() and objective.ranks[0].scoring.bias.grad.any()
    assert not any(one.requires_grad for one in objective.parameters())
    assert BATCH.items.equal(before)


@pytest.mark.once
def test_on_a_chain_what_is_kept_is_what_the_chain_does(tmp_path):
    chain = markov(users=300, items=30, length=12, branching=2, seed=1)
    run = seqcl.train(
        chain.interactions,
        model="CASR",
        runs=str(tmp_path),
        progress=False,
        encoder={"dim": 32},
        data={"windows": "last"},
        train={"epochs": 12, "lr": 0.01, "batch_size": 64},
        objective={"warmup": 11, "repeats": True},
        eval={"exclude_seen": False},
    )
    sequences = Preparation().sequences(chain.interactions)
    state = np.asarray(sequences.item_ids, np.int64)
    split = leave_one_out(sequences, windows="last", max_len=50)
    objective = run.model.objective.parts["counterfactual"]
    shares = {}
    for confidence in (0.0, 0.4):
        objective.confidence = confidence
        right = []
        for batch in training_batches(split, Trainer(batch_size=64), seed=0, device=torch.device("cpu")):
            rows, targets = objective.rows(batch)
            last = rows.items.gather(1, rows.lengths[:, None] - 1)[:, 0]
            follow = chain.successors[0, state[last - 1]]  # (M, 2)
            right += (follow == state[targets - 1][:, None]).any(1).tolist()
        assert len(right) > 10
        shares[confidence] = sum(right) / len(right)
    assert shares[0.4] > 0.9 and shares[0.4] >= shares[0.0] > 0.5  # 2 / 30 by chance


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"confidence": 1.5}, "CounterfactualRows: confidence must be from 0 to 1, not 1.5"),
        ({"near": 0}, "CounterfactualRows: near must be above 0"),
        ({"sampler": "random", "near": 2}, "CounterfactualRows: near=2 needs sampler=nearest, not random"),
        ({"warmup": -1}, "CounterfactualRows: warmup must not be negative"),
        ({"sampler": "neares"}, "did you mean nearest"),
    ],
)
def test_an_impossible_option_is_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        CounterfactualRows(next_item=NextItem(), **options)
