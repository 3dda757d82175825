"""Objectives with a tiny stand-in encoder: which positions count, what gets gradient, what is masked and drawn."""

from __future__ import annotations

import inspect
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.augment import Crop, Identity, Mask, Pair, Reorder
from seqcl.encoders import Encoder, Scoring
from seqcl.errors import UserError
from seqcl.losses import LOSSES, Negatives, nt_xent, sampled_softmax
from seqcl.objectives import OBJECTIVES, ItemLoss, Joint, MaskedItems, NextItem, Objective, Prototypes, TwoViews, rng
from seqcl.objectives.kinship import related
from seqcl.objectives.rows import whole_rows
from seqcl.types import SeqBatch

ITEMS, DIM = 9, 4


class Averager(Encoder):
    """State at t: a linear map of the mean of the embeddings up to t; padding gives NaN, which must never be read."""

    def __init__(self) -> None:
        super().__init__(num_items=ITEMS, max_len=50, dim=DIM)
        torch.manual_seed(0)
        self.table = nn.Embedding(ITEMS + 2, DIM)
        self.map = nn.Linear(DIM, DIM)
        self.calls: list[str] = []

    def item_embeddings(self) -> Tensor:
        return self.table.weight

    def states(self, batch: SeqBatch) -> Tensor:
        time = torch.arange(batch.items.shape[1])
        mean = self.table(batch.items).cumsum(1) / (time + 1)[:, None]
        return self.map(mean).masked_fill((time >= batch.lengths[:, None])[..., None], math.nan)

    def forward(self, batch: SeqBatch) -> Tensor:
        self.calls.append("all")
        return self.states(batch)

    def last(self, batch: SeqBatch) -> Tensor:
        self.calls.append("last")
        return self.states(batch)[torch.arange(len(batch.lengths)), batch.lengths - 1]


def sequences(*, last_only: bool = False) -> SeqBatch:
    items = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 0], [2, 0, 0, 0]])
    targets = torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0], [0, 9, 5, 0], [3, 0, 0, 0]])
    lengths = torch.tensor([4, 2, 3, 1])
    if last_only:
        keep = torch.arange(4) == lengths[:, None] - 1
        targets = targets * keep
    return SeqBatch(items, lengths, targets, users=torch.tensor([0, 1, 2, 1]))


def flat(encoder: Averager, batch: SeqBatch) -> tuple[Tensor, Tensor]:
    states = encoder.states(batch)
    pairs = [(b, t) for b in range(4) for t in range(4) if batch.targets[b, t] > 0]
    return torch.stack([states[pair] for pair in pairs]), torch.tensor([int(batch.targets[pair]) for pair in pairs])


# Next item


def test_next_item_is_cross_entropy_over_items_alone_at_positions_with_a_target():
    encoder, batch = Averager(), sequences()
    states, targets = flat(encoder, batch)
    expected = F.cross_entropy(states @ encoder.table.weight[1:-1].T, targets - 1)
    torch.testing.assert_close(NextItem()(encoder, batch), {"next_item": expected})


def test_next_item_of_last_positions_alone_asks_the_encoder_for_those_alone():
    encoder, batch = Averager(), sequences(last_only=True)
    everywhere = NextItem()(encoder, batch)
    last = NextItem().bind(item_counts=torch.ones(ITEMS + 2), only_last=True)(encoder, batch)
    assert encoder.calls == ["all", "last"]
    torch.testing.assert_close(last, everywhere)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bce", "gbce", "bpr"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_every_next_item_loss_sends_finite_gradient_to_encoder_and_items_but_not_to_pad_and_mask(
    loss, shared, sampling
):
    if loss == "gbce" and sampling == "popularity":
        return  # refused, below
    encoder = Averager()
    objective = NextItem(loss=loss, shared=shared, sampling=sampling, negatives=20)
    objective.bind(item_counts=torch.arange(ITEMS + 2))
    terms = objective(encoder, sequences())
    assert list(terms) == ["next_item"] and terms["next_item"].shape == ()
    through_scores = torch.autograd.grad(terms["next_item"], (encoder.map.weight, encoder.table.weight))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in through_scores)
    assert not through_scores[1][0].any() and not through_scores[1][-1].any()


@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce", "bpr"])
@pytest.mark.parametrize("items", [40, 8])  # more than take part, and fewer
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
@pytest.mark.parametrize("correction", ["negatives", "both"])
def test_a_loss_against_drawn_items_is_that_over_the_whole_table(
    loss, items, shared, sampling, correction, monkeypatch
):
    torch.manual_seed(0)
    if loss == "gbce" and sampling == "popularity":
        return  # refused, below
    targets = torch.tensor([3, 7, 7, items, 1])  # ids
    objective = NextItem(
        loss=loss,
        shared=shared,
        sampling=sampling,
        correction=correction,
        negatives=4,
        bias=True,
        similarity="cosine",
        temperature=0.5,
    ).bind(item_counts=torch.arange(items + 2))
    objective.double()
    scoring = objective.scoring
    drawn = torch.tensor([2, 6, 6, 5]) if shared else torch.randint(items, (5, 4))  # rows
    monkeypatch.setattr(objective.negatives, "draw", lambda *_: drawn)
    states = torch.randn(5, DIM, dtype=torch.float64, requires_grad=True)
    table = torch.randn(items + 2, DIM, dtype=torch.float64, requires_grad=True)
    leaves = [states, table, *objective.parameters()]
    options = {}
    if loss == "sampled_softmax":
        options = {"log_q": objective.negatives.log_q if sampling == "popularity" else None, "correction": correction}
    whole = LOSSES[loss](scoring.queries(states), scoring.candidates(table), targets - 1, drawn, **options)
    ours = objective.mean(states, targets, table)
    torch.testing.assert_close(ours, whole)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves), torch.autograd.grad(whole, leaves))


def test_next_item_learns_the_next_item():
    encoder, batch = Averager(), sequences()
    objective, optimizer = NextItem(), torch.optim.Adam(encoder.parameters(), lr=0.1)
    for _ in range(200):
        loss = objective(encoder, batch)["next_item"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    states, targets = flat(encoder, batch)
    scores = objective.scoring.queries(states) @ objective.scoring.candidates(encoder.item_embeddings()).T
    assert (scores.argmax(1) + 1 == targets).float().mean() > 0.8


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_negatives_are_drawn_from_all_items_as_the_sampling_says(sampling):
    torch.manual_seed(0)
    counts = torch.tensor([99, 0, 1, 2, 3, 4, 5, 6, 7, 8, 99])
    negatives = Negatives(count=200_000, sampling=sampling)
    negatives.bind(counts)
    drawn = negatives.draw(ITEMS, 3, torch.default_generator)
    share = torch.bincount(drawn, minlength=ITEMS) / len(drawn)
    weight = torch.ones(ITEMS) if sampling == "uniform" else counts[1:-1] + 1.0
    assert len(share) == ITEMS
    torch.testing.assert_close(share, weight / weight.sum(), atol=0.005, rtol=0)


def test_sampled_softmax_by_popularity_nears_the_full_softmax_optimum():
    # At the true log frequencies the gradient of the corrected loss vanishes; uncorrected it would not.
    counts = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    chance = (counts[1:-1] + 1) / (counts[1:-1] + 1).sum()
    scores = chance.flip(0).log()[:, None].requires_grad_()  # what is true differs from what is drawn
    negatives = Negatives(count=1, sampling="popularity", shared=False)
    loss = partial(sampled_softmax, correction="both")
    negatives.bind(counts)
    torch.manual_seed(0)
    targets = torch.multinomial(chance.flip(0), 400_000, replacement=True)
    states, drawn = torch.ones(len(targets), 1), negatives.draw(ITEMS, len(targets), torch.default_generator)
    (right,) = torch.autograd.grad(loss(states, scores, targets, drawn, log_q=negatives.log_q), scores)
    (wrong,) = torch.autograd.grad(loss(states, scores, targets, drawn), scores)
    assert right.abs().max() < 0.002 < 0.02 < wrong.abs().max()


def test_one_draw_serves_all_positions_or_each_draws_its_own():
    assert NextItem(negatives=7).negatives.draw(ITEMS, 3, torch.default_generator).shape == (7,)
    assert NextItem(negatives=7, shared=False).negatives.draw(ITEMS, 3, torch.default_generator).shape == (3, 7)


def test_cosine_scores_are_bounded_by_the_temperature_and_dot_scores_divided_by_it():
    states, table = torch.randn(5, DIM), torch.randn(ITEMS + 2, DIM)
    cosine = Scoring(similarity="cosine", temperature=0.1)
    scores = cosine.queries(states) @ cosine.candidates(table).T
    torch.testing.assert_close(scores, 10 * F.cosine_similarity(states[:, None], table[None, 1:-1], dim=-1))
    dot = Scoring(temperature=2.0)
    torch.testing.assert_close(dot.queries(states) @ dot.candidates(table).T, states @ table[1:-1].T / 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "sofmax"}, "did you mean softmax"),
        ({"negatives": 0}, "negatives"),
        ({"temperature": 0.0}, "temperature"),
        ({"loss": "bce", "smoothing": 0.1}, "smoothing"),
    ],
)
def test_an_impossible_next_item_is_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        NextItem(**options)


def test_popularity_without_counts_is_refused():
    with pytest.raises(ValueError, match="call bind"):
        NextItem(loss="bce", sampling="popularity")(Averager(), sequences())


# Two views


def test_two_views_is_the_weighted_nt_xent_of_one_encoded_pass():
    encoder, batch = Averager(), sequences()
    objective = TwoViews(views=Identity(), dim=DIM, weight=0.3, temperature=0.5)
    terms = objective(encoder, batch)
    states = encoder.last(batch)
    assert encoder.calls == ["last", "last"]
    expected = 0.3 * nt_xent(states, states, temperature=0.5, same=related(batch))
    torch.testing.assert_close(terms, {"contrast": expected})


def test_rows_of_one_user_or_with_one_last_target_are_related():
    expected = torch.eye(4).bool()
    expected[0, 2] = expected[2, 0] = True  # both end in target 5
    expected[1, 3] = expected[3, 1] = True  # both of user 1
    batch = sequences()
    assert related(batch).equal(expected)
    last = batch.targets.gather(1, batch.lengths[:, None] - 1)[:, 0]
    assert related(batch._replace(targets=last)).equal(expected)
    assert related(batch._replace(targets=None, users=None)).equal(torch.eye(4).bool())


def test_the_mask_of_false_negatives_changes_the_loss_and_its_share_is_observed():
    encoder, batch = Averager(), sequences()
    masked, plain = (TwoViews(views=Identity(), dim=DIM, mask_false_negatives=on) for on in (True, False))
    assert masked(encoder, batch)["contrast"] < plain(encoder, batch)["contrast"]
    assert masked.observed["masked_share"] == pytest.approx(4 / 12)
    assert "masked_share" not in plain.observed
    assert masked.observed["alignment"] == pytest.approx(0, abs=1e-6)
    assert not any(value.requires_grad for value in masked.observed.values())


@pytest.mark.parametrize(("head", "layers"), [("none", 0), ("linear", 1), ("mlp", 2)])
def test_the_head_is_used_and_gets_gradient(head, layers):
    torch.manual_seed(1)
    encoder = Averager()
    objective = TwoViews(views=Mask(rate=0.5, least=1).bind(num_items=ITEMS, max_len=4), dim=DIM, head=head)
    objective(encoder, sequences())["contrast"].backward()
    weights = [parameter for parameter in objective.parameters() if parameter.dim() == 2]
    assert len(weights) == layers
    assert all(parameter.grad.any() for parameter in weights)
    assert encoder.map.weight.grad.any() and encoder.table.weight.grad.any()


def test_two_views_lets_the_batch_and_its_targets_alone_and_draws_anew_each_time():
    encoder, batch = Averager(), sequences()
    before = SeqBatch(*(part if part is None else part.clone() for part in batch))
    objective = TwoViews(views=Pair(views=[Crop(rate=0.5), Reorder(rate=0.9)]), dim=DIM)
    torch.manual_seed(3)
    values = [objective(encoder, batch)["contrast"].item() for _ in range(10)]
    assert len(set(values)) > 1
    assert all(mine is None or mine.equal(theirs) for mine, theirs in zip(batch, before, strict=True))
    torch.manual_seed(3)
    assert values == [objective(encoder, batch)["contrast"].item() for _ in range(10)]


def test_two_views_of_a_batch_of_one_row_are_finite():
    batch = SeqBatch(*(part if part is None else part[:1] for part in sequences()))
    objective = TwoViews(views=Identity(), dim=DIM)
    assert objective(Averager(), batch)["contrast"].item() == pytest.approx(0, abs=1e-6)
    assert all(value.isfinite() for value in objective.observed.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "mpl"}, "did you mean mlp"),
        ({"temperature": -1.0}, "temperature"),
        ({"states": "newst"}, "did you mean newest"),
        ({"states": "all", "head": "linear"}, "states=all takes no head"),
    ],
)
@pytest.mark.parametrize("kind", [TwoViews, Prototypes])
def test_impossible_options_of_a_contrast_are_refused_by_name(kind, options, said):
    with pytest.raises(UserError, match=said):
        kind(views=Identity(), dim=DIM, **options)


def test_intents_are_of_one_state_a_row():
    with pytest.raises(UserError, match="intent_states 'all': valid: mean, newest"):
        Prototypes(views=Identity(), dim=DIM, intent_states="all")


# Masked items


class Reader(Averager):
    """State: a linear map of the sum of the row, MASK tokens too; what came in is kept."""

    causal = one_pass = False

    def states(self, batch: SeqBatch) -> Tensor:
        self.read = batch
        time = torch.arange(batch.items.shape[1])
        real = (time < batch.lengths[:, None])[..., None]
        total = (self.table(batch.items) * real).sum(1, keepdim=True)
        return self.map(total + self.table(batch.items)).masked_fill(~real, math.nan)


def masked(**options) -> MaskedItems:
    return MaskedItems(item_loss=ItemLoss(), **options)


def test_a_whole_row_ends_in_its_last_target_and_the_batch_is_left_alone():
    batch = sequences()
    before = batch.items.clone()
    rows = whole_rows(batch)
    assert rows.items.tolist() == [[1, 2, 3, 4, 5], [5, 6, 7, 0, 0], [7, 8, 9, 5, 0], [2, 3, 0, 0, 0]]
    assert rows.lengths.tolist() == [5, 3, 4, 2]
    masked()(Reader(), batch)
    assert batch.items.equal(before)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_a_share_of_every_row_is_masked_one_item_at_least_and_never_padding(rate):
    rows, mask = whole_rows(sequences()), ITEMS + 1
    seen = torch.zeros(4, 5)
    for _ in range(200):
        marks = masked(rate=rate, newest=0.0).marks(rows)
        assert (marks.sum(1) == (rows.lengths * rate + 1e-6).long().clamp(min=1)).all()
        seen += marks
    assert (seen > 0).equal(rows.items > 0)  # every item is masked some time, the newest too
    assert mask not in rows.items


def test_a_share_of_rows_has_its_newest_item_masked_alone():
    rows = whole_rows(sequences())
    newest = torch.arange(5) == rows.lengths[:, None] - 1
    assert masked(rate=0.9, newest=1.0).marks(rows).equal(newest)
    torch.manual_seed(0)
    share = sum(int(masked(rate=0.9, newest=0.3).marks(rows)[0].equal(newest[0])) for _ in range(1000)) / 1000
    assert share == pytest.approx(0.3, abs=0.05)


def test_masked_items_is_cross_entropy_of_what_was_masked():
    torch.manual_seed(2)
    encoder, batch = Reader(), sequences()
    terms = masked(rate=0.5)(encoder, batch)
    rows, read = whole_rows(batch), encoder.read
    hidden = read.items == ITEMS + 1
    assert hidden.any(1).all() and read.items[~hidden].equal(rows.items[~hidden])
    states = encoder.states(read)[hidden]
    expected = F.cross_entropy(states @ encoder.table.weight[1:-1].T, rows.items[hidden] - 1)
    torch.testing.assert_close(terms, {"masked_items": expected})


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bce", "gbce", "bpr"])
def test_every_loss_of_masked_items_sends_finite_gradient_to_encoder_and_mask(loss):
    encoder = Reader()
    objective = MaskedItems(
        item_loss=ItemLoss(loss=loss, sampling="uniform" if loss == "gbce" else "popularity", negatives=20)
    )
    objective.item_loss.bind(torch.arange(ITEMS + 2))
    objective(encoder, sequences())["masked_items"].backward()
    assert encoder.map.weight.grad.isfinite().all() and encoder.map.weight.grad.any()
    assert encoder.table.weight.grad[-1].any()


def test_masked_items_ranks_as_its_next_item_does():
    inner = ItemLoss(similarity="cosine", temperature=0.1)
    assert MaskedItems(item_loss=inner).scoring is inner.scoring


@pytest.mark.parametrize(("options", "said"), [({"rate": 1.0}, "rate"), ({"newest": 1.5}, "newest")])
def test_an_impossible_masked_items_is_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        masked(**options)


def test_an_objective_refuses_an_encoder_that_it_cannot_teach():
    counts = torch.ones(ITEMS + 2)
    with pytest.raises(UserError, match="BERT4Rec"):
        NextItem().bind(item_counts=counts).check_encoder(Reader())
    with pytest.raises(UserError, match="does not read what follows"):
        masked().check_encoder(Averager())
    NextItem().bind(item_counts=counts, only_last=True).check_encoder(Reader())
    NextItem().bind(item_counts=counts).check_encoder(Averager())
    masked().check_encoder(Reader())


# Sums and hooks


class Counter(Objective):
    """A constant term that counts how often its hooks are called."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.steps, self.epochs = value, 0, 0

    def forward(self, encoder, batch):
        self.observed = {"seen": torch.tensor(self.value)}
        return {"constant": torch.tensor(self.value)}

    def after_step(self, encoder):
        self.steps += 1

    def before_epoch(self, encoder, batches, *, epoch, epochs):
        self.epochs += 1


def test_joint_gives_the_terms_of_all_and_ranks_as_its_first():
    encoder, batch = Averager(), sequences()
    joint = Joint(next_item=NextItem(similarity="cosine"), views=TwoViews(views=Identity(), dim=DIM))
    terms = joint(encoder, batch)
    assert list(terms) == ["next_item", "contrast"]
    assert sorted(joint.observed) == ["alignment", "masked_share", "uniformity"]
    states = torch.randn(3, DIM)
    assert joint.scoring.queries(states).norm(dim=1).allclose(torch.ones(3))
    assert joint.scoring.candidates(encoder.item_embeddings()).shape == (ITEMS, DIM)


def test_joint_keeps_terms_of_one_name_apart_and_passes_hooks_on():
    first, second = Counter(1.0), Counter(2.0)
    joint = Joint(first=first, second=second)
    assert joint(None, None) == {"constant": 1.0, "second_constant": 2.0}
    assert joint.observed == {"seen": 1.0, "second_seen": 2.0}
    joint.after_step(None)
    joint.before_epoch(None, [], epoch=0, epochs=1)
    assert (first.steps, second.steps, first.epochs, second.epochs) == (1, 1, 1, 1)


def test_a_joint_of_nothing_is_refused():
    with pytest.raises(UserError, match="at least one"):
        Joint()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.tensor(1.0), "must give a dictionary of its losses by name, not a Tensor"),
        ({"mine": 1.0}, "must give its loss 'mine' as a tensor of one number, not a float"),
        ({"mine": torch.ones(3)}, r"must give its loss 'mine' as a tensor of one number, not one of \(3,\)"),
    ],
    ids=["no terms", "float", "rows"],
)
def test_what_is_no_term_is_refused_by_the_name_of_its_objective(given, said):
    class Mine(Objective):
        def forward(self, encoder, batch):
            return given

    with pytest.raises(UserError, match=rf"^the objective 'own' \(Mine\) {said}$"):
        Joint(own=Mine())(None, None)


def test_scores_are_inner_products_with_the_items_unless_told_otherwise():
    states, table = torch.randn(2, DIM), torch.randn(ITEMS + 2, DIM)
    assert Scoring().queries(states) is states
    assert Scoring().candidates(table).equal(table[1 : ITEMS + 1])


@pytest.mark.parametrize(
    "name", ["MoCo", "MoCoV3", "BYOL", "MiCE", "DirectAU", "Counterfactual", "BatchSoftmax", "ItemGraph"]
)
def test_an_objective_that_was_not_prepared_says_what_to_call(name):
    kind = OBJECTIVES[name]
    given = {"views": Crop(), "dim": DIM, "experts": 2}
    options = {key: value for key, value in given.items() if key in inspect.signature(kind).parameters}
    with pytest.raises(UserError, match=rf"^{name}: call prepare\(encoder, train\) before the first batch$"):
        kind(**options)(Averager(), sequences())


def test_an_objective_that_cannot_rank_is_named():
    with pytest.raises(TypeError, match=r"the objective 'first' \(Counter\) cannot rank items"):
        _ = Joint(first=Counter(1.0)).scoring


def test_randomness_is_that_of_the_default_generator():
    torch.manual_seed(5)
    first = torch.rand(3, generator=rng(torch.device("cpu")))
    torch.manual_seed(5)
    assert first.equal(torch.rand(3))


def test_the_table_of_objectives_names_each_as_its_class():
    assert all(name == kind.__name__ and issubclass(kind, Objective) for name, kind in OBJECTIVES.items())


def test_gbce_is_refused_with_negatives_that_its_calibration_does_not_know():
    with pytest.raises(UserError, match="NextItem: loss=gbce is calibrated for sampling=uniform"):
        NextItem(loss="gbce", sampling="popularity")
