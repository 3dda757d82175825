"""Tests of every contrastive objective with real encoders: its loss, its state, its negatives."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqcl.augment import ByLength, Crop, Growing, Identity, Mask, Pair, Reorder, SameTarget, View, halves, stack
from seqcl.encoders import GRU, HSTU, BSARec, SASRec
from seqcl.encoders.dropout import Dropout
from seqcl.errors import UserError
from seqcl.losses import nt_xent, view_regularizer
from seqcl.objectives import (
    BYOL,
    CLAE,
    OBJECTIVES,
    PIRL,
    AlignUniform,
    Barlow,
    Counterfactual,
    Detect,
    IMix,
    InfoMin,
    Instance,
    LearnedViews,
    LoCo,
    LooC,
    Margin,
    MiCE,
    MoCo,
    MoCoV3,
    MutualInformation,
    NextItem,
    Prototypes,
    SimSiam,
    SpCL,
    SupCon,
    SwAV,
    TwoViews,
    VICReg,
)
from seqcl.objectives.experts import far_apart
from seqcl.objectives.follower import Follower
from seqcl.objectives.heads import projection
from seqcl.objectives.kinship import Rows, masked_share, own_among_others, related, related_share
from seqcl.objectives.prototypes import encode, k_means
from seqcl.objectives.rows import row_states
from seqcl.objectives.self_paced import overlap, reliable
from seqcl.objectives.two_views import drawn_of_each
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch
from tests.test_augment import train_windows

N, MAX_LEN, DIM, ROWS = 40, 12, 8, 24
BUILT = {
    "TwoViews": lambda views, **options: TwoViews(views=views, dim=DIM, **{"head": "mlp", **options}),
    "SupCon": lambda views, **options: SupCon(views=views, dim=DIM, **options),
    "MoCo": lambda views, **options: MoCo(views=views, dim=DIM, queue=32, momentum=0.9, **options),
    "AlignUniform": lambda views: AlignUniform(views=views, dim=DIM),
    "MoCoV3": lambda views, **options: MoCoV3(views=views, dim=DIM, momentum=0.9, **options),
    "LoCo": lambda views, **options: LoCo(views=views, dim=DIM, **options),
    "IMix": lambda views, **options: IMix(views=views, dim=DIM, **options),
    "CLAE": lambda views, **options: CLAE(views=views, dim=DIM, **options),
    "Barlow": lambda views: Barlow(views=views, dim=DIM, width=12),
    "VICReg": lambda views: VICReg(views=views, dim=DIM, width=12),
    "DIM": lambda views, **options: OBJECTIVES["DIM"](views=views, dim=DIM, **options),
    "BYOL": lambda views: BYOL(views=views, dim=DIM, momentum=0.9),
    "Detect": lambda views, **options: Detect(views=views, dim=DIM, **options),
    "SimSiam": lambda views: SimSiam(views=views, dim=DIM),
    "SwAV": lambda views, **options: SwAV(views=views, dim=DIM, prototypes=6, queue=16, **options),
    "Prototypes": lambda views, **options: Prototypes(
        views=views, dim=DIM, clusters=(5, 3), **{"head": "linear", **options}
    ),
    "LearnedViews": lambda views, **options: LearnedViews(views=views, dim=DIM, **options),
    "Margin": lambda views: Margin(views=views, dim=DIM, margin=1.5),
    "Instance": lambda views: Instance(views=views, dim=DIM, temperature=0.3),
    "InfoMin": lambda views: InfoMin(views=views, dim=DIM),
    "LooC": lambda views: LooC(views=views, dim=DIM),
    "SpCL": lambda views: SpCL(views=views, dim=DIM, clusters=6, negatives=16),
    "MiCE": lambda views, **options: MiCE(views=views, dim=DIM, experts=3, momentum=0.9, **options),
    "PIRL": lambda views, **options: PIRL(views=views, dim=DIM, negatives=16, **options),
}
WITHOUT_NEGATIVES = {"Detect", "BYOL", "SimSiam", "SwAV", "Barlow", "VICReg"}
ENCODERS = {
    "SASRec": lambda: SASRec(num_items=N, max_len=MAX_LEN, dim=DIM),
    "GRU": lambda: GRU(num_items=N, max_len=MAX_LEN, dim=DIM),
}
TRAIN = train_windows([list(np.random.default_rng(n).integers(1, N + 1, 3 + n % 7)) for n in range(60)])
every_objective = pytest.mark.parametrize("name", BUILT)
every_encoder = pytest.mark.parametrize("encoder_name", ENCODERS)


class Rowwise:
    """Gives every training row once, as `before_epoch` gets them."""

    def __len__(self) -> int:
        return 3

    def __iter__(self):
        for part in range(3):
            yield rows_batch(range(part * 20, part * 20 + 20))


def rows_batch(users) -> SeqBatch:
    rows = [TRAIN.items[TRAIN.start[u] : TRAIN.stop[u] + 1].tolist() for u in users]
    width = max(map(len, rows)) - 1
    items = torch.tensor([row[:-1] + [0] * (width - len(row) + 1) for row in rows])
    targets = torch.tensor([row[1:] + [0] * (width - len(row) + 1) for row in rows])
    return SeqBatch(items, torch.tensor([len(row) - 1 for row in rows]), targets, torch.tensor(list(users)))


def made(name: str, encoder_name: str = "SASRec", views: Pair | View | None = None, **options):
    """Build encoder and objective, and begin one epoch."""
    torch.manual_seed(0)
    encoder = ENCODERS[encoder_name]()
    objective = BUILT[name](views or Pair(views=[Crop(), Mask(), Reorder()]), **options)
    objective.prepare(encoder, TRAIN)
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=2)
    return encoder, objective


def test_every_contrastive_objective_of_the_table_is_in_this_suite():
    assert set(BUILT) == {name for name, kind in OBJECTIVES.items() if issubclass(kind, ViewsObjective)}


@every_encoder
@every_objective
def test_terms_are_finite_weighted_and_reach_encoder_and_own_parameters(name, encoder_name):
    encoder, objective = made(name, encoder_name)
    batch = rows_batch(range(ROWS))
    objective(encoder, batch)  # fills queues and banks
    state = {key: value.clone() for key, value in objective.state_dict().items()}
    torch.manual_seed(1)
    terms = objective(encoder, batch)
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    assert all(term > 0 for term in terms.values()) or name == "AlignUniform"  # whose uniformity is a log below 0
    sum(terms.values()).backward()
    assert encoder.item_embeddings().grad[1:-1].abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    followers = {id(p) for module in objective.modules() if isinstance(module, Follower) for p in module.parameters()}
    for key, parameter in objective.named_parameters():
        if id(parameter) in followers or key.startswith("augmenters"):  # which have an update of their own
            assert not parameter.requires_grad and parameter.grad is None, key
        else:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, key
    objective.load_state_dict(state)
    objective.weight *= 2
    for further in ("intent", "learned"):
        if hasattr(objective, further):
            setattr(objective, further, 2 * getattr(objective, further))
    torch.manual_seed(1)
    for key, doubled in objective(encoder, batch).items():
        torch.testing.assert_close(doubled, 2 * terms[key])


@every_objective
def test_the_batch_stays_as_it_is(name):
    encoder, objective = made(name)
    batch = rows_batch(range(ROWS))
    copies = [part.clone() for part in batch[:4]]
    objective(encoder, batch)
    assert all(torch.equal(part, copy) for part, copy in zip(batch[:4], copies, strict=True))


@pytest.mark.parametrize("head", ["none", "mlp_bn"])
@every_objective
def test_a_batch_of_one_row_and_one_without_targets_work(name, head):
    encoder, objective = made(name)
    if name == "LoCo":
        encoder, objective = made(name, head=head)
    objective.head = projection(head, DIM)
    if name in ("MoCo", "BYOL", "MoCoV3"):
        objective.follower = Follower(encoder, objective.head)
    for batch in (rows_batch([0]), rows_batch(range(4))._replace(targets=None)):
        assert all(torch.isfinite(term) for term in objective(encoder, batch).values())


@every_objective
def test_a_saved_objective_goes_on_as_if_nothing_had_been(name):
    encoder, objective = made(name)
    for part in range(2):
        objective(encoder, rows_batch(range(part, part + 10)))
        objective.after_step(encoder)
    _, other = made(name)
    torch.manual_seed(5)  # what was drawn for the new one must not matter
    other.load_state_dict({key: value.clone() for key, value in objective.state_dict().items()})
    for one in (objective, other):
        torch.manual_seed(3)
        one.found = [value for _ in range(3) for value in one(encoder, rows_batch(range(12))).values()]
        one.after_step(encoder)
    assert torch.equal(torch.stack(objective.found), torch.stack(other.found))
    assert all(
        torch.equal(a, b) for a, b in zip(objective.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in BUILT), ("Prototypes", {"negatives": "clusters", "momentum": 0.9})]
)
def test_all_that_an_objective_keeps_is_in_the_checkpoint(name, options):
    encoder, objective = made(name, **options)
    for batch in (rows_batch(range(10)), rows_batch(range(10))._replace(targets=None)):
        objective(encoder, batch)
    kept = {key for key, _ in objective.named_buffers() if not key.startswith("views.")}
    assert kept <= set(objective.state_dict())


@pytest.mark.parametrize(
    ("name", "half"),  # targets of SimSiam and keys of MoCo and MiCE, their second views, take no gradient, on purpose
    [
        # DIM reads all states of a view, not the newest alone.
        *((name, "first views") for name in sorted(set(BUILT) - {"SimSiam", "DIM"})),
        *((name, "second views") for name in sorted(set(BUILT) - {"SimSiam", "DIM", "MoCo", "MiCE"})),
        ("LooC", "third views"),
    ],
)
def test_gradients_at_both_views_are_those_of_finite_differences(name, half):
    encoder, objective = made(name)
    encoder.eval()
    objective.eval()
    objective(encoder, rows_batch(range(60)))  # fills queues and banks
    state = {key: value.clone() for key, value in objective.state_dict().items()}
    batch = rows_batch(range(20))
    batch = batch._replace(users=batch.users // 2, targets=batch.targets % 5)  # with rows that belong together
    last, blocks, codes = encoder.last, encoder.by_block, []
    if name == "SwAV":  # codes take no gradient, on purpose: the same ones every time
        make = objective.codes
        objective.codes = lambda *given: codes.pop(0) if codes else make(*given)
        both = F.normalize(objective.head(encoder.last(objective.make_views(batch))), dim=1)
        scores = (both @ F.normalize(objective.prototypes, dim=1).T).detach().chunk(2)
        fixed = [
            make(score, objective.kept[view], F.normalize(objective.prototypes, dim=1))
            for view, score in enumerate(scores)
        ]

    def loss(shift: torch.Tensor) -> torch.Tensor:
        """Compute the objective with its first encoding, that of the views, moved by `shift`."""
        objective.load_state_dict({key: value.clone() for key, value in state.items()})
        codes[:] = [code.clone() for code in fixed] if name == "SwAV" else []
        waiting = [shift]
        encoder.last = lambda views: last(views) + waiting.pop()[: len(views.lengths)] if waiting else last(views)
        encoder.by_block = lambda views, overlap: blocks(views, overlap=overlap) + waiting.pop()[:, None]
        torch.manual_seed(3)
        return sum(objective(encoder, batch).values())

    if name == "CLAE":  # the move takes no gradient, on purpose: the same one every time
        moves = []
        make_move = objective.move
        objective.move = lambda *given: moves[0] if moves else moves.append(make_move(*given).detach()) or moves[0]

    shift = torch.zeros(20 * (5 if name == "LooC" else 2), DIM, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(shift), shift)
    begin = 20 * ["first views", "second views", "third views"].index(half)
    rows = slice(begin, begin + 20)
    size = float(gradient[rows].norm())
    random = torch.randn(20, DIM, generator=torch.Generator().manual_seed(1))
    for towards in (gradient[rows], random):
        direction = torch.zeros_like(shift)
        direction[rows] = towards / towards.norm()
        with torch.no_grad():
            step = 0.03
            slope = float(loss(step * direction) - loss(-step * direction)) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.02, abs=0.01 * size)
    assert size > 1e-4


@pytest.mark.parametrize("name", sorted(set(BUILT) - WITHOUT_NEGATIVES))
def test_the_masked_share_is_that_of_a_count_over_rows(name):
    """Take eight rows of four users, two with one target; compare the share of rows that are no negatives with a count."""
    encoder, objective = made(name, views=Identity())
    encoder.eval()
    users, targets = torch.arange(8) // 2, torch.tensor([1, 2, 3, 4, 5, 6, 7, 1])
    batch = rows_batch(range(8))._replace(users=users, targets=targets)
    objective.active = torch.tensor(False)  # clusters are counted elsewhere
    torch.manual_seed(3)
    objective(encoder, batch)
    if name in ("MoCo", "PIRL", "SpCL"):
        torch.manual_seed(3)
        objective(encoder, batch)  # against what the first one put in
    mine = users[:, None] == users
    alike = targets[:, None] == targets
    others = ~torch.eye(8, dtype=torch.bool)
    expected = ((mine | alike) & others).sum() / others.sum()
    if name == "IMix":  # where rows that are like the partner are no negatives either
        torch.manual_seed(3)
        partner = torch.randperm(8)
        own = torch.eye(8, dtype=torch.bool) | torch.eye(8, dtype=torch.bool)[partner]
        expected = ((mine | alike | mine[partner] | alike[partner]) & ~own).sum() / (~own).sum()
    elif name == "SupCon":  # where rows of one target are positives
        expected = (mine & ~alike & others).sum() / others.sum()
    elif name == "MoCo":
        expected = (mine | alike).sum() / 64
    elif name == "SpCL":
        torch.manual_seed(3)
        objective.make_views(batch)
        places = torch.rand(objective.negatives, dtype=torch.float64) * int(objective.instances)
        drawn = [int(objective.alone[int(place)]) for place in places]
        kept = objective.targets.tolist()
        hits = [user == users[row] or kept[user] == targets[row] for row in range(8) for user in drawn]
        expected = torch.tensor(hits).float().mean()
    elif name == "PIRL":
        torch.manual_seed(3)
        objective.make_views(batch)
        drawn = [user for user in torch.randint(60, (objective.negatives,)).tolist() if user < 4]
        kept = [2, 4, 6, 1]  # the last target of each user
        hits = [user == users[row] or kept[user] == targets[row] for row in range(8) for user in drawn]
        assert 0 < len(drawn) < objective.negatives
        expected = torch.tensor(hits).float().mean()
    assert float(objective.observed["masked_share"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", sorted(set(BUILT) - WITHOUT_NEGATIVES))
def test_the_masked_share_is_logged_and_grows_with_false_negatives(name):
    shares = []
    for users in (torch.arange(ROWS), torch.arange(ROWS) // 2):
        encoder, objective = made(name)
        batch = rows_batch(range(ROWS))
        batch = batch._replace(users=users, targets=None)
        for _ in range(2):
            objective(encoder, batch)
        shares.append(float(objective.observed["masked_share"]))
    assert 0 <= shares[0] < shares[1] <= 1


def test_unknown_users_and_targets_are_like_nothing():
    rows = Rows(torch.tensor([-1, -1, 2]), torch.tensor([0, 0, 0]))
    assert rows.like(rows).tolist() == [[False] * 3, [False] * 3, [False, False, True]]


@pytest.mark.parametrize("reduction", ["out", "in"])
def test_supcon_of_rows_with_targets_of_their_own_is_nt_xent(reduction):
    encoder, objective = made("SupCon", views=Identity())
    encoder.eval()
    objective.reduction = reduction
    batch = rows_batch(range(6))._replace(targets=torch.arange(1, 7))
    first, second = objective.head(encoder.last(objective.make_views(batch))).chunk(2)
    expected = objective.weight * nt_xent(first, second, temperature=objective.temperature)
    torch.testing.assert_close(objective(encoder, batch)["contrast"], expected)


def test_views_that_are_rows_of_another_user_are_no_negatives_of_that_user():
    batch = rows_batch([0, 1, 2, 3])._replace(targets=torch.tensor([1, 2, 3, 4]))
    views = stack(batch, batch._replace(users=torch.tensor([2, 1, 2, 9])))  # row 0 is shown with a row of user 2
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert torch.equal(related(batch, views), expected)
    assert torch.equal(related(batch, stack(batch, batch)), torch.eye(4, dtype=torch.bool))


def test_the_queue_knows_whose_row_a_key_was_made_of():
    encoder, objective = made("MoCo", views=Pair(views=[Identity(), SameTarget()], ordered=True))
    batch = rows_batch(range(10))
    torch.manual_seed(0)
    second = halves(objective.make_views(batch))[1]
    torch.manual_seed(0)
    objective(encoder, batch)
    assert objective.users[:10].tolist() == second.users.tolist() != batch.users.tolist()


def test_keys_of_the_user_whose_row_the_query_shows_are_no_negatives():
    encoder, objective = made("MoCo", views=Pair(views=[SameTarget(), Identity()], ordered=True))
    encoder.eval()
    objective.eval()
    objective(encoder, rows_batch(range(32)))  # fills the queue
    objective.targets.zero_()  # so that users alone tell
    batch = rows_batch(range(20))
    torch.manual_seed(0)
    first, second = halves(objective.make_views(batch))
    queries = F.normalize(objective.head(encoder.last(first)), dim=1)
    own = F.normalize(objective.follower(second), dim=1)
    keys, users = objective.keys.clone(), objective.users.clone()
    strangers = (users != batch.users[:, None]) & (users != first.users[:, None])  # (20, 32)
    assert (~strangers).sum() > (users == batch.users[:, None]).sum()
    logits = torch.cat(
        ((queries * own).sum(1, keepdim=True), (queries @ keys.T).masked_fill(~strangers, -torch.inf)), 1
    )
    expected = F.cross_entropy(logits / objective.temperature, torch.zeros(20, dtype=torch.long))
    torch.manual_seed(0)
    torch.testing.assert_close(objective(encoder, batch)["contrast"], objective.weight * expected)


def test_the_vector_of_the_user_whose_row_is_shown_is_no_negative():
    encoder, objective = made("PIRL", views=Pair(views=[Identity(), SameTarget()], ordered=True))
    batch = rows_batch(range(20))
    encoder.eval()
    objective(encoder, rows_batch(range(60)))  # fills the bank
    objective.targets.zero_()  # so that users alone tell
    torch.manual_seed(0)
    shown = halves(objective.make_views(batch))[1].users
    drawn = torch.randint(60, (objective.negatives,))
    torch.manual_seed(0)
    objective(encoder, batch)
    masked = (drawn == batch.users[:, None]) | (drawn == shown[:, None])
    assert masked.sum() > (drawn == batch.users[:, None]).sum()
    assert float(objective.observed["masked_share"]) == pytest.approx(float(masked.float().mean()))


def test_supcon_pulls_rows_of_one_target_together():
    encoder, objective = made("SupCon", views=Identity())
    batch = rows_batch(range(8))._replace(targets=torch.tensor([1, 1, 1, 1, 2, 2, 2, 2]))
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        objective(encoder, batch)["contrast"].backward()
        optimizer.step()
    encoder.eval()
    unit = F.normalize(objective.head(encoder.last(batch)), dim=1)
    close = unit @ unit.T
    assert close[:4, :4].mean() > 0.8 and close[:4, 4:].mean() < 0.6


def test_a_query_finds_its_own_key_among_shared_keys_without_masked_and_empty_ones():
    draws = torch.Generator().manual_seed(0)
    queries, keys, others = (
        F.normalize(torch.randn(rows, DIM, generator=draws, dtype=torch.float64), dim=1) for rows in (5, 5, 7)
    )
    masked = torch.rand(5, 7, generator=draws) < 0.4
    empty = torch.arange(7) >= 5
    losses = []
    for row in range(5):
        own = (queries[row] @ keys[row] / 0.3).item()
        negatives = [math.exp(queries[row] @ others[place] / 0.3) for place in range(5) if not masked[row, place]]
        losses.append(math.log(math.exp(own) + sum(negatives)) - own)
    found = own_among_others(queries, keys, others, masked=masked, empty=empty, temperature=0.3)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-12)
    assert own_among_others(
        queries, keys, others, masked=masked, empty=torch.ones(7).bool(), temperature=0.3
    ).item() == pytest.approx(0, abs=1e-12)


def test_shares_of_masks_are_counts_over_counts():
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert masked_share(mask).item() == pytest.approx(3 / 6)
    assert masked_share(mask, among=torch.tensor([True, True, False])).item() == pytest.approx(1 / 4)
    assert masked_share(mask, among=~mask).item() == 0
    assert masked_share(mask, among=torch.zeros(3).bool()).item() == 0
    assert masked_share(mask[:, :0]).item() == 0
    same = torch.eye(4).bool()
    same[0, 1] = same[1, 0] = True
    assert related_share(same).item() == pytest.approx(2 / 12)
    assert related_share(torch.ones(1, 1).bool()).item() == 0


def test_rows_take_the_users_of_a_view_if_it_has_some():
    batch = rows_batch(range(3))
    rows = Rows.of(batch)
    shown = rows.shown_as(batch._replace(users=torch.tensor([7, 1, 2])))
    assert shown.users.tolist() == [7, 1, 2] and shown.targets.equal(rows.targets)
    assert rows.shown_as(batch._replace(users=None)).users.equal(rows.users)


# Momentum


@pytest.mark.parametrize("momentum", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("name", ["MoCo", "BYOL"])
def test_the_follower_moves_as_its_momentum_says(name, momentum):
    encoder, objective = made(name)
    objective.momentum = momentum
    if name == "BYOL":
        objective.step.fill_(2)
    rate = objective.rate() if name == "BYOL" else momentum
    before = [p.clone() for p in objective.follower.parameters()]
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *objective.head.parameters()):
            parameter += torch.randn_like(parameter)
    objective.after_step(encoder)
    leaders = [*encoder.parameters(), *objective.head.parameters()]
    for old, new, leader in zip(before, objective.follower.parameters(), leaders, strict=True):
        torch.testing.assert_close(new, rate * old + (1 - rate) * leader)
        if momentum == 1:
            assert torch.equal(old, new), "momentum 1 never moves"


def test_the_queue_holds_the_last_keys_and_who_made_them():
    encoder, objective = made("MoCo", views=Identity())
    encoder.eval()
    objective.eval()
    for start in range(0, 50, 10):
        objective(encoder, rows_batch(range(start, start + 10)))
    last = rows_batch(range(18, 50))  # 32 keys
    keys = F.normalize(objective.follower(last), dim=1)
    order = objective.users.argsort()
    assert objective.users[order].tolist() == list(range(18, 50))
    torch.testing.assert_close(objective.keys[order], keys)
    assert objective.targets[order].tolist() == last.last_targets().tolist()


def test_moco_is_info_nce_against_the_queue_of_strangers_alone():
    encoder, objective = made("MoCo", views=Identity())
    encoder.eval()
    objective.eval()
    objective(encoder, rows_batch(range(30)))
    batch = rows_batch([0, 35])
    queries = F.normalize(objective.head(encoder.last(batch)), dim=1)
    keys = F.normalize(objective.follower(batch), dim=1)
    expected = []
    for row in range(2):
        logits = [queries[row] @ keys[row]]
        for slot in range(30):
            same_user = objective.users[slot] == batch.users[row]
            if not same_user and objective.targets[slot] != batch.last_targets()[row]:
                logits.append(queries[row] @ objective.keys[slot])
        logits = torch.stack(logits) / objective.temperature
        expected.append(logits.logsumexp(0) - logits[0])
    torch.testing.assert_close(objective(encoder, batch)["contrast"], objective.weight * torch.stack(expected).mean())


def test_identical_views_and_encoders_give_byol_loss_zero():
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    objective = BYOL(views=Identity(), dim=DIM, head="none", predictor="none").eval()
    objective.prepare(encoder, TRAIN)
    assert objective(encoder, rows_batch(range(9)))["predict"].item() == pytest.approx(0, abs=1e-6)


def test_byol_can_normalise_each_view_alone_and_keep_its_copy_from_dropping_out():
    batch = rows_batch(range(9))
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]()
    objective = BYOL(views=Identity(), dim=DIM, norm_each=True, target_dropout=False)
    objective.prepare(encoder, TRAIN)
    sources = []
    original = encoder.last
    encoder.last = lambda rows: sources.append(original(rows)) or sources[-1]
    objective(encoder, batch)
    with torch.no_grad():
        first, second = (objective.predictor(objective.head(view)) for view in sources[0].chunk(2))
        target = objective.follower(batch)  # the same twice, without dropout
        torch.testing.assert_close(target, objective.follower(batch))
        expected = (2 - 2 * F.cosine_similarity(first, target)).mean() + (
            2 - 2 * F.cosine_similarity(second, target)
        ).mean()
    torch.manual_seed(3)
    encoder.last = lambda rows: sources[0]
    torch.testing.assert_close(objective(encoder, batch)["predict"], objective.weight * expected)
    plain = BYOL(views=Identity(), dim=DIM)
    plain.prepare(ENCODERS["SASRec"](), TRAIN)
    assert not torch.allclose(plain.follower(batch), plain.follower(batch)), "the default copy drops out"


def test_byol_momentum_rises_to_one_by_a_cosine():
    encoder, objective = made("BYOL")
    assert int(objective.steps) == 6
    rates = []
    for _ in range(7):
        rates.append(objective.rate())
        objective.after_step(encoder)
    assert rates == [pytest.approx(1 - 0.1 * (math.cos(math.pi * k / 6) + 1) / 2) for k in range(7)]
    assert rates[0] == pytest.approx(0.9) and rates[-1] == 1


def test_the_target_of_simsiam_takes_no_gradient():
    encoder, objective = made("SimSiam", views=Identity())
    encoder.eval()
    objective.predictor = torch.nn.Linear(DIM, DIM)
    torch.nn.init.zeros_(objective.predictor.weight)  # then the prediction does not depend on the encoder
    objective(encoder, rows_batch(range(9)))["predict"].backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in encoder.parameters())


# Prototypes


def test_swav_spreads_codes_over_prototypes_and_uses_its_queue_when_full():
    encoder, objective = made("SwAV")
    batch = rows_batch(range(10))
    objective(encoder, batch)
    assert int(objective.count) == 10
    first = objective.kept.clone()
    objective(encoder, batch)
    assert torch.equal(objective.kept[:, 10:], first[:, :6]), "newest first"
    torch.testing.assert_close(first[:, :10].norm(dim=2), torch.ones(2, 10))  # a queue of zeros tells nothing
    assert not torch.allclose(first[0, :10], first[1, :10]), "each view has its own"
    scores = torch.randn(10, 6)
    prototypes = F.normalize(objective.prototypes, dim=1)
    alone = objective.codes(scores, objective.kept[0, :0], prototypes)
    together = objective.codes(scores, objective.kept[0], prototypes)
    assert together.shape == alone.shape and not torch.allclose(together, alone)
    torch.testing.assert_close(alone.sum(1), torch.ones(10))


def test_the_queue_of_swav_holds_projections_of_each_view_and_is_used_only_once_it_is_full():
    encoder, objective = made("SwAV")
    encoder.eval()
    objective.eval()
    _, without = made("SwAV")
    without.eval()
    without.load_state_dict(objective.state_dict())
    without.kept = without.kept[:, :0]
    same = []
    for start in (0, 10, 20):  # the queue of 16 is full after the second batch
        batch = rows_batch(range(start, start + 10))
        found = []
        for one in (objective, without):
            torch.manual_seed(7)
            found.append(one(encoder, batch)["swap"].item())
        same.append(found[0] == found[1])
    assert same == [True, True, False]
    torch.manual_seed(7)
    views = halves(objective.make_views(batch))
    for view, kept in zip(views, objective.kept, strict=True):
        torch.testing.assert_close(kept[:10], F.normalize(objective.head(encoder.last(view)), dim=1))


def test_every_view_and_crop_gets_gradient_of_the_swap():
    encoder, objective = made("SwAV", crops=2)
    last, seen = encoder.last, []

    def kept(batch: SeqBatch) -> torch.Tensor:
        states = last(batch)
        states.retain_grad()
        seen.append(states)
        return states

    encoder.last = kept
    batch = rows_batch(range(ROWS))
    objective(encoder, batch)["swap"].backward()
    assert [len(states) for states in seen] == [2 * ROWS, 2 * ROWS]
    assert all((states.grad.abs().sum(1) > 0).all() for states in seen)
    crops = objective.make_crops(batch)
    assert crops.lengths.tolist() == 2 * [max(1, int(length) * 3 // 10) for length in batch.lengths]


@every_encoder
@pytest.mark.parametrize("states", ["mean", "all"])
@pytest.mark.parametrize("name", ["TwoViews", "Prototypes"])
def test_the_gradient_goes_through_all_states_and_past_padding(name, states, encoder_name):
    encoder, objective = made(name, encoder_name, Identity(), head="none", states=states, temperature=10.0)
    whole, seen = encoder.forward, []

    def states_kept(batch: SeqBatch) -> torch.Tensor:
        found = whole(batch)
        padding = torch.arange(found.shape[1]) >= batch.lengths[:, None]
        found = found.masked_fill(padding[..., None], math.nan)
        found.retain_grad()
        seen.append((found, padding))
        return found

    encoder.forward = states_kept
    sum(objective(encoder, rows_batch(range(ROWS))).values()).backward()
    (found, padding), *_ = seen
    assert padding.any() and (found.grad[padding] == 0).all()
    assert torch.isfinite(found.grad).all() and (found.grad[~padding].abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("negatives", "intent_states"), [("batch", "newest"), ("clusters", "newest"), ("batch", "mean")]
)
def test_one_cluster_a_row_makes_prototypes_an_instance_loss(negatives, intent_states):
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    views, options = Identity(), {"negatives": negatives, "intent_states": intent_states}
    objective = Prototypes(views=views, dim=DIM, clusters=(60,), temperature=0.5, **options)
    objective.prepare(encoder, TRAIN)
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=1)
    states = F.normalize(torch.cat([row_states(encoder, batch, intent_states)[0] for batch in Rowwise()]), dim=1)
    own = (states @ objective.centres.T).argmax(1)
    distinct = states.unique(dim=0)
    assert len(own.unique()) == len(distinct)  # two equal rows share a centre
    users = [int(n) for n in np.unique(own.numpy(), return_index=True)[1][:10]]
    batch = rows_batch(users)._replace(targets=None)
    others = users if negatives == "batch" else users + sorted(set(range(60)) - set(users))
    expected = F.cross_entropy(states[users] @ states[others].T / 0.5, torch.arange(10))
    torch.testing.assert_close(objective(encoder, batch)["intent"], objective.intent * expected, rtol=1e-4, atol=1e-5)


def test_clusters_are_of_states_without_dropout():
    encoder = ENCODERS["SASRec"]()
    encoder.train()
    states = encode(encoder, Rowwise(), "newest")
    assert encoder.training
    encoder.eval()
    expected = F.normalize(torch.cat([encoder.last(batch) for batch in Rowwise()]), dim=1)
    torch.testing.assert_close(states, expected)
    encoder.train()
    assert not torch.allclose(F.normalize(encoder.last(rows_batch(range(20))), dim=1), expected[:20])


def test_rows_of_one_cluster_are_no_negatives_in_either_term():
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    objective = Prototypes(views=Identity(), dim=DIM, clusters=(1,))
    objective.prepare(encoder, TRAIN)
    before = objective(encoder, rows_batch(range(6))._replace(targets=None))["contrast"].item()
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=1)
    terms = objective(encoder, rows_batch(range(6))._replace(targets=None))
    assert before > 0.01 and [term.item() for term in terms.values()] == pytest.approx([0, 0], abs=1e-6)
    assert float(objective.observed["masked_share"]) == 1


@pytest.mark.parametrize("negatives", ["batch", "clusters"])
def test_clusters_begin_after_the_warm_up_and_come_from_training_rows_alone(negatives):
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]()
    objective = Prototypes(views=Crop(), dim=DIM, clusters=(4, 200), warmup=1, negatives=negatives)
    objective.prepare(encoder, TRAIN)
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=2)
    assert set(objective(encoder, rows_batch(range(5)))) == {"contrast"}
    encoder.train()
    objective.before_epoch(encoder, Rowwise(), epoch=1, epochs=2)
    assert encoder.training
    assert set(objective(encoder, rows_batch(range(5)))) == {"contrast", "intent"}
    filled = objective.centres.abs().sum(1) > 0
    assert filled[:4].all() and filled[4:].sum() == 60, "no more clusters than rows"
    assert float(objective.density[:4].mean()) == pytest.approx(1, abs=1e-5)
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=2)  # of training, after pre-training
    assert set(objective(encoder, rows_batch(range(5)))) == {"contrast"}


def test_the_order_of_several_numbers_of_clusters_changes_nothing():
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    batch, found, centres = rows_batch(range(20)), [], torch.empty(0)
    for clusters in ((6, 1), (1, 6)):
        objective = Prototypes(views=Identity(), dim=DIM, clusters=clusters)
        objective.prepare(encoder, TRAIN)
        objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=1)
        if clusters == (1, 6):  # the same centres, the other way round
            objective.centres.copy_(torch.cat((centres[6:], centres[:6])))
        centres = objective.centres.clone()
        found.append(torch.stack(list(objective(encoder, batch).values())))
    torch.testing.assert_close(*found)
    assert found[0][1] > 0


def test_prototypes_against_all_centres_equal_their_reference():
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    objective = Prototypes(views=Identity(), dim=DIM, clusters=(7,), negatives="clusters", temperature=0.3)
    objective.prepare(encoder, TRAIN)
    objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=1)
    batch = rows_batch(range(9))
    total = 0.0
    for state in F.normalize(encoder.last(batch), dim=1):
        scores = [(state @ centre).item() for centre in objective.centres]
        own = max(range(7), key=scores.__getitem__)
        logits = [score / (0.3 * objective.density[k].item()) for k, score in enumerate(scores)]
        total += math.log(sum(map(math.exp, logits))) - logits[own]
    assert objective(encoder, batch)["intent"].item() == pytest.approx(objective.intent * total / 9, rel=1e-4)


def test_a_view_of_another_row_is_held_against_its_own_centre_among_all():
    encoder, objective = made(
        "Prototypes", views=Pair(views=[Identity(), SameTarget()], ordered=True), negatives="clusters"
    )
    encoder.eval()
    objective.clusters = (8,)  # both numbers of clusters as one
    batch = rows_batch(range(20))
    torch.manual_seed(3)
    both = objective.make_views(batch)
    states = encoder.last(both)
    own = (F.normalize(states, dim=1) @ objective.centres.T).argmax(1)
    assert (own[:20] != own[20:]).any() and (both.users != batch.users.repeat(2)).any()
    logits = (
        F.normalize(states, dim=1)
        @ F.normalize(objective.centres, dim=1).T
        / (objective.temperature * objective.density)
    )
    torch.manual_seed(3)
    found = objective(encoder, batch)["intent"]
    torch.testing.assert_close(found, objective.intent * F.cross_entropy(logits, own))


def test_the_concentration_of_clusters_equals_its_reference_and_single_rows_take_the_widest():
    middles = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), dim=1)
    noise = 0.1 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.cat((middles[0] + noise[:25], middles[1] + 2 * noise[25:], middles[2:]))  # 25, 15 and 1 of a cluster
    rows = F.normalize(rows, dim=1)
    centres, density = k_means(rows, 3, seed=0)
    own = (rows @ centres.T).argmax(1)
    assert sorted(own.bincount().tolist()) == [1, 15, 25]
    expected = []
    for cluster in range(3):
        members = rows[own == cluster]
        gaps = [(row - centres[cluster]).norm().item() for row in members]
        expected.append(sum(gaps) / (len(gaps) * math.log(len(gaps) + 10)) if len(gaps) > 1 else None)
    expected = np.array([max(x for x in expected if x is not None) if value is None else value for value in expected])
    expected = expected.clip(*np.quantile(expected, [0.1, 0.9]))
    np.testing.assert_allclose(density.numpy(), expected / expected.mean(), rtol=1e-4)


@pytest.mark.parametrize("clusters", [2, 4, 12])
def test_clusters_of_equal_rows_have_a_concentration(clusters):
    four = F.normalize(torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    for rows in (torch.eye(4).repeat(3, 1), four.repeat(3, 1)):  # cosines of 1, and of 1 but for rounding
        centres, density = k_means(rows, clusters, seed=0)
        assert (density > 0.01).all() and float(density.mean()) == pytest.approx(1)
        assert torch.isfinite(centres).all()


def test_k_means_finds_well_parted_groups():
    generator = torch.Generator().manual_seed(0)
    middles = F.normalize(torch.randn(2, 16, generator=generator), dim=1)
    label = torch.arange(400) % 2
    rows = F.normalize(middles[label] + 0.05 * torch.randn(400, 16, generator=generator), dim=1)
    centres, density = k_means(rows, 2, seed=0)
    assert (centres @ middles.T).max(0).values.min() > 0.99 and len(density) == 2


def test_every_epoch_and_every_number_of_clusters_begins_k_means_elsewhere():
    encoder, objective = made("Prototypes")
    objective.clusters = (4, 4)
    found = []
    for epoch in (0, 1, 2, 1):
        objective.before_epoch(encoder, Rowwise(), epoch=epoch, epochs=3)
        found += [part.clone() for part in objective.centres.split(4)]
    apart = found[:6]
    assert not any(torch.equal(one, two) for place, one in enumerate(apart) for two in apart[:place])
    assert torch.equal(found[2], found[6]) and torch.equal(found[3], found[7])  # a resumed epoch makes the same ones


# Bank


def test_the_bank_moves_towards_the_row_and_starts_at_it():
    encoder, objective = made("PIRL", views=Identity())
    encoder.eval()
    objective.eval()
    batch = rows_batch([3, 7])
    objective(encoder, batch)
    rows = F.normalize(objective.head(encoder.last(batch)), dim=1)
    torch.testing.assert_close(objective.bank[[3, 7]], rows)
    assert (objective.bank.abs().sum(1) > 0).sum() == 2
    assert objective.targets[[3, 7]].tolist() == batch.last_targets().tolist()
    with torch.no_grad():
        objective.head.weight.copy_(torch.eye(DIM))
    objective(encoder, batch)
    new = F.normalize(encoder.last(batch), dim=1)
    torch.testing.assert_close(objective.bank[[3, 7]], F.normalize((rows + new) / 2, dim=1))
    moved = objective.bank.clone()
    objective.momentum = 1.0
    with torch.no_grad():
        objective.head.weight.neg_()
    objective(encoder, batch)
    torch.testing.assert_close(objective.bank, moved)  # momentum 1 never moves


# Mistakes


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda views: TwoViews(views=views, dim=DIM, weight=-1), "TwoViews: weight"),
        (lambda views: SupCon(views=views, dim=DIM, temperature=0), "SupCon: temperature"),
        (lambda views: MoCo(views=views, dim=DIM, queue=0), "MoCo: queue"),
        (lambda views: MoCo(views=views, dim=DIM, momentum=1.5), "MoCo: momentum"),
        (lambda views: OBJECTIVES["DIM"](views=views, dim=DIM, layers="state"), "did you mean states"),
        (lambda views: OBJECTIVES["DIM"](views=views, dim=DIM, temperature=0), "DIM: temperature must be above 0"),
        (
            lambda _: LooC(views=Pair(views=[Crop(), Mask()], distinct=True), dim=DIM),
            "LooC .* leave views.distinct out",
        ),
        (lambda _: LooC(views=Pair(views=[Crop(), Mask()], ordered=True), dim=DIM), "LooC .* leave views.ordered out"),
        (lambda _: LooC(views=Growing(views=[Crop(), Mask()]), dim=DIM), "LooC: its views cannot grow"),
        (lambda views: SwAV(views=views, dim=DIM, crops=-1), "SwAV: crops must not be negative"),
        (lambda views: SwAV(views=views, dim=DIM, crops=2, crop=1.5), "rate must lie in"),
        (
            lambda views: SimSiam(views=Pair(views=[views], number=3), dim=DIM),
            "SimSiam compares two views of a row, not 3; TwoViews compares more",
        ),
        (lambda views: Pair(views=[views], number=1), "Pair: number must be at least 2, not 1"),
        (lambda views: Pair(views=[views] * 2, number=3, distinct=True), "Pair: needs at least 3 views with distinct"),
        (lambda views: MoCo(views=views, dim=DIM, mixed=-1), "MoCo: mixed must not be negative"),
        (
            lambda views: MoCo(views=views, dim=DIM, hardest=8),
            "MoCo: hardest=8 needs mixed or mixed_with_query above 0",
        ),
        (lambda views: SwAV(views=views, dim=DIM, crop=0.1), r"SwAV: crop=0\.1 needs crops above 0"),
        (lambda views: MoCo(views=views, dim=DIM, mixed=4, hardest=0), "MoCo: hardest must be above 0"),
        (lambda views: BYOL(views=views, dim=DIM, momentum=-1), "BYOL: momentum"),
        (lambda views: SwAV(views=views, dim=DIM, prototypes=0), "SwAV: prototypes"),
        (lambda views: SwAV(views=views, dim=DIM, queue=-1), "SwAV: queue must not be negative, not -1"),
        (
            lambda views: Prototypes(views=views, dim=DIM, negatives="cluster"),
            "unknown negatives .*did you mean clusters",
        ),
        (lambda views: Prototypes(views=views, dim=DIM, warmup=-1), "Prototypes: warmup must not be negative"),
        (
            lambda views: Prototypes(views=views, dim=DIM, similarity="cos"),
            "unknown similarity 'cos': did you mean cosine",
        ),
        (
            lambda views: TwoViews(views=views, dim=DIM, similarity="cos"),
            "unknown similarity 'cos': did you mean cosine",
        ),
        (lambda views: LearnedViews(views=views, dim=DIM, similarity="cos"), "did you mean cosine"),
        (lambda views: SupCon(views=views, dim=DIM, reduction="outt"), "unknown reduction 'outt': did you mean out"),
        (lambda views: Pair(views=[views], warmup=-1), "Pair: warmup must not be negative"),
        (lambda views: Pair(views=[views], correlation="hybrd"), "did you mean hybrid"),
        (lambda views: ByLength(short=views, long=views, threshold=-1), "ByLength: threshold must not be negative"),
        (lambda views: Counterfactual(dim=DIM, triplet_margin=-5), "triplet_margin must be from 0 to 2, not -5"),
        (lambda views: Counterfactual(dim=DIM, triplet_margin=2.5), "triplet_margin must be from 0 to 2, not 2.5"),
        (
            lambda views: LearnedViews(views=views, dim=DIM, regularise=-1),
            "LearnedViews: regularise must not be negative",
        ),
        (lambda views: Prototypes(views=views, dim=DIM, intent_states="all"), "unknown intent_states 'all'"),
        (lambda views: TwoViews(views=views, dim=DIM, weight=math.nan), "weight must not be negative, not nan"),
        (lambda views: TwoViews(views=views, dim=DIM, temperature=math.nan), "temperature must be above 0, not nan"),
        (lambda views: NextItem(sampling="popularty"), "unknown sampling 'popularty': did you mean popularity"),
        (lambda views: NextItem(correction="negative"), "did you mean negatives"),
        (lambda views: NextItem(similarity="cos"), "did you mean cosine"),
        (lambda views: NextItem(loss="softmx"), "did you mean softmax"),
        (lambda views: MutualInformation(dim=DIM, similarity="cos"), "did you mean cosine"),
        (
            lambda views: SASRec(num_items=N, max_len=4, dim=DIM, positions="strt"),
            "unknown encoder.positions 'strt': did you mean start",
        ),
        (lambda views: SASRec(num_items=N, max_len=4, dim=DIM, norm="prr"), "unknown encoder.norm 'prr'"),
        (lambda views: SASRec(num_items=N, max_len=4, dim=DIM, activation="gelo"), "did you mean gelu"),
        (lambda views: Counterfactual(dim=DIM, cosine_margin=7), "cosine_margin must be from -1 to 1, not 7"),
        (lambda views: Prototypes(views=views, dim=DIM, clusters=()), "Prototypes: clusters"),
        (lambda views: Prototypes(views=views, dim=DIM, intent=-0.1), "Prototypes: intent"),
        (lambda views: PIRL(views=views, dim=DIM, balance=2), "PIRL: balance"),
        (lambda views: SimSiam(views=views, dim=DIM, head="deep"), "did you mean|head"),
    ],
)
def test_an_impossible_objective_is_refused_by_name(make, said):
    with pytest.raises(UserError, match=said):
        make(Crop())


# Traps


@every_encoder
@every_objective
def test_padding_takes_part_in_no_contrast(name, encoder_name):
    losses = []
    for extra in (0, 3):
        encoder, objective = made(name, encoder_name, views=Identity())
        encoder.eval()
        batch = rows_batch(range(10))
        wide = batch._replace(items=F.pad(batch.items, (0, extra)), targets=F.pad(batch.targets, (0, extra)))
        objective(encoder, wide)  # fills queues and banks
        torch.manual_seed(2)
        losses.append(torch.stack(list(objective(encoder, wide).values())))
    torch.testing.assert_close(*losses)


# Learned views


def test_the_augmenters_take_adam_steps_down_their_own_loss_and_the_encoder_stands_still():
    encoder, objective = made("LearnedViews", views=Identity())
    encoder.eval()
    batch = rows_batch(range(10))
    reference = [parameter.detach().clone().requires_grad_() for parameter in objective.augmenters.parameters()]
    adam = torch.optim.Adam(reference, lr=objective.lr)
    for _ in range(3):
        objective(encoder, batch)
        with torch.no_grad():  # the encoder's own update, which the augmenters see
            for parameter in encoder.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        before = [parameter.clone() for parameter in encoder.parameters()]
        first, second = encoder.last(batch), encoder.last(batch)
        names = [name for name, _ in objective.augmenters.named_parameters()]

        def loss(values, first=first.detach(), second=second.detach(), names=names):
            whole = torch.func.functional_call(objective.augmenters[0], part(names, values, "0."), first)
            other = torch.func.functional_call(objective.augmenters[1], part(names, values, "1."), second)
            pairs = ((first, other), (second, whole), (whole, other))
            same = related(batch)
            return sum(
                nt_xent(a, b, temperature=objective.temperature, same=same)
                + objective.regularise * view_regularizer(a, b, same)
                for a, b in pairs
            )

        adam.zero_grad()
        loss(reference).backward()
        adam.step()
        objective.after_step(encoder)
        assert all(torch.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True))
    for mine, theirs in zip(objective.augmenters.parameters(), reference, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-6)


def test_augmenters_of_unit_length_cannot_lower_their_loss_by_growing():
    lengths = {}
    for unit in (False, True):
        torch.manual_seed(0)
        encoder = ENCODERS["SASRec"]().eval()
        objective = LearnedViews(
            views=Identity(), dim=DIM, similarity="dot", temperature=1.0, lr=0.02, activation="gelu", unit=unit
        )
        batch = rows_batch(range(20))
        states = encoder.last(batch).detach()
        for _ in range(60):
            objective(encoder, batch)
            objective.after_step(encoder)
        learned = objective.augmenters[0](states)
        lengths[unit] = float(learned.norm(dim=1).mean())
        linear = [layer for layer in objective.augmenters[0] if hasattr(layer, "weight")]
        expected = states
        for number, layer in enumerate(linear):
            expected = layer(expected)
            if number < 2:
                expected = expected * (1 + torch.erf(expected / 2**0.5)) / 2
        expected = expected / expected.norm(dim=1, keepdim=True) if unit else expected
        torch.testing.assert_close(learned, expected)
    assert lengths[True] == pytest.approx(1, abs=1e-5) and lengths[False] > 2


def part(names, values, prefix):
    return {
        name.removeprefix(prefix): value for name, value in zip(names, values, strict=True) if name.startswith(prefix)
    }


# Counterfactual rows


def counterfactual(**options):
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]()
    objective = Counterfactual(dim=DIM, **options)
    objective.prepare(encoder, TRAIN)
    return encoder, objective


def test_indispensable_items_can_be_the_farthest_as_the_authors_sort_them():
    encoder, batch = ENCODERS["SASRec"](), rows_batch(range(12))
    table = encoder.item_embeddings()
    marks = Counterfactual(dim=DIM, indispensable="farthest").closest(table, batch, batch.last_targets())
    for row, length in enumerate(batch.lengths.tolist()):
        target = table[batch.last_targets()[row]]
        scores = F.cosine_similarity(table[batch.items[row, :length]], target[None])
        least = scores.argsort()[: max(1, length // 2)]
        assert scores[marks[row, :length]].sort().values.equal(scores[least])
        assert not marks[row, length:].any()


def test_indispensable_items_are_the_closest_to_the_target():
    encoder, objective = counterfactual(replace=0.5)
    batch = rows_batch(range(12))
    table = encoder.item_embeddings()
    marks = objective.closest(table, batch, batch.last_targets())
    for row in range(12):
        length = int(batch.lengths[row])
        cosine = [
            F.cosine_similarity(table[item], table[batch.last_targets()[row]], dim=0).item()
            for item in batch.items[row, :length]
        ]
        count = max(1, length // 2)
        threshold = sorted(cosine, reverse=True)[count - 1]
        assert marks[row].sum() == count and not marks[row, length:].any()
        assert all(value >= threshold for value, mark in zip(cosine, marks[row, :length], strict=True) if mark)


def test_replacements_come_from_training_and_are_never_the_target():
    _, objective = counterfactual()
    batch = rows_batch(range(12))
    where = batch.items > 0
    targets = batch.last_targets()
    for seed in range(20):
        made_up = objective.replaced(batch.items, where, targets, torch.Generator().manual_seed(seed))
        changed = made_up != batch.items
        assert set(made_up[changed].tolist()) <= set(TRAIN.known()[1].tolist())
        assert not ((made_up == targets[:, None]) & changed).any()
    assert torch.equal(
        objective.replaced(batch.items, torch.zeros_like(where), targets, torch.Generator()), batch.items
    )


@every_encoder
def test_counterfactual_terms_are_finite_and_reach_the_encoder(encoder_name):
    torch.manual_seed(0)
    encoder = ENCODERS[encoder_name]()
    objective = Counterfactual(dim=DIM, positives=2, negatives=3)
    objective.prepare(encoder, TRAIN)
    for batch in (rows_batch(range(ROWS)), rows_batch([0])):
        for term in objective(encoder, batch).values():
            encoder.zero_grad()
            term.backward(retain_graph=True)
            assert torch.isfinite(term) and all(
                torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None
            )
    with pytest.raises(UserError, match="targets"):
        objective(encoder, rows_batch([0])._replace(targets=None))


@pytest.mark.parametrize("options", [{"replace": 1.0}, {"weight": -1}, {"interest": -1}, {"positives": 0}])
def test_an_impossible_counterfactual_is_refused_by_name(options):
    with pytest.raises(UserError, match=f"Counterfactual: {next(iter(options))}"):
        Counterfactual(dim=DIM, **options)


@pytest.mark.parametrize("negatives", ["clusters", "batch"])
def test_clusters_that_stay_empty_are_nobodys_intent_and_no_negatives(negatives):
    losses = []
    for clusters in (60, 100):  # there are 60 rows
        torch.manual_seed(0)
        encoder = ENCODERS["SASRec"]()
        objective = Prototypes(views=Pair(views=[Crop()]), dim=DIM, clusters=(clusters,), negatives=negatives)
        objective.prepare(encoder, TRAIN)
        objective.before_epoch(encoder, Rowwise(), epoch=0, epochs=2)
        torch.manual_seed(1)
        losses.append(
            {name: term.item() for name, term in objective.eval()(encoder.eval(), rows_batch(range(9))).items()}
        )
    assert objective.centres[60:].abs().sum() == 0 and (objective.centres[:60].norm(dim=1) > 0.99).all()
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and math.isfinite(losses[0]["intent"])


@pytest.mark.parametrize("name", ["TwoViews", "SupCon", "MoCo", "PIRL"])
def test_hard_negatives_make_the_loss_larger_and_debiased_ones_smaller(name):
    values = []
    for options in ({}, {"hardness": 1e-9}, {"hardness": 1.0}, {"prior": 0.1}):
        encoder, objective = made(name, **options)
        encoder.eval()
        torch.manual_seed(1)
        objective(encoder, rows_batch(range(60)))  # fills queue and bank
        values.append(objective(encoder, rows_batch(range(ROWS)))["contrast"].item())
    plain, nothing, hard, debiased = values
    assert nothing == pytest.approx(plain)
    assert debiased < plain < hard


@pytest.mark.parametrize("options", [{"hardness": -1.0}, {"prior": 1.0}, {"prior": 0.1, "similarity": "dot"}], ids=str)
def test_corrections_of_negatives_out_of_range_are_refused_by_name(options):
    with pytest.raises(UserError, match=f"TwoViews: .*{next(iter(options))}"):
        TwoViews(views=Identity(), dim=DIM, **options)


def test_drawn_positives_are_as_many_as_asked_and_each_equally_likely():
    among = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([drawn_of_each(among, 2, generator) for _ in range(2000)])
    assert not (drawn & ~among).any()
    assert drawn.sum(2).unique(dim=0).tolist() == [[2, 1, 0]]
    assert drawn[:, 0, :4].float().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.05)


def test_supcon_that_draws_all_positives_is_supcon_and_others_of_its_target_are_left_out(monkeypatch):
    batch = rows_batch(range(6))._replace(targets=torch.tensor([1, 1, 1, 2, 3, 4]))
    encoder, objective = made("SupCon", views=Identity(), positives=12)
    _, plain = made("SupCon", views=Identity())
    plain.load_state_dict(objective.state_dict())
    encoder.eval()
    torch.testing.assert_close(objective(encoder, batch), plain(encoder, batch))
    # One positive of three rows with a target: the next of them in the first view.
    chosen = torch.zeros(12, 12, dtype=torch.bool)
    chosen[[0, 1, 2, 6, 7, 8], [1, 2, 0, 1, 2, 0]] = True
    monkeypatch.setattr("seqcl.objectives.two_views.drawn_of_each", lambda among, number, generator: among & chosen)
    views = F.normalize(objective.head(encoder.last(objective.make_views(batch))), dim=1)
    logits = ((views @ views.T) / objective.temperature).exp().tolist()
    total = 0.0
    for i in range(12):
        mine = [(i + 6) % 12, *chosen[i].nonzero()[:, 0].tolist()]
        others = [j for j in range(12) if batch.targets[j % 6] != batch.targets[i % 6]]
        below = sum(logits[i][j] for j in (*mine, *others))
        total -= sum(math.log(logits[i][j] / below) for j in mine) / len(mine)
    assert objective(encoder, batch)["contrast"].item() == pytest.approx(objective.weight * total / 12, rel=1e-5)


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("kind", [SASRec, HSTU, BSARec], ids=lambda kind: kind.__name__)
def test_the_gradient_after_a_block_reaches_as_many_blocks_as_overlap(kind, overlap):
    torch.manual_seed(0)
    encoder = kind(num_items=N, max_len=MAX_LEN, dim=DIM, layers=3).eval()
    batch = rows_batch(range(ROWS))
    states = encoder.by_block(batch, overlap=overlap)  # (B, 3, D)
    for end in range(3):
        encoder.zero_grad()
        states[:, end].sin().sum().backward(retain_graph=True)
        reached = {
            place for place, block in enumerate(encoder.blocks) if any(touched(one) for one in block.parameters())
        }
        assert reached == set(range(max(0, end - overlap), end + 1))
        assert touched(encoder.item_embeddings()) == (end == 0 or end < overlap)
        found = [parameter.grad for parameter in encoder.blocks[end].parameters()]
        encoder.zero_grad()  # in its own block the gradient is that of an encoder that ends there
        shorter = deepcopy(encoder)
        shorter.blocks = shorter.blocks[: end + 1]
        torch.testing.assert_close(shorter.last(batch), states[:, end])
        shorter.last(batch).sin().sum().backward()
        torch.testing.assert_close(found, [parameter.grad for parameter in shorter.blocks[end].parameters()])


def touched(parameter):
    return parameter.grad is not None and bool(parameter.grad.any())


def test_an_encoder_without_blocks_is_one_block_of_loco():
    encoder, objective = made("LoCo", "GRU")
    encoder.eval()
    batch = rows_batch(range(ROWS))
    torch.manual_seed(3)
    both = objective.make_views(batch)
    first, second = objective.heads[0](encoder.last(both)).chunk(2)
    expected = objective.weight * nt_xent(first, second, temperature=objective.temperature, same=related(batch, both))
    torch.manual_seed(3)
    torch.testing.assert_close(objective(encoder, batch)["contrast"], expected)
    assert len(objective.heads) == 1


def test_a_momentum_of_nothing_follows_the_encoder_and_one_of_everything_never_moves():
    found = []
    for momentum in (0.0, 1e-12, 1.0):
        encoder, objective = made("Prototypes", momentum=momentum)
        encoder.eval()
        if momentum:
            objective.follower.eval()
        before = encoder.item_embeddings().detach().clone()
        with torch.no_grad():
            encoder.item_embeddings()[1:] += torch.randn(N + 1, DIM, generator=torch.Generator().manual_seed(1))
        objective.after_step(encoder)
        objective.before_epoch(encoder, Rowwise(), epoch=1, epochs=2)
        found.append(objective.centres)
        if momentum == 1:
            assert torch.equal(objective.follower.encoder.item_embeddings(), before)
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


def test_the_overlap_of_clusters_is_that_of_sets():
    draws = np.random.default_rng(0)
    one, two = draws.integers(0, 4, 30), draws.integers(0, 6, 30)
    sets = [[{j for j in range(30) if labels[j] == labels[i]} for i in range(30)] for labels in (one, two)]
    expected = [len(a & b) / len(a | b) for a, b in zip(*sets, strict=True)]
    np.testing.assert_allclose(overlap(one, two), expected)


def test_clusters_count_that_hold_together_and_of_their_rows_the_core():
    own = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    loose = np.array([0, 0, 0, 0, 1, 1, 2, 2, 1, 3])  # 1 and 2 are torn apart
    tight = np.array([0, 0, 0, 1, 2, 2, 2, 3, 3, 4])  # 0 loses a row
    labels, bar = reliable(own, loose, tight, bar=None, trusted=0.3)
    assert labels.tolist() == [0, 0, 0, -1, -1, -1, -1, -1, -1, -1]
    assert bar == 1  # clusters of several rows have 1, 1/2 and 1/3, and one of the three is trusted
    assert reliable(own, loose, tight, bar=None, trusted=0.7)[1] == pytest.approx(1 / 2)
    assert reliable(own, own, own, bar=None, trusted=1.0) == (pytest.approx([*own[:-1], -1]), 1.0)  # one row is none
    easier, _ = reliable(own, loose, tight, bar=0.2, trusted=0.3)
    assert easier.tolist() == [0, 0, 0, -1, 1, 1, 1, 2, 2, -1]


def test_a_slow_copy_finds_the_centre_of_a_row_without_dropout(monkeypatch):
    encoder, objective = made("Prototypes", views=Identity(), momentum=0.9)
    encoder.train(), objective.train()
    for part in (*encoder.modules(), *objective.modules()):
        if isinstance(part, Dropout):
            part.rate = 0.5
    labels, against = [], objective.against
    monkeypatch.setattr(
        objective,
        "against",
        lambda states, centres, density, own, same: (labels.append(own), against(states, centres, density, own, same))[
            1
        ],
    )
    batch = rows_batch(range(60))
    objective(encoder, batch)
    states = encode(objective.follower.encoder, [batch], "newest")
    for own, centres in zip(labels, objective.centres.split(objective.clusters), strict=True):
        assert torch.equal(own, (states @ centres.T).argmax(1).expand(2, -1))


def test_states_that_part_into_groups_are_clusters_in_the_memory():
    encoder, _ = made("SpCL")
    objective = SpCL(views=Identity(), dim=DIM, clusters=2, looser=1.0)
    objective.prepare(encoder, TRAIN)
    with torch.no_grad():  # two groups far apart, and users of none
        noise = 0.01 * torch.randn(50, DIM)
        objective.bank[:50] = F.normalize(torch.eye(2, DIM).repeat_interleave(25, 0) + noise, dim=1)
    objective.before_epoch(encoder, Rowwise(), epoch=1, epochs=2)
    assert objective.cluster.tolist() in ([0] * 25 + [1] * 25 + [-1] * 10, [1] * 25 + [0] * 25 + [-1] * 10)
    assert objective.instances == 0 and objective.sizes.tolist() == [25, 25]
    for batch in (rows_batch(range(40)), rows_batch([3, 3, 4])):
        objective(encoder, batch)
    members = F.one_hot(objective.cluster[:50], 2).float()  # the centres have moved with their rows
    torch.testing.assert_close(objective.centres, members.T @ objective.bank[:50] / 25, atol=1e-5, rtol=1e-5)


def test_experts_take_the_mean_key_of_their_rows_when_an_epoch_begins():
    encoder, objective = made("MiCE", views=Identity())
    encoder.eval(), objective.eval()
    batch, before = rows_batch(range(ROWS)), objective.prototypes.detach().clone()
    objective(encoder, batch)
    assert torch.equal(objective.prototypes, before) and objective.sums.any()
    sums = objective.sums.clone()
    objective.before_epoch(encoder, Rowwise(), epoch=1, epochs=2)
    for z in range(3):
        expected = F.normalize(sums[z], dim=0) if sums[z].any() else before[z]
        torch.testing.assert_close(objective.prototypes[z], expected)
    assert not objective.sums.any()


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_the_directions_of_the_gate_are_the_corners_of_a_simplex(number):
    cosines = far_apart(number, 8) @ far_apart(number, 8).T
    expected = torch.full((number, number), -1 / max(number - 1, 1)).fill_diagonal_(1)
    torch.testing.assert_close(cosines, expected)


def test_a_key_of_an_operator_has_its_draws_in_common_with_the_query():
    _, objective = made("LooC", views=Pair(views=[Crop(rate=0.5), Mask(rate=0.5)]))
    batch = SeqBatch(torch.arange(1, 13).repeat(50, 1), torch.full((50,), 12))
    query, plain, crop, mask = objective.make_views(batch).items.split(50)
    starts = [(view - torch.arange(6)).masked_fill(view == N + 1, 0).amax(1) for view in (query, plain, crop, mask)]
    places = [view == N + 1 for view in (query, plain, crop, mask)]
    assert torch.equal(starts[2], starts[0]) and torch.equal(places[3], places[0])
    for other, found in ((1, starts), (3, starts)):
        assert not torch.equal(found[other], found[0])
    for other in (1, 2):
        assert not torch.equal(places[other], places[0])


@pytest.mark.parametrize("adversary", [0.0, 2.0])
def test_the_augmenters_of_info_min_go_down_their_own_loss_and_the_encoder_stands_still(adversary):
    encoder, _ = made("InfoMin")
    encoder.eval()
    objective = InfoMin(views=Identity(), dim=DIM, adversary=adversary, lr=0.01)
    objective.prepare(encoder, TRAIN)
    batch, before = rows_batch(range(ROWS)), [value.clone() for value in encoder.state_dict().values()]
    same = related(batch)
    states = encoder.last(batch._replace(targets=None)).detach()
    values = []
    for _ in range(40):
        objective(encoder, batch)
        values.append(
            (float(objective.augmenters_loss(encoder, states, states, same)), hardness_of(objective, states, same))
        )
        objective.after_step(encoder)
    assert values[-1][0] < values[0][0] - 0.1
    assert (values[-1][1] > values[0][1]) == (adversary > 0)  # without it the next item alone pulls versions together
    assert all(torch.equal(one, two) for one, two in zip(before, encoder.state_dict().values(), strict=True))


def hardness_of(objective, states, same):
    return float(objective.against(states, states, same))


def test_the_loss_of_info_mins_augmenters_is_that_of_its_parts():
    encoder, objective = made("InfoMin")
    encoder.eval()
    batch = rows_batch(range(ROWS))._replace(targets=torch.tensor([0, *range(1, ROWS)]))  # a row without a target
    objective(encoder, batch)
    states = encoder.last(batch._replace(targets=None)).detach()
    one, two = (augment(states) for augment in objective.augmenters)
    table = F.normalize(encoder.item_embeddings()[1:-1], dim=1)
    next_item = [F.cross_entropy(F.normalize(v[1:], dim=1) @ table.T / 0.1, torch.arange(ROWS - 1)) for v in (one, two)]
    expected = sum(next_item) / 2 - 0.5 * nt_xent(one, two, temperature=0.2, same=related(batch))
    torch.testing.assert_close(objective.augmenters_loss(encoder, states, states, related(batch)), expected)
    objective(encoder, batch._replace(targets=None))
    weights = [one.clone() for one in objective.augmenters.parameters()]
    objective.after_step(encoder)  # nothing to hold on to, so nothing moves
    assert all(torch.equal(one, two) for one, two in zip(weights, objective.augmenters.parameters(), strict=True))


def test_no_item_of_a_row_is_a_negative_of_it_even_where_a_view_has_cropped_it_away(monkeypatch):
    encoder, objective = made("DIM", views=Pair(views=[Identity(), Crop(rate=0.3)], ordered=True), layers="items")
    asked, masks, vectors = [], [], encoder.item_vectors
    monkeypatch.setattr(encoder, "item_vectors", lambda ids: asked.append(ids.tolist()) or vectors(ids))
    monkeypatch.setattr(objective, "loss", lambda _, places, own, masked: masks.append(masked) or places.sum() * 0)
    rows = [[1, 2, 3, 4, 20], [5, 6, 7, 1, 21], [8, 9, 4, 5, 2]]  # with their last targets
    items = torch.tensor(rows)
    objective(encoder, SeqBatch(items[:, :-1], torch.full((3,), 4), items[:, 1:]))
    assert asked[0] == list(range(1, 10)) and len(asked[1]) <= 3
    for ids, masked in zip(asked, masks, strict=True):
        assert masked.tolist() == [[item in row for item in ids] for row in rows]
