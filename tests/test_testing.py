"""The checks of seqcl.testing: our own parts pass them, and a part with one defect fails by that defect's message."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqcl.augment import (
    VIEWS,
    Chain,
    Crop,
    Identity,
    Mask,
    Pair,
    Reorder,
    SameTarget,
    View,
    by_length,
    crop_mask_reorder,
    dropout_and_same_target,
    evened_out,
    row_and_same_target,
)
from seqcl.encoders import ENCODERS, Encoder, TableEncoder
from seqcl.errors import UserError
from seqcl.evaluation import METRICS
from seqcl.losses import LOSSES, bpr, softmax
from seqcl.objectives import BYOL, InfoMin, MoCo, Objective, Prototypes, SwAV, TwoViews
from seqcl.testing import check_encoder, check_loss, check_metric, check_objective, check_view
from seqcl.types import PAD

# Our own parts


@pytest.mark.parametrize("name", [name for name in VIEWS if name not in ("OneOf", "Chain", "ByLength")])
@pytest.mark.parametrize("times", [False, True])
def test_every_view_passes_with_its_defaults(name, times):
    check_view(VIEWS[name](), times=times)


@pytest.mark.parametrize(
    "pair",
    [
        crop_mask_reorder(),
        crop_mask_reorder(distinct=True, mask=0),
        by_length(),
        by_length(threshold=0, correlation="cooccurrence"),
        evened_out(),
        row_and_same_target(),
        *dropout_and_same_target(positives="both").values(),
        Pair(views=[Identity(), SameTarget()]),
    ],
)
def test_every_pair_that_a_recipe_declares_passes(pair):
    check_view(pair)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_passes(name):
    check_encoder(partial(ENCODERS[name], dim=8))


@pytest.mark.parametrize("positions", ["start", "end", "relative"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_sasrec_passes_with_all_its_positions_and_norms(positions, norm):
    check_encoder(partial(ENCODERS["SASRec"], dim=8, positions=positions, norm=norm))


@pytest.mark.parametrize("name", LOSSES)
def test_every_next_item_loss_passes(name):
    check_loss(LOSSES[name])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_passes(name):
    check_metric(METRICS[name])


def test_a_check_leaves_the_global_generator_and_the_view_as_they_were():
    view, state = Mask(), torch.get_rng_state()
    check_view(view)
    check_encoder(Mean)
    check_loss(softmax)
    assert torch.equal(state, torch.get_rng_state()) and view.token is None


# Views with one defect


class Made(View):
    """A view made of a function of a batch and a generator."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, batch, generator):
        return self.function(batch._replace(targets=None), generator)


def written(batch, generator):
    batch.items[:, 0] = 1
    return batch


def written_behind_the_rows(batch, generator):
    batch.items[batch.items == PAD] = 3
    return batch


def clocked_in_place(batch, generator):
    if batch.times is not None:
        batch.times.add_(batch.times > 0)
    return batch


def masked_by(draw):
    """Write item 1 at drawn positions."""

    def masked(batch, generator):
        places = draw(batch.items.shape, generator) < 0.5
        return batch._replace(items=torch.where(places & (batch.items != PAD), 1, batch.items))

    return masked


def turned(batch, generator):
    real = torch.arange(batch.items.shape[1]) < batch.lengths[:, None]
    index = (batch.lengths[:, None] - 1 - torch.arange(batch.items.shape[1])).clamp(min=0)
    times = None if batch.times is None else batch.times.gather(1, index).masked_fill(~real, 0)
    return batch._replace(items=batch.items.gather(1, index).masked_fill(~real, PAD), times=times)


DEFECTS = {
    "writes into the source: its items": written,
    "writes into the source: its items changed": written_behind_the_rows,
    "writes into the source: its times": clocked_in_place,
    "must give a SeqBatch": lambda batch, generator: tuple(batch),
    "must drop the targets": lambda batch, generator: batch._replace(targets=batch.items.clone()),
    "must be int64": lambda batch, generator: batch._replace(items=batch.items.int()),
    "one row for each of": lambda batch, generator: type(batch)(*(x if x is None else x[:-1] for x in batch)),
    "one item at least": lambda batch, generator: batch._replace(
        lengths=batch.lengths - 1, items=batch.items.where(torch.arange(batch.items.shape[1]) < batch.lengths[:, None] - 1, 0)
    ),
    "more than the longest row": lambda batch, generator: batch._replace(
        items=F.pad(batch.items, (21, 0), value=1),
        lengths=batch.lengths + 21,
        times=None if batch.times is None else F.pad(batch.times, (21, 0), value=1.0),
    ),
    "ids inside a row must be 1 to": lambda batch, generator: batch._replace(items=batch.items * 9),
    "ids inside a row must be 1 to 51, the MASK token; 0": lambda batch, generator: batch._replace(
        items=batch.items.masked_fill(batch.items == 3, PAD)
    ),
    "behind the end of a row must be PAD": lambda batch, generator: batch._replace(
        items=batch.items.masked_fill(batch.items == PAD, 5)
    ),
    "padding must be trimmed": lambda batch, generator: batch._replace(
        items=F.pad(batch.items, (0, 1)), times=None if batch.times is None else F.pad(batch.times, (0, 1))
    ),
    "must keep the users": lambda batch, generator: batch._replace(users=None),
    "users must stay in their order": lambda batch, generator: batch._replace(
        users=None if batch.users is None else batch.users.flip(0)
    ),
    "makes up users": lambda batch, generator: batch._replace(users=torch.arange(len(batch.lengths)))
    if batch.users is None
    else batch,
    "must keep the times": lambda batch, generator: batch._replace(times=None),
    "makes up times": lambda batch, generator: batch._replace(times=batch.items.double())
    if batch.times is None
    else batch,
    "times must ascend": turned,
    "times must have the shape": lambda batch, generator: batch._replace(
        times=None if batch.times is None else batch.times[:, :1]
    ),
    "must draw from the one it is given": masked_by(lambda shape, generator: torch.rand(shape)),
    "two generators of one seed gave two results": masked_by(lambda shape, generator: torch.tensor(np.random.rand(*shape))),
    "rows must stay in their order": lambda batch, generator: batch._replace(
        items=batch.items.flip(0), lengths=batch.lengths.flip(0), times=None if batch.times is None else batch.times.flip(0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", DEFECTS)
def test_a_view_with_a_defect_fails_by_its_message(message):
    with pytest.raises(AssertionError, match=message):
        check_view(Made(DEFECTS[message]), times=True)


def test_a_pair_with_a_defect_in_its_second_view_fails():
    with pytest.raises(AssertionError, match="writes into the source"):
        check_view(Pair(views=[Crop(), Made(written)], ordered=True))
    with pytest.raises(AssertionError, match="users must stay"):
        check_view(Pair(views=[Crop(), Chain(views=[Made(DEFECTS["users must stay in their order"])])], ordered=True))


def test_a_view_of_neighbours_without_rebind_is_told_so():
    view = Made(lambda batch, generator: batch)
    view.neighbours_needed = 1
    with pytest.raises(UserError, match=r"needs rebind\(neighbours\)"):
        check_view(view)


def test_a_view_that_needs_times_gets_them_and_a_sound_one_passes():
    check_view(Reorder(even=True))
    check_view(Made(turned))  # without times there is none to descend
    check_view(Made(masked_by(lambda shape, generator: torch.rand(shape, generator=generator))), times=True)


# Encoders with one defect


class Mean(nn.Module):
    """The mean of the items so far, through one map: a sound encoder; its subclasses have one defect each."""

    one_pass, causal, both_ways = True, True, False

    def __init__(self, *, num_items, max_len, dim=8):
        super().__init__()
        self.num_items, self.max_len, self.dim = num_items, max_len, dim
        self.table = nn.Embedding(num_items + 2, dim, padding_idx=PAD)
        self.map = nn.Linear(dim, dim)

    def item_embeddings(self):
        return self.table.weight

    def means(self, vectors, batch):
        return vectors.cumsum(1) / torch.arange(1, vectors.shape[1] + 1)[:, None]

    def forward(self, batch):
        return self.map(self.means(self.table(batch.items), batch))

    def last(self, batch):
        return self(batch)[torch.arange(len(batch.lengths)), batch.lengths - 1]


class ReadsTheFuture(Mean):
    def means(self, vectors, batch):
        following = torch.arange(1, vectors.shape[1] + 1) < batch.lengths[:, None]
        return super().means(vectors, batch) + 0.1 * vectors.roll(-1, 1) * following[..., None]


class ReadsPadding(Mean):
    def means(self, vectors, batch):
        return super().means(vectors, batch) + 0.1 * vectors[:, -1:]


class ReadsWidth(Mean):
    def means(self, vectors, batch):
        return super().means(vectors, batch) / vectors.shape[1]


class ReadsOtherRows(Mean):
    def means(self, vectors, batch):
        return super().means(vectors, batch) + 0.1 * vectors[:, :1].mean(0)


class ReadsThePlaceOfARow(Mean):
    def means(self, vectors, batch):
        return super().means(vectors, batch) * (1 + torch.arange(len(vectors))[:, None, None])


class LearnsPad(Mean):
    def __init__(self, **options):
        super().__init__(**options)
        self.table = nn.Embedding(self.num_items + 2, self.dim)
        nn.init.zeros_(self.table.weight[PAD].detach())

    def means(self, vectors, batch):
        return super().means(vectors, batch) + self.table.weight[PAD]


class HasAPadRow(Mean):
    def __init__(self, **options):
        super().__init__(**options)
        nn.init.normal_(self.table.weight)


class ForgetsTheMask(Mean):
    def __init__(self, **options):
        super().__init__(**options)
        self.table = nn.Embedding(self.num_items + 1, self.dim, padding_idx=PAD)


class HasAnIdleMap(Mean):
    def __init__(self, **options):
        super().__init__(**options)
        self.idle = nn.Linear(2, 2)


class DropsInEvaluation(Mean):
    def means(self, vectors, batch):
        return F.dropout(super().means(vectors, batch), 0.2)


class IgnoresTheNewest(Mean):
    def last(self, batch):
        oldest = self(batch)[:, 0]
        return torch.where((batch.lengths > 1)[:, None], oldest, super().last(batch))


class LastIsAnother(Mean):
    def last(self, batch):
        return super().last(batch) * 1.01


class GivesNoTime(Mean):
    def forward(self, batch):
        return super().forward(batch).transpose(0, 1)

    def last(self, batch):
        return self(batch)[batch.lengths - 1, torch.arange(len(batch.lengths))]


class WritesItems(Mean):
    def forward(self, batch):
        batch.items[batch.items == PAD] = 1
        return super().forward(batch)


class IsInfiniteAtTheMask(Mean):
    def means(self, vectors, batch):
        return super().means(vectors, batch) / (batch.items <= self.num_items)[..., None]


FAULTS = [
    (ReadsTheFuture, "changes earlier states"),
    (ReadsPadding, "in the padding must not"),
    (ReadsWidth, "width of the batch"),
    (ReadsOtherRows, "alone"),
    (ReadsThePlaceOfARow, "order of the rows"),
    (LearnsPad, "PAD must not learn"),
    (HasAPadRow, "PAD in item_embeddings"),
    (ForgetsTheMask, r"\(N \+ 2, dim\)"),
    (HasAnIdleMap, "no gradient reaches idle"),
    (DropsInEvaluation, r"in eval\(\) two passes"),
    (IgnoresTheNewest, "newest of"),
    (LastIsAnother, "at lengths - 1"),
    (GivesNoTime, "states must be"),
    (WritesItems, "writes into the items"),
    (IsInfiniteAtTheMask, "MASK token"),
]


class WithoutLast(TableEncoder):
    def __init__(self, *, dim=8, **options):
        super().__init__(dim=dim, **options)

    def forward(self, batch):
        return self.table(batch.items)


def test_a_sound_encoder_passes():
    check_encoder(Mean)


def test_an_encoder_without_last_takes_the_state_after_the_newest_item():
    check_encoder(WithoutLast)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Encoder(num_items=3, max_len=2, dim=4).item_embeddings(), r"Encoder needs item_embeddings\(\)"),
        (lambda: type("Bare", (Encoder,), {})(num_items=3, max_len=2, dim=4)(None), r"Bare needs forward\(batch\)"),
        (lambda: type("Bare", (View,), {})()(None, None), r"Bare needs forward\(batch, generator\)"),
        (lambda: type("Bare", (Objective,), {})()(None, None), r"Bare needs forward\(encoder, batch\)"),
    ],
)
def test_a_part_without_a_method_that_it_needs_names_it(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()


@pytest.mark.parametrize(("kind", "message"), FAULTS, ids=[kind.__name__ for kind, _ in FAULTS])
def test_an_encoder_with_a_defect_fails_by_its_message(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_encoder(kind)


def test_an_encoder_that_says_it_reads_both_ways_may_do_so():
    class Whole(Mean):
        causal = False

        def means(self, vectors, batch):
            real = torch.arange(vectors.shape[1]) < batch.lengths[:, None]
            total = (vectors * real[..., None]).sum(1, keepdim=True)
            return super().means(vectors, batch) + total

    check_encoder(Whole)
    Whole.causal = True
    with pytest.raises(AssertionError, match="changes earlier states"):
        check_encoder(Whole)


# Objectives


class TwoTerms(TwoViews):
    """Its own term, and one that is cut from the parameters or missing."""

    def __init__(self, *, views, dim, missing=False):
        super().__init__(views=views, dim=dim)
        self.without = missing

    def forward(self, encoder, batch):
        terms = super().forward(encoder, batch)
        if self.without:
            self.missing["cut"] = torch.tensor(True)
        return terms | {"cut": terms["contrast"].detach() * (not self.without)}


@pytest.mark.parametrize("kind", [TwoViews, MoCo, SwAV, Prototypes, BYOL, InfoMin])
def test_our_objectives_pass(kind):
    check_objective(kind)


def test_a_term_without_a_gradient_is_named_unless_it_is_missing():
    with pytest.raises(AssertionError, match="no parameter gets a gradient of the term 'cut'"):
        check_objective(TwoTerms)
    check_objective(partial(TwoTerms, missing=True))


# Losses with one defect


def unmasked(queries, candidates, targets, negatives):
    """Triplet-like, but a negative that is the target counts."""
    scores = queries @ candidates.T
    drawn = scores[:, negatives] if negatives.dim() == 1 else scores.gather(1, negatives)
    return (1 + drawn - 0.5 * scores.gather(1, targets[:, None])).sigmoid().mean()


def overflowing(queries, candidates, targets):
    scores = (queries.float() if queries.dtype == torch.bfloat16 else queries) @ candidates.T
    scores = scores.float() if scores.dtype == torch.bfloat16 else scores
    return (scores.exp().sum(1).log() - scores.gather(1, targets[:, None])[:, 0]).mean()


def in_place(queries, candidates, targets):
    with torch.no_grad():
        candidates += 1
    return softmax(queries, candidates, targets)


LOSS_FAULTS = {
    "must be a scalar": lambda q, c, t: F.cross_entropy(q @ c.T, t, reduction="none"),
    "must be finite, not": lambda q, c, t: softmax(q, c, t) * torch.inf,
    "has no gradient": lambda q, c, t: softmax(q, c, t).detach(),
    "no gradient reaches the queries": lambda q, c, t: softmax(q.detach(), c, t),
    "no gradient reaches the candidates": lambda q, c, t: softmax(q, c.detach(), t),
    "gradient is not that of the value": lambda q, c, t: softmax(q, c, t) + softmax(q, c, t).detach(),
    "order of the positions": lambda q, c, t: softmax(q * torch.arange(1, len(q) + 1)[:, None], c, t),
    "must not rise": lambda q, c, t: -softmax(q, c, t),
    "must fall": lambda q, c, t: F.softplus(q @ c.T).masked_fill(F.one_hot(t, len(c)).bool(), 0).mean(),
    "must be left out": unmasked,
    "bfloat16": overflowing,
    "writes into a tensor": in_place,
    "is the mean over positions": lambda q, c, t: softmax(q, c, t) * len(q),
    "became .* of the same ones twice": lambda q, c, t: softmax(q, c, t) / len(q),
    "must be float32": lambda q, c, t: softmax(q, c, t).to(q.dtype),
}  # fmt: skip


@pytest.mark.parametrize("message", LOSS_FAULTS)
def test_a_loss_with_a_defect_fails_by_its_message(message):
    with pytest.raises(AssertionError, match=message):
        check_loss(LOSS_FAULTS[message])


def test_a_loss_of_drawn_negatives_is_tried_with_shared_ones_and_with_those_of_each_position():
    seen = set()

    def watched(queries, candidates, targets, negatives, *, factor=1.0):
        seen.add(negatives.dim())
        return factor * bpr(queries, candidates, targets, negatives)

    check_loss(watched)
    assert seen == {1, 2}


# Metrics with one defect


def overwritten(ranks, k):
    ranks[ranks > k] = k + 1
    return 1 / ranks


METRIC_FAULTS = {
    "rank 2 has a better value than rank 1": lambda ranks, k: ranks / 1e7,
    "must have a better value": lambda ranks, k: np.ones(len(ranks)),
    "order of rows": lambda ranks, k: (ranks <= k) * np.linspace(1, 0.5, len(ranks)),
    "depends on other rows": lambda ranks, k: (ranks <= k) / len(ranks),
    "not finite": lambda ranks, k: np.where(ranks <= k, 1.0, -np.inf),
    "a value a row": lambda ranks, k: (ranks <= k).mean(),
    "writes into the ranks": overwritten,
}


@pytest.mark.parametrize("message", METRIC_FAULTS)
def test_a_metric_with_a_defect_fails_by_its_message(message):
    with pytest.raises(AssertionError, match=message):
        check_metric(METRIC_FAULTS[message])


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_a_metric_may_give_values_of_any_kind(kind):
    check_metric(lambda ranks, k: (ranks <= k).astype(kind))
