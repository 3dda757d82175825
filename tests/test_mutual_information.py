"""Tests of the pre-training of S3-Rec: its terms against loops over rows, its segments, its encoder."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from seqcl.encoders import GRU, SASRec
from seqcl.errors import UserError
from seqcl.objectives import MutualInformation
from seqcl.objectives.mutual_information import cut, prefixes_of, reading_both_ways
from seqcl.types import SeqBatch, Tables
from tests import reference_losses as slow
from tests.test_contrastive_objectives import DIM, MAX_LEN, TRAIN, N, rows_batch

MASK = N + 1
OWNED = {item: {item % 5, 5 + item % 3} for item in range(1, N + 1) if item % 7}  # some items have none
KNOWN = Tables(
    name="test",
    user_ids=np.arange(TRAIN.num_users),
    item_ids=np.arange(1, N + 1),
    items=pd.DataFrame({"a": [" ".join(map(str, own)) for own in OWNED.values()]}, index=list(OWNED)),
)
TERMS = ("item_attribute", "masked_item", "masked_attribute", "segment")


def made(**options):
    torch.manual_seed(0)
    encoder = SASRec(num_items=N, max_len=MAX_LEN, dim=DIM, dropout=0.0).double()
    objective = MutualInformation(dim=DIM, **options)
    objective.prepare(encoder, replace(TRAIN, tables=KNOWN))
    return encoder, objective.double()


def one_row(encoder, items):
    """Encode one row alone, read both ways: (L, D)."""
    with reading_both_ways(encoder):
        return encoder(SeqBatch(torch.tensor([items]), torch.tensor([len(items)])))[0]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_every_term_equals_a_loop_over_rows(similarity, monkeypatch):
    encoder, objective = made(similarity=similarity, temperature=0.5, rate=0.4)
    batch = rows_batch(range(12))
    seen = []
    call = SASRec.__call__
    monkeypatch.setattr(SASRec, "__call__", lambda self, rows: seen.append(rows) or call(self, rows))
    monkeypatch.setattr(
        SASRec, "last", lambda self, rows: seen.append(rows) or call(self, rows)[range(24), rows.lengths - 1]
    )
    terms = objective(encoder, batch)
    monkeypatch.undo()
    masked, parts = seen
    compare = slow.cosine if similarity == "cosine" else slow.dot
    rows = [
        [*items[:length].tolist(), int(targets[length - 1])]
        for items, targets, length in zip(batch.items, batch.targets, batch.lengths, strict=True)
    ]
    table, known = encoder.item_embeddings(), sorted({item for row in rows for item in row})

    def score(name, state, other):
        return compare(objective.maps[name].weight @ state, other) / 0.5

    def against_attributes(name, states, items):
        logits = [[score(name, state, other) for other in objective.attributes.weight] for state in states]
        marks = [[number in OWNED.get(item, ()) for number in range(8)] for item in items]
        return slow.each_positive(torch.tensor(logits), torch.tensor(marks))

    hidden = [  # state and item of every MASK
        (state, row[place])
        for row, shown in zip(rows, masked.items.tolist(), strict=True)
        for place, state in enumerate(one_row(encoder, shown[: len(row)]))
        if shown[place] == MASK
    ]
    assert len(hidden) >= 12
    losses = []
    for state, item in hidden:
        logits = [score("masked_item", state, table[other]) for other in known]
        losses.append(math.log(sum(map(math.exp, logits))) - logits[known.index(item)])
    ends = [
        one_row(encoder, items[:length].tolist())[-1] for items, length in zip(parts.items, parts.lengths, strict=True)
    ]
    pairs, cut_out = (
        [],
        [items[:length].tolist() for items, length in zip(parts.items[12:], parts.lengths[12:], strict=True)],
    )
    for a in range(12):
        allowed = [b for b in range(12) if b == a or (rows[a][-1] != rows[b][-1] and cut_out[a] != cut_out[b])]
        logits = {b: score("segment", ends[a], ends[12 + b]) for b in allowed}
        pairs.append(math.log(sum(map(math.exp, logits.values()))) - logits[a])
    expected = {
        "item_attribute": 0.2 * against_attributes("item_attribute", table[known], known),
        "masked_item": sum(losses) / len(losses),
        "masked_attribute": against_attributes("masked_attribute", *zip(*hidden, strict=True)),
        "segment": 0.5 * sum(pairs) / 12,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)


def test_attributes_can_be_found_by_the_states_at_places_that_are_not_masked_and_reach_the_blocks(monkeypatch):
    only = {"masked_item": 0, "masked_attribute": 0, "segment": 0}
    encoder, objective = made(similarity="dot", temperature=1.0, rate=0.4, aap="states", **only)
    batch, seen, call = rows_batch(range(8)), [], SASRec.__call__
    monkeypatch.setattr(SASRec, "__call__", lambda self, rows: seen.append(rows) or call(self, rows))
    term = objective(encoder, batch)["item_attribute"]
    monkeypatch.undo()
    logits, marks = [], []
    for items, length in zip(seen[0].items.tolist(), seen[0].lengths.tolist(), strict=True):
        assert MASK in items
        for place, state in enumerate(one_row(encoder, items[:length])):
            if items[place] != MASK:
                state = objective.maps["item_attribute"].weight @ state
                logits.append([(state @ other).item() for other in objective.attributes.weight])
                marks.append([number in OWNED.get(items[place], ()) for number in range(8)])
    expected = 0.2 * slow.each_positive(torch.tensor(logits), torch.tensor(marks))
    assert term.item() == pytest.approx(expected, rel=1e-6)
    term.backward()
    assert encoder.blocks[0].widen.weight.grad.abs().sum() > 0
    encoder, objective = made(**only)
    objective(encoder, batch)["item_attribute"].backward()
    assert encoder.blocks[0].widen.weight.grad is None, "by embeddings the term never reaches the blocks"


def test_every_prefix_of_two_items_or_more_is_read_once():
    batch = rows_batch(range(9))
    made_of = prefixes_of(batch)
    found = [
        (user, *items[:length].tolist(), int(targets[length - 1]))
        for user, items, targets, length in zip(
            made_of.users.tolist(), made_of.items, made_of.targets, made_of.lengths.tolist(), strict=True
        )
    ]
    expected = []
    for user, items, targets, length in zip(
        batch.users.tolist(), batch.items.tolist(), batch.targets.tolist(), batch.lengths.tolist(), strict=True
    ):
        row = [*items[:length], targets[length - 1]]
        expected += [(user, *row[:end]) for end in range(2, len(row) + 1)]
    assert sorted(found) == sorted(expected)
    assert ((made_of.targets > 0).sum(1) == 1).all()
    encoder, objective = made(prefixes=True)
    sizes = []
    with pytest.MonkeyPatch.context() as patch:
        call = SASRec.__call__
        patch.setattr(SASRec, "__call__", lambda self, rows: sizes.append(len(rows.lengths)) or call(self, rows))
        assert all(torch.isfinite(term) for term in objective(encoder, batch).values())
    assert sizes == [len(expected)]


def test_a_row_without_its_segment_and_the_segment_make_the_row():
    rows = rows_batch(range(40))
    sizes, places = set(), set()
    for _ in range(30):
        without, segments = cut(rows, token=MASK)
        for row, rest, segment, length, size in zip(
            rows.items.tolist(),
            without.items.tolist(),
            segments.items.tolist(),
            rows.lengths,
            segments.lengths,
            strict=True,
        ):
            where = [place for place, item in enumerate(rest) if item == MASK]
            assert where == list(range(where[0], where[0] + size)) and where[-1] < length
            assert [row[place] for place in where] == segment[:size] and not any(segment[size:])
            assert [item for place, item in enumerate(rest) if place not in where] == [
                item for place, item in enumerate(row) if place not in where
            ]
            assert 1 <= size <= max(1, length // 2)
            if length == 6:
                sizes.add(int(size))
                places.add(where[0])
    assert sizes == {1, 2, 3} and places == {0, 1, 2, 3, 4, 5}
    assert without.lengths.equal(rows.lengths) and rows.items.max() <= N


def test_terms_of_weight_zero_are_left_out_and_without_their_attributes_none_are_needed():
    encoder, objective = made(item_attribute=0, masked_attribute=0, segment=0)
    objective.prepare(encoder, replace(TRAIN, tables=None))
    assert set(objective(encoder, rows_batch(range(8)))) == {"masked_item"}
    encoder, objective = made(masked_item=0, masked_attribute=0, segment=0)
    assert set(objective(encoder, rows_batch(range(8)))) == {"item_attribute"}
    with pytest.raises(UserError, match="these windows come without tables"):
        MutualInformation(dim=DIM).prepare(encoder, replace(TRAIN, tables=None))


def test_rows_of_one_user_or_one_target_are_no_negatives_of_a_segment_and_their_share_is_observed():
    encoder, objective = made(item_attribute=0, masked_item=0, masked_attribute=0)
    batch = rows_batch(range(8))
    one_user = batch._replace(users=torch.zeros(8, dtype=torch.int64))
    assert objective(encoder, one_user)["segment"].item() == pytest.approx(0, abs=1e-9)
    assert objective.observed["masked_share"].item() == pytest.approx(1)


def test_the_same_segment_of_another_row_is_no_negative():
    encoder, objective = made(item_attribute=0, masked_item=0, masked_attribute=0)
    items = torch.full((6, 2), 3)  # two of three segments are item 3
    targets = torch.tensor([[3, target] for target in range(4, 10)])
    batch = SeqBatch(items, torch.full((6,), 2), targets, torch.arange(6))
    objective(encoder, batch)
    assert objective.observed["masked_share"] > 0.1  # users and targets all differ


def test_the_encoder_is_causal_again_whatever_happens():
    encoder, objective = made()
    objective(encoder, rows_batch(range(8)))
    assert encoder.causal
    with pytest.raises(ZeroDivisionError), reading_both_ways(encoder):
        assert not encoder.causal
        raise ZeroDivisionError
    assert encoder.causal
    with pytest.raises(UserError, match="GRU cannot read what follows"):
        MutualInformation(dim=DIM).prepare(GRU(num_items=N, max_len=MAX_LEN, dim=DIM), TRAIN)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 1.0}, "rate must be from 0 to below 1"),
        ({"segment": -1}, "segment must not be negative"),
        ({"temperature": 0}, "temperature must be above 0"),
        (dict.fromkeys(TERMS, 0), "one of item_attribute, masked_item, masked_attribute, segment must be above 0"),
    ],
)
def test_an_impossible_mutual_information_is_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        MutualInformation(dim=DIM, **options)
