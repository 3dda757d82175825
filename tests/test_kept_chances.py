"""The largest chances of teachers, taken once: their loss, how they are found again, and users kept out of a count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import seqcl
from seqcl.data import Preparation, leave_one_out
from seqcl.data.batches import Loader
from seqcl.errors import UserError
from seqcl.losses import distillation, kept_distillation
from seqcl.models.slist import SLIST
from seqcl.models.teachers import OfCounts, teacher_of
from seqcl.objectives.kept_chances import KeptChances
from seqcl.objectives.positions import places_of
from seqcl.objectives.teachers import joint_chances
from seqcl.testing.models import ITEMS, TINY, begun, check_model, small_log, tiny
from seqcl.types import SeqBatch
from tests import reference_losses as slow
from tests.test_distillation import normal


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_the_loss_equals_its_reference_and_passes_gradcheck(chunk):
    states, table = normal(6, 4).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    best = (2 * normal(6, 9, seed=2)).softmax(1).topk(3)
    shares = best.values / best.values.sum(1, keepdim=True)

    def loss(states, table):
        return kept_distillation(states, table, best.indices, shares, temperature=2.0, chunk=chunk)

    wanted = torch.zeros(6, 9, dtype=torch.float64).scatter(1, best.indices, shares)
    assert loss(states, table).item() == pytest.approx(slow.distillation(states, table, wanted, 2.0))
    assert torch.autograd.gradcheck(loss, (states, table))
    assert kept_distillation(states[:0], table, best.indices[:0], shares[:0]).item() == 0


def test_all_chances_kept_are_the_plain_loss():
    states, table = normal(6, 4), normal(9, 4, seed=1)
    wanted = (2 * normal(6, 9, seed=2)).softmax(1)
    items = torch.arange(9).expand(6, 9)
    torch.testing.assert_close(
        kept_distillation(states, table, items, wanted), distillation(states, table, wanted.__getitem__)
    )


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("times", [False, True])
def test_chances_are_found_again_in_batches_of_another_order_and_width(newest, times):
    model, batches = begun(tiny("SASRec"))
    teacher, windows = teacher_of(model), batches.windows
    if times:
        windows = replace(windows, times=np.arange(len(windows.items), dtype=float))
    loader = type(batches)(windows, batch_size=7, shuffle_seed=1, times=times)
    known = KeptChances(
        loader,
        lambda group: lambda rows, places: joint_chances([teacher], rows, places, temperature=1.0),
        size=5,
        newest=newest,
        groups=3,
    )
    found = 0
    for batch in loader.epoch(0):
        places = places_of(batch, newest=newest)
        best = joint_chances([teacher], batch, places, temperature=1.0)(slice(0, len(places))).topk(5)
        items, shares = known.at(batch, places)
        expected = best.values / best.values.sum(1, keepdim=True)
        torch.testing.assert_close(shares, expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(items, best.indices)
        found += len(items)
    assert found == len(known.items) > 20 and 0 < known.held < 1


def test_rows_that_are_not_those_of_training_are_refused():
    model, batches = begun(tiny("SASRec", distil={"teachers": "Markov", "kept": 5}))
    learner = model.objective.parts["next_item"]
    batch = next(iter(batches))
    assert torch.isfinite(model(batch)["distil"])
    for changed in (
        batch._replace(items=batch.items.roll(1, 0)),
        batch._replace(users=batch.users + 1),
        batch._replace(targets=batch.targets * (torch.arange(batch.items.shape[1]) > 0)),
    ):
        with pytest.raises(UserError, match=r"distil\.kept: this model learns from other rows"):
            learner.known.at(changed, places_of(changed, newest=learner.newest))


def test_nobody_is_taught_by_a_count_of_the_own_rows():
    _, batches = begun(tiny("SASRec"))
    windows = batches.windows
    plain, group = OfCounts(SLIST(windows)), 1
    left_out = np.arange(windows.num_users) % 4 == group
    users, items = windows.known()
    rows = [items[users == user] for user in range(windows.num_users) if not left_out[user]]
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    few = replace(windows, items=np.concatenate(rows), offsets=offsets, ends=offsets[1:], users=windows.users[:0])
    batch = SeqBatch(torch.tensor([[3, 5, 2]]), torch.tensor([3]))
    expected = OfCounts(SLIST(few)).logits(batch)
    torch.testing.assert_close(plain.without(windows, left_out).logits(batch), expected)
    assert not torch.allclose(plain.logits(batch), expected)


def test_scores_of_networks_and_log_shares_of_counted_models_are_added():
    model, batches = begun(tiny("SASRec"))
    batch, places = next(iter(batches)), torch.tensor([0, 1])
    networks, counted = [teacher_of(model), teacher_of(begun(tiny("SASRec"))[0])], OfCounts(SLIST(batches.windows))
    found = joint_chances([*networks, counted], batch, places, temperature=2.0, counted=0.3)(slice(0, 2))
    one, two, three = (teacher.at(batch, places)(slice(0, 2)) for teacher in (*networks, counted))
    torch.testing.assert_close(found, (((one + two) / 2 + 0.3 * three) / 2).softmax(1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": 5}, "groups needs kept"),
        ({"kept": 9, "groups": 1}, "groups must be 2 or more"),
        ({"kept": -1}, "kept must not be negative"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        begun(tiny("SASRec", distil={"teachers": "Markov", **options}))


def test_options_for_counted_teachers_are_refused_where_there_is_none_before_a_folder_is_made(tmp_path):
    run = seqcl.train(small_log(), model="SASRec", baseline="", runs=str(tmp_path), progress=False, **TINY)
    for options in ({"counted": 0.1}, {"groups": 5, "kept": 9}):
        distil = {"teachers": str(run.folder), **options}
        with pytest.raises(UserError, match="is for teachers that are counted, such as SLIST, and there is none"):
            seqcl.train(
                small_log(), distil=distil, runs=str(tmp_path / "none"), progress=False, **{**TINY, "model": "SASRec"}
            )
    assert not (tmp_path / "none").exists()


def test_rows_of_one_item_again_and_again_and_models_with_times_keep_chances():
    log = pd.DataFrame(
        {"user_id": np.repeat([1, 2, 3], 12), "item_id": [*[1] * 11, 2, *[3] * 6, *[4] * 6, *range(1, 13)]}
    )
    data = Preparation()
    split = leave_one_out(data.sequences(data.from_frame(log)), windows="sliding", max_len=3)
    teacher = OfCounts(SLIST(split.train))
    loader = Loader(split.train, batch_size=2)
    known = KeptChances(
        loader,
        lambda group: lambda rows, places: joint_chances([teacher], rows, places, temperature=1.0),
        size=3,
        newest=False,
    )
    for batch in loader:
        places = places_of(batch, newest=False)
        best = joint_chances([teacher], batch, places, temperature=1.0)(slice(0, len(places))).topk(3)
        torch.testing.assert_close(
            known.at(batch, places)[1], best.values / best.values.sum(1, keepdim=True), atol=1e-3, rtol=1e-3
        )
    model, batches = begun(tiny("TiCoSeRec", distil={"teachers": "SLIST", "kept": 5}))
    assert torch.isfinite(model(next(iter(batches)))["distil"])


def test_rows_of_nobody_are_refused():
    model, batches = begun(tiny("SASRec", distil={"teachers": "SLIST", "kept": 5}))
    with pytest.raises(UserError, match="these rows have no users"):
        model(next(iter(batches))._replace(users=None))


def test_a_student_of_kept_chances_keeps_the_rules_of_a_recipe_and_resumes_to_the_same_bits():
    check_model("SASRec", distil={"teachers": "SLIST", "kept": 5, "groups": 3})


def test_kept_chances_of_all_items_teach_what_chances_made_in_every_step_teach():
    steps = []
    for kept in (0, ITEMS):
        torch.manual_seed(0)
        model, batches = begun(tiny("SASRec", distil={"teachers": "SLIST", "kept": kept}))
        terms = model.eval()(next(iter(batches)))
        steps.append(terms["distil"].item())
    assert steps[0] == pytest.approx(steps[1], rel=1e-3) and steps[0] > 0
