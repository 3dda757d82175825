"""Losses against slow references, closed forms and gradcheck, at masks, small temperatures and big logits."""

from __future__ import annotations

import math
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.errors import UserError
from seqcl.losses import (
    LOSSES,
    alignment,
    barlow,
    bce,
    contrast,
    cosine_gap,
    cosine_margin,
    each_positive,
    gbce,
    hard_mixes,
    info_nce,
    margin_contrast,
    mixture,
    nt_xent,
    sampled_softmax,
    similarities,
    sinkhorn,
    softmax,
    spreading,
    swapped,
    triplet,
    uniformity,
    vicreg,
    view_regularizer,
)
from tests import reference_losses as slow


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def numbers(high: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs))


# Full softmax


@pytest.mark.parametrize("positions", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("items", [1, 17, 1001])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_softmax_equals_cross_entropy_in_value_and_gradient(positions, items, smoothing):
    states = normal(positions, 8, dtype=torch.float32).requires_grad_()
    table = normal(items, 8, seed=2, dtype=torch.float32).requires_grad_()
    targets = numbers(items, positions)
    ours = softmax(states, table, targets, smoothing=smoothing)
    plain = F.cross_entropy(states @ table.T, targets, label_smoothing=smoothing)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(gradients(3 * ours, states, table), gradients(3 * plain, states, table), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_chunked_softmax_equals_the_slow_reference_whatever_the_chunk():
    states, table, targets = normal(7, 3), normal(5, 3, seed=2), numbers(5, 7)
    for chunk in (1, 2, 7, 100):
        assert softmax(states, table, targets, smoothing=0.2, chunk=chunk).item() == pytest.approx(
            slow.softmax(states, table, targets.tolist(), 0.2), abs=1e-12
        )


def test_chunked_softmax_passes_gradcheck():
    states, table = normal(5, 3).requires_grad_(), normal(4, 3, seed=2).requires_grad_()
    targets = torch.tensor([0, 1, 3, 3, 2])
    assert torch.autograd.gradcheck(lambda s, e: softmax(s, e, targets, smoothing=0.1, chunk=2), (states, table))


def test_chunked_softmax_stays_exact_where_the_probability_of_a_target_underflows():
    states = torch.tensor([[300.0], [-200.0], [1.0]], requires_grad=True)
    table = torch.tensor([[1.0], [0.0], [-1.0]], requires_grad=True)
    targets = torch.tensor([2, 0, 1])
    ours, plain = softmax(states, table, targets, chunk=2), F.cross_entropy(states @ table.T, targets)
    torch.testing.assert_close(ours, plain)
    for mine, theirs in zip(gradients(ours, states, table), gradients(plain, states, table), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_chunked_softmax_gives_the_same_value_without_gradients():
    states, table, targets = normal(70, 4).requires_grad_(), normal(9, 4).requires_grad_(), numbers(9, 70)
    with torch.no_grad():
        value = softmax(states, table, targets)
    assert not value.requires_grad
    assert value == softmax(states, table, targets)
    assert not softmax(states.detach(), table.detach(), targets).requires_grad


@pytest.mark.parametrize("trained", ["states", "table"])
def test_chunked_softmax_sends_gradient_where_only_one_side_is_trained(trained):
    sides = {"states": normal(6, 4), "table": normal(9, 4, seed=3)}
    sides[trained].requires_grad_()
    targets = numbers(9, 6)
    ours = gradients(softmax(sides["states"], sides["table"], targets), sides[trained])
    plain = gradients(F.cross_entropy(sides["states"] @ sides["table"].T, targets), sides[trained])
    torch.testing.assert_close(ours, plain)


def test_chunked_softmax_under_bfloat16_autocast_is_near_and_returns_float32():
    states = normal(100, 16, dtype=torch.float32).requires_grad_()
    table = normal(300, 16, seed=2, dtype=torch.float32).mul_(0.3).requires_grad_()
    targets = numbers(300, 100)
    exact = softmax(states, table, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = softmax(states, table, targets)
    assert low.dtype == torch.float32 and low != exact
    torch.testing.assert_close(low, exact, rtol=0.01, atol=0)
    for mine, theirs in zip(gradients(low, states, table), gradients(exact, states, table), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


def test_chunked_softmax_takes_bfloat16_states_and_returns_their_gradient_in_kind():
    states = normal(10, 8).bfloat16().requires_grad_()
    table = normal(20, 8, seed=2, dtype=torch.float32).requires_grad_()
    loss = softmax(states, table, numbers(20, 10))
    grad_states, grad_table = gradients(loss, states, table)
    assert (loss.dtype, grad_states.dtype, grad_table.dtype) == (torch.float32, torch.bfloat16, torch.float32)


def test_chunked_softmax_never_holds_the_logits_of_all_positions():
    positions, items = 512, 30_000
    states, table = normal(positions, 2, dtype=torch.float32).requires_grad_(), normal(items, 2, dtype=torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        softmax(states, table.requires_grad_(), numbers(items, positions)).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 128 * items * 4 <= largest < positions * items * 4 / 3


def test_chunked_softmax_of_no_positions_is_zero():
    states = torch.zeros(0, 4, requires_grad=True)
    loss = softmax(states, normal(5, 4, dtype=torch.float32), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0


def test_chunked_softmax_is_not_finite_where_a_state_is_not():
    states = torch.tensor([[1.0], [math.nan]])
    assert softmax(states, torch.ones(3, 1), torch.tensor([0, 1])).isnan()


# Against drawn negatives

T, N, K = 6, 11, 4
STATES, TABLE, TARGETS = normal(T, 5), normal(N, 5, seed=3), numbers(N, T)
OWN = numbers(N, T, K, seed=4).index_put((torch.tensor([0, 3]), torch.tensor([1, 2])), TARGETS[[0, 3]])  # two hits
SHARED = torch.cat((TARGETS[:1], numbers(N, K - 1, seed=5)))
DRAWS = pytest.mark.parametrize("drawn", [OWN, SHARED], ids=["own", "shared"])
DRAWN_LOSSES = pytest.mark.parametrize(
    "loss", [LOSSES.find(name) for name in LOSSES if "negatives" in signature(LOSSES.find(name)).parameters]
)


def listed(drawn: Tensor) -> list[list[int]]:
    return drawn.expand(T, K).tolist()


@DRAWS
@pytest.mark.parametrize("correction", ["negatives", "both"])
def test_sampled_softmax_equals_its_reference(drawn, correction):
    chance = torch.softmax(normal(N, seed=6), 0)
    for log_q, share in ((chance.log(), chance.tolist()), (None, [1 / N] * N)):
        ours = sampled_softmax(STATES, TABLE, TARGETS, drawn, log_q=log_q, correction=correction)
        expected = slow.sampled_softmax(STATES, TABLE, TARGETS.tolist(), listed(drawn), share, correction)
        assert ours.item() == pytest.approx(expected, abs=1e-12)


def test_sampled_softmax_of_many_draws_estimates_the_full_softmax():
    chance = torch.softmax(normal(N, seed=6), 0)
    drawn = torch.multinomial(chance, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    # A drawn target is left out, as its own logit stands for it.
    full = F.cross_entropy(STATES @ TABLE.T, TARGETS)
    torch.testing.assert_close(
        sampled_softmax(STATES, TABLE, TARGETS, drawn, log_q=chance.log()), full, atol=0.01, rtol=0
    )
    assert abs(sampled_softmax(STATES, TABLE, TARGETS, drawn, log_q=chance.log(), correction="both") - full) > 0.1


def test_sampled_softmax_with_every_item_drawn_once_is_the_full_softmax():
    ours = sampled_softmax(STATES, TABLE, TARGETS, torch.arange(N))
    torch.testing.assert_close(ours, F.cross_entropy(STATES @ TABLE.T, TARGETS))


@pytest.mark.parametrize("correction", ["negatives", "both"])
@pytest.mark.parametrize("size", [1, 20.0])
def test_shared_negatives_equal_the_same_negatives_drawn_by_each_position(correction, size, monkeypatch):
    monkeypatch.setattr("seqcl.losses.sampled.at_once", lambda device, row_bytes: 128)
    positions, items, drawn = 300, 40, numbers(40, 100, seed=7)  # every item several times
    states = (size * normal(positions, 8, dtype=torch.float32)).requires_grad_()  # 20: chances that underflow
    table = normal(items, 8, seed=2, dtype=torch.float32).requires_grad_()
    targets, log_q = numbers(items, positions), normal(items, seed=3, dtype=torch.float32)
    shared, own = (
        sampled_softmax(states, table, targets, draw, log_q=log_q, correction=correction)
        for draw in (drawn, drawn.expand(positions, -1))
    )
    torch.testing.assert_close(shared, own, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(gradients(3 * shared, states, table), gradients(3 * own, states, table), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert sampled_softmax(states, table, targets, drawn, log_q=log_q, correction=correction) == shared


@DRAWS
@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_gbce_equals_its_reference_and_is_bce_at_t_zero(drawn, t):
    expected = slow.gbce(STATES, TABLE, TARGETS.tolist(), listed(drawn), t)
    assert gbce(STATES, TABLE, TARGETS, drawn, t=t).item() == pytest.approx(expected, abs=1e-12)
    if t == 0:
        assert bce(STATES, TABLE, TARGETS, drawn).item() == pytest.approx(expected, abs=1e-12)


@DRAWN_LOSSES
@DRAWS
def test_every_loss_of_drawn_negatives_equals_the_slow_version_of_its_name(loss, drawn):
    expected = getattr(slow, loss.__name__)(STATES, TABLE, TARGETS.tolist(), listed(drawn))
    assert loss(STATES, TABLE, TARGETS, drawn).item() == pytest.approx(expected, abs=1e-12)


@DRAWN_LOSSES
@DRAWS
def test_losses_of_drawn_negatives_pass_gradcheck(loss, drawn):
    inputs = (STATES.clone().requires_grad_(), TABLE.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda s, e: loss(s, e, TARGETS, drawn), inputs)


@DRAWN_LOSSES
def test_a_negative_that_is_the_target_pushes_nothing_away(loss):
    state, target = STATES[:1].clone().requires_grad_(), TARGETS[:1]
    (gradient,) = gradients(loss(state, TABLE, target, target.expand(1, K)), state)
    assert (gradient @ TABLE[target].T).item() <= 0  # a step against the gradient never lowers the target's score


@DRAWN_LOSSES
def test_losses_of_drawn_negatives_are_finite_float32_scalars_at_big_bfloat16_scores(loss):
    states, table = (STATES * 100).bfloat16().requires_grad_(), TABLE.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(states, table, TARGETS, OWN)
    assert value.shape == () and value.dtype == torch.float32 and value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, states, table))


@DRAWN_LOSSES
@DRAWS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_drawn_negatives_take_half_and_score_in_float32(loss, drawn, dtype):
    states, table = (90 * STATES).to(dtype), (90 * TABLE).to(dtype).requires_grad_()  # products beyond 65,504
    found, expected = loss(states, table, TARGETS, drawn), loss(states.float(), table.float(), TARGETS, drawn)
    assert found.dtype == torch.float32 and expected.isfinite()
    torch.testing.assert_close(found, expected)


@DRAWN_LOSSES
@pytest.mark.parametrize("drawn", [SHARED, OWN[:0]], ids=["shared", "own"])
def test_losses_of_drawn_negatives_of_no_positions_are_zero(loss, drawn):
    states, table = STATES[:0].clone().requires_grad_(), TABLE.clone().requires_grad_()
    value = loss(states, table, TARGETS[:0], drawn)
    assert value.item() == 0 and not gradients(value, states, table)[1].any()


# The contrastive core

POSITIVES = torch.tensor(
    [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]], dtype=torch.bool
)
KEEP = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]], dtype=torch.bool)
WEIGHTS = torch.tensor([[1, 2, 3, 0.5, 1, 1], [3, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6.0]]).double()


@pytest.mark.parametrize("keep", [None, KEEP], ids=["all", "masked"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])
@pytest.mark.parametrize("reduction", ["out", "in"])
def test_contrast_equals_its_reference_and_passes_gradcheck(keep, weights, reduction):
    logits = normal(4, 6).requires_grad_()
    ours = contrast(logits, POSITIVES, keep=keep, weights=weights, reduction=reduction)
    assert ours.shape == ()
    assert ours.item() == pytest.approx(slow.contrast(logits.detach(), POSITIVES, keep, weights, reduction), abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: contrast(x, POSITIVES, keep=keep, weights=weights, reduction=reduction), (logits,)
    )


def test_a_column_mask_is_the_pair_mask_that_repeats_it():
    logits, columns = normal(4, 6), torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool)
    assert contrast(logits, POSITIVES, keep=columns) == contrast(logits, POSITIVES, keep=columns.expand(4, 6))


def test_a_weight_of_zero_is_a_removed_column():
    logits = normal(4, 6)
    torch.testing.assert_close(
        contrast(logits, POSITIVES, weights=KEEP.double()), contrast(logits, POSITIVES, keep=KEEP)
    )


def test_contrast_with_an_eye_mask_is_cross_entropy():
    logits = normal(5, 9)
    torch.testing.assert_close(contrast(logits, torch.eye(5, 9).bool()), F.cross_entropy(logits, torch.arange(5)))


def test_contrast_with_soft_positives_is_cross_entropy_and_with_equal_ones_the_mean():
    logits = normal(5, 7).requires_grad_()
    wanted = normal(5, 7, seed=2).softmax(1)
    every = torch.ones(5, 7, dtype=torch.bool)
    torch.testing.assert_close(contrast(logits, every, shares=wanted), F.cross_entropy(logits, wanted))
    some = normal(5, 7, seed=3) > 0.3
    keep = normal(5, 7, seed=4) > -0.5
    equal = some / some.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(contrast(logits, some, keep=keep, shares=equal), contrast(logits, some, keep=keep))
    shares = (wanted * some) / (wanted * some).sum(1, keepdim=True).clamp(min=1e-9)
    expected = 0.0
    rows = [row for row in range(5) if some[row].any()]
    for row in rows:
        known = [j for j in range(7) if some[row, j] or keep[row, j]]
        norm = math.log(sum(math.exp(logits[row, j].item()) for j in known))
        expected -= sum(shares[row, j].item() * (logits[row, j].item() - norm) for j in known) / len(rows)
    assert contrast(logits, some, keep=keep, shares=shares).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: contrast(x, some, keep=keep, shares=shares), (logits,))


@pytest.mark.parametrize("reduction", ["out", "in"])
def test_contrast_without_any_positive_is_zero_with_zero_gradient(reduction):
    logits = normal(3, 4).requires_grad_()
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    loss = contrast(logits, nothing, keep=nothing, reduction=reduction)
    (gradient,) = gradients(loss, logits)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize(("hardness", "prior"), [(0.7, 0.0), (0.0, 0.2), (1.3, 0.1), (0.4, 0.9)])
@pytest.mark.parametrize("keep", [None, KEEP], ids=["all", "masked"])
def test_hard_and_debiased_negatives_equal_their_reference_and_pass_gradcheck(hardness, prior, keep):
    logits = normal(4, 6).requires_grad_()
    options = {"keep": keep, "hardness": hardness, "prior": prior, "lowest": -2.0}
    everything = torch.ones(4, 6, dtype=torch.bool) if keep is None else keep
    expected = slow.corrected(logits.detach(), POSITIVES, everything, hardness, prior, -2.0)
    assert contrast(logits, POSITIVES, **options).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: contrast(x, POSITIVES, **options), (logits,))


@pytest.mark.parametrize("options", [{"hardness": 1e-12}, {"prior": 1e-12}], ids=str)
def test_a_hardness_or_a_prior_of_nothing_is_the_plain_contrast(options):
    logits = normal(4, 6)
    torch.testing.assert_close(
        contrast(logits, POSITIVES, keep=KEEP, **options), contrast(logits, POSITIVES, keep=KEEP)
    )


def test_hard_negatives_of_one_similarity_are_the_plain_contrast():
    logits = torch.full((4, 6), 0.3, dtype=torch.float64)
    torch.testing.assert_close(contrast(logits, POSITIVES, hardness=5.0), contrast(logits, POSITIVES))


def test_the_harder_negative_gets_the_larger_part_of_the_push():
    logits = torch.tensor([[0.0, 2.0, 0.0]]).requires_grad_()
    shares = []
    for hardness in (0.0, 1.0):
        (gradient,) = gradients(contrast(logits, torch.tensor([[True, False, False]]), hardness=hardness), logits)
        shares.append(float(gradient[0, 1] / gradient[0, 1:].sum()))
    assert shares[0] == pytest.approx(math.exp(2) / (math.exp(2) + 1)) and shares[1] > shares[0]


def test_big_logits_with_corrections_are_finite():
    logits = torch.tensor([[90.0, 100.0, -100.0], [-100.0, 100.0, 100.0]]).requires_grad_()
    loss = contrast(logits, torch.eye(2, 3).bool(), hardness=1.0, prior=0.5, lowest=-100.0)
    assert loss.isfinite() and gradients(loss, logits)[0].isfinite().all()


# Mixes of hard negatives


def mixes(queries: Tensor, keys: Tensor, negatives: Tensor, hardest: int) -> Tensor:
    draws = torch.Generator().manual_seed(4)
    return hard_mixes(queries, keys, negatives, hardest=hardest, of_keys=3, with_query=2, generator=draws)


@pytest.mark.parametrize("hardest", [1, 3, 99])
def test_mixes_of_hard_negatives_equal_their_reference(hardest):
    queries, keys = F.normalize(normal(4, 5), dim=1), F.normalize(normal(7, 5, seed=1), dim=1)
    negatives = numbers(2, 4, 7).bool()
    negatives[3] = False
    found = mixes(queries, keys, negatives, hardest)
    draws = torch.Generator().manual_seed(4)
    of_two, of_query, partners, places = (torch.rand(4, columns, generator=draws).tolist() for columns in (3, 2, 3, 5))
    assert (found[3] == 0).all(), "a query without a negative has none"
    for row in range(3):
        near = [key for key, one in zip(keys, negatives[row], strict=True) if one]
        shares = [*of_two[row], *(share / 2 for share in of_query[row])]
        drawn = [*zip(partners[row], places[row], strict=False), *((place,) for place in places[row][3:])]
        for mix, expected in zip(found[row], slow.hard_mixes(queries[row], near, hardest, shares, drawn), strict=True):
            torch.testing.assert_close(mix, torch.tensor(expected))


def test_mixes_hold_none_of_what_is_no_negative_and_are_near_the_query():
    keys = torch.eye(6, dtype=torch.float64)
    queries = F.normalize(torch.tensor([[5.0, 4, 3, 2, 1, 0]], dtype=torch.float64), dim=1)
    negatives = torch.tensor([[False, True, True, True, True, True]])
    found = mixes(queries, keys, negatives, 2)[0]
    assert (found[:3, [0, 3, 4, 5]] == 0).all(), "of the two hardest negatives alone"
    assert (found[3:] @ queries[0] > queries[0, 2]).all(), "harder than the key that the query is mixed with"
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_mixes_of_no_keys_are_zeros():
    queries = F.normalize(normal(4, 5), dim=1)
    assert torch.equal(mixes(queries, queries[:0], torch.ones(4, 0, dtype=torch.bool), 2), queries.new_zeros(4, 5, 5))


# Pairs of rows


@pytest.mark.parametrize(
    ("loss", "option"), [("margin_contrast", {"margin": 1.3}), ("spreading", {"temperature": 0.4})]
)
def test_losses_of_pairs_of_rows_equal_their_references_and_pass_gradcheck(loss, option):
    first, second = normal(6, 3).requires_grad_(), normal(6, 3, seed=1).requires_grad_()
    same = torch.eye(6, dtype=torch.bool)
    same[1, 4] = same[4, 1] = True
    made = {"margin_contrast": margin_contrast, "spreading": spreading}[loss]
    expected = getattr(slow, loss)(first.detach(), second.detach(), *option.values(), same)
    assert made(first, second, **option, same=same).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda *views: made(*views, **option, same=same), (first, second))
    alone = made(first, second, **option, same=torch.ones(6, 6, dtype=torch.bool))
    assert alone.isfinite() and all(gradient.isfinite().all() for gradient in gradients(alone, first, second))


@pytest.mark.parametrize(
    "loss",
    [
        lambda *views, same: margin_contrast(*views, margin=1.3, same=same),
        lambda *views, same: spreading(*views, temperature=0.4, same=same),
        lambda *views, same: view_regularizer(*views, same),
        lambda *views, same: nt_xent(*views, temperature=0.4, same=same),
    ],
    ids=["margin_contrast", "spreading", "view_regularizer", "nt_xent"],
)
def test_a_row_is_never_another_one_whether_it_is_marked_or_not(loss):
    views = normal(6, 3), normal(6, 3, seed=1)
    same = torch.zeros(6, 6, dtype=torch.bool)
    same[1, 4] = same[4, 1] = True
    assert loss(*views, same=same) == loss(*views, same=same | torch.eye(6, dtype=torch.bool))


def test_a_margin_costs_nothing_where_rows_are_far_apart_and_its_half_square_in_collapse():
    eye = torch.eye(4)
    itself = torch.eye(4, dtype=torch.bool)
    assert margin_contrast(eye, 2 * eye, margin=1.4, same=itself).item() == pytest.approx(0, abs=1e-6)
    assert margin_contrast(eye, eye, margin=1.5, same=itself).item() == pytest.approx((1.5 - math.sqrt(2)) ** 2 / 2)
    collapsed = torch.ones(4, 4).requires_grad_()
    loss = margin_contrast(collapsed, collapsed, margin=0.6, same=itself)
    assert loss.item() == pytest.approx(0.18, rel=1e-4) and gradients(loss, collapsed)[0].isfinite().all()


def test_orthogonal_rows_that_equal_their_views_have_the_spreading_of_the_formula():
    eye = torch.eye(5, dtype=torch.float64)
    own = math.exp(1 / 0.5)
    expected = -math.log(own / (own + 4)) - 4 * math.log(1 - 1 / (own + 4))
    found = spreading(eye, 3 * eye, temperature=0.5, same=eye.bool())
    assert found.item() == pytest.approx(expected, abs=1e-12)


# A mixture of experts


def test_a_mixture_of_experts_equals_its_reference_and_passes_gradcheck():
    queries, keys, gate = (
        normal(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(5, 3, 4)] * 2 + [(5, 3)])
    )
    same = torch.eye(5, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    loss, posterior = mixture(queries, keys, gate, temperature=0.7, same=same)
    plain = (one.detach() for one in (queries, keys, gate))
    assert loss.item() == pytest.approx(slow.mixture(*plain, 0.7, same), abs=1e-12)
    torch.testing.assert_close(posterior.sum(1), torch.ones(5, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda *given: mixture(*given, temperature=0.7, same=same)[0], (queries, keys, gate)
    )


@pytest.mark.parametrize("experts", [1, 3])
def test_equal_experts_are_info_nce_whatever_the_gate(experts):
    queries, keys = normal(5, 4), normal(5, 4, seed=1)
    repeated = (one[:, None].expand(-1, experts, -1) for one in (queries, keys))
    found, _ = mixture(*repeated, normal(5, experts), temperature=0.3, same=torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(found, info_nce(queries, keys, temperature=0.3, similarity="dot"))


def test_the_bound_of_mice_is_tight_at_the_exact_posterior():
    """Its loss, -sum_z q (log p(z) + log p(key | z) - log q), equals -log of the mixture (arXiv 2105.01899, section 4)."""
    queries, keys, gate = normal(5, 3, 4), normal(5, 3, 4, seed=1), normal(5, 3, seed=2)
    loss, q = mixture(queries, keys, gate, temperature=1.0, same=torch.eye(5, dtype=torch.bool))
    shares = torch.stack([(queries[:, z] @ keys[:, z].T).log_softmax(1).diagonal() for z in range(3)], 1)
    bound = -(q * (gate.log_softmax(1) + shares - q.log())).sum(1).mean()
    torch.testing.assert_close(loss, bound)


# Decorrelation


def test_barlow_and_vicreg_equal_their_references_and_pass_gradcheck():
    first, second = normal(7, 3).requires_grad_(), normal(7, 3, seed=1).requires_grad_()
    views = (first.detach(), second.detach())
    assert barlow(first, second, redundancy=0.3).item() == pytest.approx(slow.barlow(*views, 0.3), rel=1e-4)  # eps
    expected = slow.vicreg(*views, 0.7, 0.2)
    assert vicreg(first, second, variance=0.7, covariance=0.2).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(barlow, (first, second))
    assert torch.autograd.gradcheck(vicreg, (first, second))


def test_equal_views_with_uncorrelated_channels_cost_nothing():
    whitened = (
        torch.linalg.qr(torch.cat((torch.ones(9, 1).double(), normal(9, 4)), 1)).Q[:, 1:] * 3
    )  # mean 0, variance 1
    assert barlow(whitened, whitened).item() == pytest.approx(0, abs=1e-9)
    assert vicreg(1.1 * whitened, 1.1 * whitened).item() == pytest.approx(0, abs=1e-9)
    assert barlow(whitened, whitened[:, [1, 0, 2, 3]]).item() == pytest.approx((2 + 2 * 0.005) / 4, abs=1e-3)


def test_collapsed_views_cost_vicreg_the_whole_spread():
    assert vicreg(torch.ones(5, 3), torch.ones(5, 3)).item() == pytest.approx(1 - 0.01)


# What is made of it


def some_rows_belong_together(rows: int) -> Tensor:
    labels = numbers(rows // 2, rows, seed=8)
    return labels[:, None] == labels


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_nt_xent_equals_its_reference_and_passes_gradcheck(masked, similarity):
    first, second = normal(6, 4).requires_grad_(), normal(6, 4, seed=7).requires_grad_()
    same = some_rows_belong_together(6) if masked else None
    ours = nt_xent(first, second, temperature=0.5, similarity=similarity, same=same)
    measure = slow.cosine if similarity == "cosine" else slow.dot
    assert ours.item() == pytest.approx(slow.nt_xent(first.detach(), second.detach(), 0.5, same, measure), abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda a, b: nt_xent(a, b, temperature=0.5, similarity=similarity, same=same), (first, second)
    )


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_nt_xent_of_equal_views_is_the_log_of_their_number_less_one(rows):
    views = torch.ones(rows, 3, dtype=torch.float64)
    assert nt_xent(views, views, temperature=0.1).item() == pytest.approx(math.log(2 * rows - 1), abs=1e-12)


def test_partners_that_are_missing_are_said():
    for call in (nt_xent, info_nce):
        with pytest.raises(UserError, match=rf"{call.__name__}: .*\(3, 4\) and \(2, 4\)"):
            call(normal(3, 4), normal(2, 4), temperature=0.1)


def test_nt_xent_of_rows_that_all_belong_together_is_zero():
    first, second = normal(4, 3), normal(4, 3, seed=7)
    assert nt_xent(first, second, temperature=0.1, same=torch.ones(4, 4).bool()).item() == pytest.approx(0, abs=1e-12)


def test_rows_that_belong_together_do_not_repel_each_other():
    first, second = normal(2, 3).requires_grad_(), normal(2, 3, seed=7)
    same = torch.ones(2, 2, dtype=torch.bool)
    (gradient,) = gradients(nt_xent(first, second, temperature=0.2, same=same), first)
    assert gradient.abs().max() < 1e-12
    (gradient,) = gradients(nt_xent(first, second, temperature=0.2), first)
    assert gradient.abs().max() > 1e-3


def test_nt_xent_does_not_care_about_length_under_cosine_but_does_under_dot():
    first, second = normal(4, 3), normal(4, 3, seed=7)
    assert nt_xent(5 * first, second, temperature=0.5) == pytest.approx(nt_xent(first, second, temperature=0.5))
    dots = [nt_xent(scale * first, second, temperature=0.5, similarity="dot") for scale in (1, 5)]
    assert dots[0] != pytest.approx(dots[1])


def test_info_nce_with_a_queue_equals_cross_entropy_over_batch_and_queue():
    queries, keys = normal(4, 3), normal(10, 3, seed=7)
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / 0.3
    torch.testing.assert_close(info_nce(queries, keys, temperature=0.3), F.cross_entropy(logits, torch.arange(4)))


def test_info_nce_with_labels_is_supcon():
    features, labels = normal(6, 3), torch.tensor([0, 0, 1, 1, 1, 2])
    same = labels[:, None] == labels
    positives = same & ~torch.eye(6, dtype=torch.bool)
    keep = ~torch.eye(6, dtype=torch.bool)
    logits = torch.tensor([[slow.dot(a, b) for b in features] for a in features]) / 0.7
    for reduction in ("out", "in"):
        ours = info_nce(
            features, features, temperature=0.7, similarity="dot", positives=positives, keep=keep, reduction=reduction
        )
        assert ours.item() == pytest.approx(slow.contrast(logits, positives, keep, None, reduction), abs=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_contrastive_losses_in_bfloat16_at_temperature_005_are_finite_and_near(similarity):
    first, second = (normal(64, 16, seed=seed).bfloat16().requires_grad_() for seed in (1, 2))
    for loss in (nt_xent, info_nce):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = loss(first, second, temperature=0.05, similarity=similarity)
        exact = loss(first.double(), second.double(), temperature=0.05, similarity=similarity)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), exact, rtol=1e-4, atol=1e-4)
        assert all(gradient.isfinite().all() for gradient in gradients(low, first, second))


@pytest.mark.parametrize("loss", [barlow, vicreg])
def test_decorrelation_is_that_of_float32_under_autocast(loss):
    first, second = (normal(128, 256, dtype=torch.float32, seed=seed) for seed in (1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(first, second)
    assert low.equal(loss(first, second)) and low.dtype == torch.float32


def test_weights_of_negatives_are_refused_beside_what_weighs_them_too():
    logits, own = normal(4, 6), torch.eye(4, 6, dtype=torch.bool)
    for option in ({"hardness": 0.5}, {"prior": 0.1}):
        with pytest.raises(UserError, match="weights of negatives cannot be given with hardness or prior"):
            contrast(logits, own, weights=torch.ones(6), **option)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_alignment_equals_its_reference_and_is_zero_for_equal_views(power):
    first, second = normal(6, 4).requires_grad_(), normal(6, 4, seed=7).requires_grad_()
    expected = slow.alignment(first.detach(), second.detach(), power)
    assert alignment(first, second, power=power).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: alignment(a, b, power=power), (first, second))
    equal = alignment(first, 2 * first, power=power)
    assert equal.item() == pytest.approx(0, abs=1e-12)
    assert gradients(equal, first)[0].isfinite().all()


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_uniformity_equals_its_reference_and_is_zero_in_collapse(t):
    states = normal(6, 4).requires_grad_()
    assert uniformity(states, t=t).item() == pytest.approx(slow.uniformity(states.detach(), t), abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: uniformity(x, t=t), (states,))
    assert uniformity(torch.ones(6, 4).double()).item() == pytest.approx(0, abs=1e-12)


# Prediction of the other view, and codes over prototypes


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_similarities_are_those_of_float32_under_autocast(similarity):
    first, second = normal(5, 64, dtype=torch.float32), normal(7, 64, seed=1, dtype=torch.float32)
    expected = similarities(first, second, similarity)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (first @ second.T).dtype == torch.bfloat16
        found = similarities(first, second, similarity)
        rounded = similarities(first.bfloat16(), second.bfloat16(), similarity)
    assert found.equal(expected) and rounded.dtype == torch.float32


def test_a_misspelt_similarity_is_refused_and_not_taken_for_another():
    with pytest.raises(UserError, match="unknown similarity 'cosin': did you mean cosine"):
        info_nce(normal(3, 4), normal(3, 4), temperature=0.1, similarity="cosin")


def test_each_positive_equals_its_reference_and_passes_gradcheck():
    logits = normal(5, 7).requires_grad_()
    positives = normal(5, 7, seed=1) > 0.3
    positives[0], positives[1] = False, True  # an anchor without a positive, and one without a negative
    found = each_positive(logits, positives)
    assert found.item() == pytest.approx(slow.each_positive(logits, positives))
    assert torch.autograd.gradcheck(lambda x: each_positive(x, positives), logits)
    found.backward()
    assert logits.grad.isfinite().all() and logits.grad[0].abs().sum() == 0


def test_each_positive_without_some_negatives_equals_its_reference_and_passes_gradcheck():
    logits = normal(4, 6).requires_grad_()
    keep = KEEP.clone()
    keep[3] = False  # no negative at all
    assert each_positive(logits, POSITIVES, keep=keep).item() == pytest.approx(
        slow.each_positive(logits, POSITIVES, keep), abs=1e-12
    )
    assert torch.autograd.gradcheck(lambda x: each_positive(x, POSITIVES, keep=keep), (logits,))


def test_each_positive_of_equal_scores_is_the_log_of_one_more_than_the_negatives():
    positives = torch.zeros(3, 6, dtype=torch.bool)
    positives[:, :2] = True
    assert each_positive(torch.full((3, 6), 2.5), positives).item() == pytest.approx(math.log(1 + 4))
    assert each_positive(normal(3, 6), positives & False).item() == 0
    alone = torch.tensor([[3.0, 1.0, 0.0]])
    both = torch.tensor([[True, True, False]])
    assert each_positive(alone, both) < contrast(alone, both)  # positives are not held against each other


def test_the_cosine_gap_equals_its_reference_and_passes_gradcheck():
    one, two = normal(5, 4), normal(5, 4, seed=1)
    assert cosine_gap(one, two).item() == pytest.approx(slow.cosine_gap(one, two))
    assert torch.autograd.gradcheck(cosine_gap, (one.requires_grad_(), two.requires_grad_()))
    assert cosine_gap(one, 3 * one).item() == pytest.approx(0, abs=1e-12)
    assert cosine_gap(one, -one).item() == pytest.approx(4)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_its_reference(iterations):
    scores = normal(7, 4) / 5
    found = sinkhorn(scores, epsilon=0.2, iterations=iterations)
    torch.testing.assert_close(found, torch.tensor(slow.sinkhorn(scores, 0.2, iterations), dtype=torch.float64))


def test_sinkhorn_rows_sum_to_one_and_columns_to_an_equal_share():
    codes = sinkhorn(normal(30, 6) / 5, epsilon=0.1, iterations=200)
    torch.testing.assert_close(codes.sum(1), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((6,), 5.0, dtype=torch.float64))


def test_sinkhorn_stays_finite_where_exponentials_would_not():
    codes = sinkhorn(1000 * normal(30, 6, dtype=torch.float32), epsilon=0.01)
    assert torch.isfinite(codes).all() and torch.allclose(codes.sum(1), torch.ones(30))


def test_the_swapped_prediction_equals_its_reference_passes_gradcheck_and_is_entropy_at_best():
    scores, codes = normal(6, 4), normal(6, 4, seed=1).softmax(1)
    assert swapped(scores, codes, temperature=0.3).item() == pytest.approx(slow.swapped(scores, codes, 0.3))
    assert torch.autograd.gradcheck(lambda s: swapped(s, codes, temperature=0.3), (scores.requires_grad_(),))
    entropy = -(codes * codes.log()).sum(1).mean().item()
    assert swapped(0.3 * codes.log(), codes, temperature=0.3).item() == pytest.approx(entropy)


@pytest.mark.parametrize("loss", [cosine_gap, lambda s, t: swapped(s, t.softmax(1), temperature=0.05)])
def test_losses_without_negatives_are_finite_scalars_in_bfloat16(loss):
    one, two = (normal(5, 4, seed=n, dtype=torch.bfloat16).requires_grad_() for n in (0, 1))
    value = loss(one, two)
    assert value.ndim == 0 and value.dtype == torch.float32 and torch.isfinite(value)
    assert torch.isfinite(gradients(value, one)[0]).all()


# Margins


@pytest.mark.parametrize(("loss", "slow_loss"), [(triplet, slow.triplet), (cosine_margin, slow.cosine_margin)])
@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize(
    "keep", [None, torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 1]]).bool()], ids=["all", "masked"]
)
def test_margin_losses_equal_their_references_and_pass_gradcheck(loss, slow_loss, margin, keep):
    inputs = normal(4, 3), normal(2, 4, 3, seed=1), normal(3, 4, 3, seed=2)
    assert loss(*inputs, margin=margin, keep=keep).item() == pytest.approx(slow_loss(*inputs, margin, keep))
    assert torch.autograd.gradcheck(lambda *x: loss(*x, margin=margin, keep=keep), [x.requires_grad_() for x in inputs])


def test_a_triplet_far_apart_costs_nothing_and_equal_ones_their_margin():
    anchors = normal(4, 3)
    assert triplet(anchors, anchors[None], -anchors[None], margin=0.5).item() == 0
    assert triplet(anchors, anchors[None], anchors[None], margin=0.5).item() == pytest.approx(0.5)
    near = anchors.clone().requires_grad_()
    assert torch.isfinite(gradients(triplet(near, near[None], -near[None], margin=3.0), near)[0]).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_spread_equals_its_reference_and_passes_gradcheck(similarity):
    first, second = normal(6, 4).requires_grad_(), normal(6, 4, seed=1).requires_grad_()
    same = torch.eye(6, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    same[5] = same[:, 5] = True  # a row that has no others
    expected = slow.view_regularizer(first, second, same, getattr(slow, similarity))
    assert view_regularizer(first, second, same, similarity=similarity).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda *views: view_regularizer(*views, same, similarity=similarity), (first, second)
    )
    assert view_regularizer(first, second, torch.ones_like(same)).item() == 0


@pytest.mark.parametrize("misspelt", [{"reduction": "outt"}, {"similarity": "cosin"}])
def test_a_misspelt_choice_is_refused(misspelt):
    with pytest.raises(UserError, match=r"did you mean (out|cosine)"):
        info_nce(normal(4, 3), normal(4, 3), temperature=0.5, **misspelt)
