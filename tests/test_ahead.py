"""Tests of CPC and of its form with a memory: against loops over states, closed forms, and what is no negative."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from seqcl.encoders import BERT4Rec
from seqcl.errors import UserError
from seqcl.objectives import CPC, MemoryCPC
from seqcl.objectives.kinship import related
from seqcl.types import SeqBatch
from tests import reference_losses as slow
from tests.test_augment import train_windows
from tests.test_contrastive_objectives import DIM, ENCODERS, MAX_LEN, TRAIN, N, rows_batch

BATCH = rows_batch(range(8))._replace(users=torch.tensor([0, 1, 2, 3, 4, 5, 6, 6]))


def made(kind, **options):
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    with torch.no_grad():
        encoder.item_embeddings()[1:].normal_()
    objective = kind(dim=DIM, **options)
    objective.prepare(encoder, TRAIN)
    return encoder, objective


def whole(row: int) -> list[int]:
    """The items of a row and its last target."""
    length = int(BATCH.lengths[row])
    return [*BATCH.items[row, :length].tolist(), int(BATCH.targets[row, length - 1])]


def cut(row: int, length: int) -> SeqBatch:
    return SeqBatch(torch.tensor([whole(row)[:length]]), torch.tensor([length]))


def predicted(objective, state: torch.Tensor) -> list[torch.Tensor]:
    """The vectors that one state predicts, step by step."""
    if isinstance(objective, CPC):
        return [one.weight @ state for one in objective.maps]
    found, hidden = [], torch.zeros(1, DIM)
    for step in range(objective.steps):
        if step:
            hidden = objective.step(found[-1][None], hidden.to(state))
        source = hidden[0] if step else state
        logits = objective.address.weight @ source + objective.address.bias
        weights = [math.exp(x) for x in logits.tolist()]
        found.append(source + sum(w * one for w, one in zip(weights, objective.memory, strict=True)) / sum(weights))
    return found


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CPC, {}),
        (CPC, {"steps": 20, "negatives": 7}),
        (CPC, {"similarity": "dot", "temperature": 2.0, "steps": 1}),
        (MemoryCPC, {"memory": 5, "instances": 3, "steps": 4, "dropout": 0.2}),
        (
            MemoryCPC,
            {"memory": 5, "instances": 2, "similarity": "dot", "temperature": 3.0, "negatives": 9, "dropout": 0.2},
        ),
    ],
    ids=str,
)
@torch.no_grad()
def test_it_equals_a_loop_over_states_and_steps(kind, options, newest, monkeypatch):
    encoder, objective = (one.double() for one in made(kind, weight=0.7, **options))
    objective.newest = newest
    drawn_vectors = []
    make = objective.instances
    monkeypatch.setattr(objective, "instances", lambda vectors: drawn_vectors.append(make(vectors)) or drawn_vectors[0])
    torch.manual_seed(3)
    found = float(objective(encoder, BATCH)["ahead"])
    (vectors,) = drawn_vectors  # (n, K, D)
    distinct = sorted({item for row in range(8) for item in whole(row)})
    torch.manual_seed(3)
    drawn = [distinct[place] for place in torch.randperm(len(distinct))[: objective.negatives].tolist()]
    near = related(BATCH).tolist()
    compare = getattr(slow, objective.similarity)
    losses, masked = [], []
    for row in range(8):
        items = whole(row)
        known = {item for other in range(8) if near[row][other] for item in whole(other)}
        strangers = [item for item in drawn if item not in known]
        reads = [max(1, len(items) - objective.steps)] if newest else range(1, len(items))
        for length in reads:
            vector = predicted(objective, encoder.last(cut(row, length))[0])
            for step, item in enumerate(items[length : length + objective.steps]):
                own, *others = (
                    sum(
                        math.exp(compare(vector[step], one[distinct.index(some)]) / objective.temperature)
                        for one in vectors
                    )
                    for some in (item, *strangers)
                )
                losses.append(-math.log(own / (own + sum(others))))
                masked.append(1 - len(strangers) / len(drawn))
    assert found == pytest.approx(0.7 * sum(losses) / len(losses), rel=1e-9)
    assert float(objective.observed["masked_share"]) == pytest.approx(sum(masked) / len(masked))
    if kind is MemoryCPC:
        assert not torch.equal(vectors[0], vectors[1]), "each instance is a draw of its own"


def test_vectors_that_are_all_alike_give_the_log_of_their_number():
    _, objective = made(CPC, weight=1.0)
    alike = torch.ones(2, 6, 4, dtype=torch.float64)
    masked = torch.tensor([[False, False, True], [False, False, False], [True, True, True]])
    found = objective.loss(alike[0, :3], alike, own=torch.arange(3), drawn=torch.arange(3), masked=masked)
    assert found.item() == pytest.approx((math.log(3) + math.log(4) + 0) / 3)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_loss_passes_gradcheck(similarity):
    _, objective = made(CPC, similarity=similarity, temperature=0.5)
    draws = torch.Generator().manual_seed(0)
    predicted = torch.randn(3, 4, dtype=torch.float64, generator=draws).requires_grad_()
    vectors = torch.randn(2, 5, 4, dtype=torch.float64, generator=draws).requires_grad_()
    about = {"own": torch.tensor([0, 4, 4]), "drawn": torch.tensor([1, 2, 3]), "masked": torch.eye(3).bool()}
    assert torch.autograd.gradcheck(lambda one, two: objective.loss(one, two, **about), (predicted, vectors))


@pytest.mark.parametrize("instances", [1, 3])
def test_value_and_gradients_are_those_of_one_softmax_over_all_that_is_compared(instances):
    _, objective = made(CPC, temperature=0.2)
    draws = torch.Generator().manual_seed(0)
    predicted = torch.randn(7, 4, dtype=torch.float64, generator=draws).requires_grad_()
    vectors = torch.randn(instances, 9, 4, dtype=torch.float64, generator=draws).requires_grad_()
    own, drawn = torch.arange(7), torch.tensor([8, 0, 3, 5, 2])
    masked = torch.rand(7, 5, generator=draws) < 0.4
    masked[3] = True  # no negatives at all
    found = objective.loss(predicted, vectors, own=own, drawn=drawn, masked=masked)
    every = F.cosine_similarity(predicted[None, :, None], vectors[:, None], dim=-1) / 0.2  # (n, M, K)
    mine = every[:, torch.arange(7), own].exp().sum(0)
    others = (every[:, :, drawn].exp() * ~masked).sum((0, 2))
    expected = -(mine / (mine + others)).log().mean()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    ours, theirs = (torch.autograd.grad(one, (predicted, vectors)) for one in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_an_empty_memory_and_one_instance_are_one_step_of_plain_cpc():
    encoder, plain = made(CPC, steps=1, negatives=256)
    _, objective = made(MemoryCPC, steps=1, instances=1, dropout=0.0, negatives=256)
    with torch.no_grad():
        plain.maps[0].weight.copy_(torch.eye(DIM))
        objective.memory.zero_()
    found = []
    for one in (plain, objective):
        torch.manual_seed(3)
        found.append(one(encoder, BATCH)["ahead"])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", [CPC, MemoryCPC])
def test_gradients_reach_every_parameter_and_one_row_alone_gives_nothing(kind):
    encoder, objective = made(kind)
    objective(encoder, BATCH)["ahead"].backward()
    for part in (*objective.parameters(), *encoder.parameters()):
        assert part.grad is not None and bool(part.grad.isfinite().all()) and bool(part.grad.any())
    assert not bool(objective.missing["ahead"])
    alone = SeqBatch._make(None if part is None else part[:1] for part in BATCH)
    ended = SeqBatch(BATCH.items[:, :1], torch.ones(8, dtype=torch.int64), users=BATCH.users)  # nothing comes after
    for batch in (alone, ended):
        term = objective(encoder, batch)["ahead"]
        term.backward()
        assert term == 0 and bool(objective.missing["ahead"])
        assert all(bool(part.grad.isfinite().all()) for part in encoder.parameters())


def test_an_encoder_that_reads_both_ways_learns_on_prefixes_alone():
    torch.manual_seed(0)
    encoder = BERT4Rec(num_items=N, max_len=MAX_LEN, dim=DIM)
    objective = CPC(dim=DIM)
    with pytest.raises(UserError, match=r"--data\.windows prefix"):
        objective.prepare(encoder, TRAIN)
    prefixes = train_windows([[1, 2], [3, 4]])  # one target a row
    objective.prepare(encoder, prefixes)
    term = objective(encoder, BATCH)["ahead"]
    term.backward()
    assert term > 0 and encoder.item_embeddings().grad.any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CPC, {"steps": 0}),
        (CPC, {"negatives": 0}),
        (CPC, {"temperature": -1.0}),
        (CPC, {"weight": -1.0}),
        (MemoryCPC, {"memory": 0}),
        (MemoryCPC, {"instances": 0}),
    ],
    ids=str,
)
def test_what_is_impossible_is_refused_by_name(kind, options):
    with pytest.raises(UserError, match=f"{kind.__name__}: {next(iter(options))} must"):
        kind(dim=DIM, **options)
    with pytest.raises(UserError, match="did you mean cosine"):
        kind(dim=DIM, similarity="cosin")


def test_a_dropout_out_of_its_range_is_named_with_its_section():
    with pytest.raises(UserError, match=r"objective\.dropout must be from 0 to below 1, not 2"):
        MemoryCPC(dim=DIM, dropout=2)
