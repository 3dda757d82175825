"""One rule where a loss cannot be computed: the term is 0 with gradient 0, it is counted, and it is said."""

from __future__ import annotations

import csv
import logging

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl.encoders import SASRec
from seqcl.errors import UserError
from seqcl.losses import LOSSES
from seqcl.objectives import BatchSoftmax, MutualInformation, NextItem
from seqcl.objectives.rows import whole_rows
from seqcl.testing.models import begun
from seqcl.training import Trainer
from seqcl.types import SeqBatch
from tests.test_recipes import RECIPES, TERMS, tiny_of
from tests.tiny_training import TinyLoader, TinyModel

WITHOUT_TARGETS = {"next_item", "observed", "interest", "distil", "align_uniform"}
"""Terms that need a target."""
WITHOUT_OTHERS = {
    "contrast", "same_target_contrast", "intent", "learned", "decorrelate", "spread", "ahead", "align_uniform", "graph",
}  # fmt: skip
"""Terms that need another row, unless they have a queue, a bank or centres."""


def without_targets(batch):
    return batch._replace(targets=torch.zeros_like(batch.targets))


def first_row(batch):
    return SeqBatch._make(None if part is None else part[:1] for part in batch)


@pytest.mark.parametrize(("change", "needy"), [(without_targets, WITHOUT_TARGETS), (first_row, WITHOUT_OTHERS)])
@pytest.mark.parametrize("model", RECIPES)
def test_what_a_batch_cannot_give_is_zero_without_gradient_and_noted(model, change, needy):
    recipe, batches = begun(tiny_of(model))
    recipe.objective.before_epoch(recipe.encoder, batches, epoch=9, epochs=10)  # past every warm-up
    batch = next(iter(batches))
    recipe(batch)  # fills queues and banks
    recipe(batch)
    assert not any(bool(flag) for flag in recipe.objective.missing.values())
    terms = recipe(change(batch))
    assert set(terms) == set(TERMS.get(model, " ".join(terms)).split())
    missing = {name for name, flag in recipe.objective.missing.items() if bool(flag)}
    held = {"MoCoRec": "contrast", "PIRLRec": "contrast", "SpCLRec": "contrast", "PCLRec": "intent"}  # other negatives
    expected = needy & set(terms) - {held.get(model)}
    if model == "TwoTower":  # one target alone is found among itself
        expected |= {"next_item"}
    assert missing == expected
    for name, term in terms.items():
        recipe.zero_grad()
        if term.requires_grad:
            term.backward(retain_graph=True)
        gradients = [one.grad for one in recipe.parameters() if one.grad is not None]
        assert bool(term.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients)
        if name in missing:
            assert term.item() == 0 and not any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("objective", [*LOSSES, "BatchSoftmax"])
def test_no_target_is_no_loss_whatever_the_loss_and_a_row_without_one_changes_nothing(objective, newest):
    torch.manual_seed(0)
    made = BatchSoftmax() if objective == "BatchSoftmax" else NextItem(loss=objective, negatives=4)
    encoder = SASRec(num_items=9, max_len=5, dim=8).eval()
    if objective == "BatchSoftmax":
        made.chance, made.only_last = torch.full((11,), 0.1, dtype=torch.float64), newest
    else:
        made.bind(np.ones(11), only_last=newest)
    targets = torch.tensor([[2, 3, 4], [5, 6, 7], [0, 0, 0]])
    batch = SeqBatch(torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), torch.tensor([3, 3, 3]), targets)
    losses = []
    for rows in (
        batch,
        SeqBatch(batch.items[:2], batch.lengths[:2], targets[:2]),
        batch._replace(targets=torch.zeros_like(targets)),
    ):
        torch.manual_seed(1)
        losses.append(made(encoder, rows)["next_item"])
        assert bool(made.missing["next_item"]) == (len(losses) == 3)
    assert losses[0].item() == pytest.approx(losses[1].item()) and losses[0].item() > 0 and losses[2].item() == 0
    losses[2].backward()
    assert not any(bool(one.grad.any()) for one in encoder.parameters() if one.grad is not None)


def test_a_whole_row_ends_in_its_items_where_it_has_no_last_target():
    batch = SeqBatch(
        torch.tensor([[1, 2], [3, 0], [4, 5]]), torch.tensor([2, 1, 2]), torch.tensor([[2, 9], [0, 0], [5, 0]])
    )
    rows = whole_rows(batch)
    assert rows.items.tolist() == [[1, 2, 9], [3, 0, 0], [4, 5, 0]] and rows.lengths.tolist() == [3, 1, 2]


def test_pretraining_notes_what_a_batch_cannot_give():
    recipe, batches = begun(tiny_of("S3Rec"))
    stage = recipe.pretraining()
    assert isinstance(stage.objective, MutualInformation)
    stage(next(iter(batches)))
    assert stage.objective.missing.keys() == {"item_attribute", "masked_item", "masked_attribute", "segment"}
    assert not any(bool(flag) for flag in stage.objective.missing.values())
    stage(first_row(next(iter(batches))))
    assert bool(stage.objective.missing["segment"]) and not bool(stage.objective.missing["masked_item"])


def rows_of(users, items):
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [(user, item, time) for user in range(users) for time, item in enumerate(random.permutation(items)[:7])],
        columns=["user_id", "item_id", "timestamp"],
    )


def history(run):
    with (run.folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("size", "without"), [(1, 9), (8, 1), (16, None)])
def test_batches_without_a_term_are_counted_in_the_history_and_said_where_there_is_no_other(
    tmp_path, caplog, size, without
):
    caplog.set_level(logging.WARNING, logger="seqcl")
    values = {"encoder": {"dim": 8}, "train": {"epochs": 2, "batch_size": size}}
    run = seqcl.train(rows_of(9, 40), model="CL4Rec", runs=str(tmp_path), progress=False, **values)
    said = [record.getMessage() for record in caplog.records]
    for row in history(run):
        assert all(value == value and value != "nan" for value in row.values())
        assert row.get("without_contrast") == (None if without is None else str(float(without)))
    assert sum("the loss 'contrast' is 0: none of the 9 batches" in line for line in said) == (size == 1)
    assert ("none of the 9 batches" in (run.folder / "log.txt").read_text()) == (size == 1)


def test_a_term_that_is_switched_off_is_not_missed(tmp_path):
    values = {"encoder": {"dim": 8}, "train": {"epochs": 1, "batch_size": 1}, "objective": {"weight": 0}}
    run = seqcl.train(rows_of(9, 40), model="CL4Rec", runs=str(tmp_path), progress=False, **values)
    assert "without_contrast" not in history(run)[0]


class Nothing(TinyLoader):
    """No batch, or batches whose rows have no target."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def epoch(self, number, start=0):
        return iter(self.batches[start:])


def test_training_without_a_batch_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to train on"):
        Trainer(epochs=1).fit(TinyModel(), Nothing([]), folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_an_epoch_that_gives_no_term_at_all_stops_the_run():
    recipe, batches = begun(tiny_of("SASRec"))
    empty = [without_targets(batch) for batch in batches]
    with pytest.raises(
        UserError, match=r"nothing was learned in epoch 1: none of its 4 batches could give 'next_item'"
    ):
        Trainer(epochs=3).fit(recipe, Nothing(empty), progress=False)
