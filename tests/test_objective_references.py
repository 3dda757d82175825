"""Tests of contrastive objectives against loops over rows, on a batch with rows of one user, one target and one cluster."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from seqcl.augment import Crop, Identity, Mask, Pair, SameTarget, View, apart
from seqcl.errors import UserError
from seqcl.losses import nt_xent
from seqcl.objectives import Counterfactual, ItemGraph
from seqcl.types import SeqBatch
from tests import reference_losses as slow
from tests.test_contrastive_objectives import BUILT, DIM, ENCODERS, MAX_LEN, TRAIN, made, rows_batch

USERS, TARGETS = [0, 1, 2, 3, 4, 5, 6, 6], [1, 1, 2, 3, 4, 5, 6, 7]
BATCH = rows_batch(range(8))._replace(users=torch.tensor(USERS), targets=torch.tensor(TARGETS))
EARLIER = rows_batch(range(10, 26))._replace(targets=torch.arange(16) % 9 + 1, users=torch.arange(16))
ROWS = range(8)


def belong(i: int, j: int) -> bool:
    return i == j or USERS[i] == USERS[j] or TARGETS[i] == TARGETS[j]


SAME = torch.tensor([[belong(i, j) for j in ROWS] for i in ROWS])


def together(views: Sequence[SeqBatch]) -> torch.Tensor:
    """Mark rows that belong together, or of which two views are of one user; SameTarget shows rows of others."""
    users = [USERS, *(view.users.tolist() for view in views if view.users is not None)]
    known = [{some[i] for some in users} for i in ROWS]
    return torch.tensor([[belong(i, j) or bool(known[i] & known[j]) for j in ROWS] for i in ROWS])


def log_share(own: float, others: list[float]) -> float:
    return own - math.log(sum(math.exp(x) for x in [own, *others]))


def two_views(objective, encoder, *views):
    same = together(shown(objective))
    pairs = list(combinations([objective.head(view) for view in views], 2))
    total = sum(slow.nt_xent(one, two, objective.temperature, same, like(objective)) for one, two in pairs)
    return {"contrast": objective.weight * total / len(pairs)}


def sup_con(objective, encoder, first, second):
    views = objective.head(torch.cat((first, second)))
    total = 0.0
    for i, anchor in enumerate(views):
        logits = [slow.cosine(anchor, view) / objective.temperature for view in views]
        mine = [j for j in range(16) if j != i and TARGETS[j % 8] == TARGETS[i % 8]]
        others = [j for j in range(16) if not belong(j % 8, i % 8)]
        total -= sum(log_share(logits[j], [logits[k] for k in (*mine, *others) if k != j]) for j in mine) / len(mine)
    return {"contrast": objective.weight * total / 16}


def mo_co(objective, encoder, first, second):
    queries, total = F.normalize(objective.head(first), dim=1), 0.0
    keys = objective.follower(shown(objective)[1])
    mixed, with_query = objective.mixed, objective.mixed_with_query
    draws = [torch.rand(8, columns).tolist() for columns in (mixed, with_query, mixed, mixed + with_query)]
    for i in ROWS:
        strangers = [
            key
            for key, user, target in zip(objective.keys[:16], objective.users, objective.targets, strict=False)
            if user != USERS[i] and target != TARGETS[i]
        ]
        assert len(strangers) < 16
        of_two, of_query, partners, places = (draw[i] for draw in draws)
        shares = [*of_two, *(share / 2 for share in of_query)]
        drawn = [*zip(partners, places, strict=False), *((place,) for place in places[mixed:])]
        mixes = slow.hard_mixes(queries[i], strangers, objective.hardest, shares, drawn)
        logits = [slow.dot(queries[i], torch.as_tensor(one)) / objective.temperature for one in (*strangers, *mixes)]
        total -= log_share(slow.cosine(queries[i], keys[i]) / objective.temperature, logits)
    return {"contrast": objective.weight * total / 8}


def mo_co_v3(objective, encoder, first, second):
    one, two = (objective.predictor(objective.head(view)) for view in (first, second))
    key_one, key_two = (objective.follower(view) for view in shown(objective))
    total = 0.0
    for queries, keys in ((one, key_two), (two, key_one)):
        for i in ROWS:
            others = [slow.cosine(queries[i], keys[j]) / objective.temperature for j in ROWS if not belong(i, j)]
            total -= log_share(slow.cosine(queries[i], keys[i]) / objective.temperature, others)
    return {"contrast": objective.weight * total / 16}


def deep_infomax(objective, encoder, first, second):
    views, whole = shown(objective), (objective.head(first), objective.head(second))
    same, terms = together(views), []
    both = [{*one.items[i].tolist(), *two.items[i].tolist()} for one, two in [views] for i in ROWS]
    for side, view in enumerate(views):
        rows = [view.items[i, : view.lengths[i]] for i in ROWS]
        states = [encoder(SeqBatch(row[None], torch.tensor([len(row)])))[0] for row in rows]
        by_layer = {
            "states": [(i, {i}, objective.of_states and objective.of_states(one)) for i in ROWS for one in states[i]],
            "items": [
                (
                    i,
                    {j for j in ROWS if item in (*both[j], *BATCH.items[j], TARGETS[j])},
                    objective.of_items(encoder.item_embeddings()[item]),
                )
                for i in ROWS
                for item in sorted(set(rows[i].tolist()) - {encoder.num_items + 1})
            ],
        }
        if objective.of_states is None:
            del by_layer["states"]
        for layer, places in by_layer.items():
            losses = []
            for b in ROWS:
                weights = [
                    math.exp(slow.cosine(whole[1 - side][b], one) / objective.temperature) for _, _, one in places
                ]
                far = {}
                for (i, owners, one), weight in zip(places, weights, strict=True):
                    if not any(same[b, j] for j in owners):
                        far[tuple(one.tolist()) if layer == "items" else (i, tuple(one.tolist()))] = weight
                losses += [
                    -math.log(weight / (weight + sum(far.values())))
                    for (i, _, _), weight in zip(places, weights, strict=True)
                    if i == b
                ]
            terms.append(sum(losses) / len(losses))
    return {"contrast": objective.weight * sum(terms) / len(terms)}


def align_uniform(objective, encoder, first, second):
    first, second = objective.head(first), objective.head(second)
    spread = (slow.uniformity(first, objective.t, SAME) + slow.uniformity(second, objective.t, SAME)) / 2
    return {"spread": objective.weight * (slow.alignment(first, second, objective.power) + objective.balance * spread)}


def lo_co(objective, encoder, first, second):
    views, total = shown(objective), 0.0
    for depth, head in enumerate(objective.heads, 1):
        shorter = deepcopy(encoder)
        shorter.blocks = shorter.blocks[:depth]  # as if the encoder ended there
        one, two = (head(stand(shorter, view, "newest")) for view in views)
        total += slow.nt_xent(one, two, objective.temperature, SAME)
    return {"contrast": objective.weight * total / len(objective.heads)}


def barlow(objective, encoder, first, second):
    first, second = (objective.head(view) for view in (first, second))
    return {"decorrelate": objective.weight * slow.barlow(first, second, objective.redundancy)}


def vic_reg(objective, encoder, first, second):
    first, second = (objective.head(view) for view in (first, second))
    return {"decorrelate": objective.weight * slow.vicreg(first, second, objective.variance, objective.covariance)}


def byol(objective, encoder, first, second):
    one, two = (objective.predictor(objective.head(view)) for view in (first, second))
    target_one, target_two = (objective.follower(view) for view in shown(objective))
    both_ways = slow.cosine_gap(one, target_two) + slow.cosine_gap(two, target_one)
    return {"predict": objective.weight * both_ways}


def sim_siam(objective, encoder, first, second):
    one, two = objective.head(first), objective.head(second)
    both_ways = slow.cosine_gap(objective.predictor(one), two) + slow.cosine_gap(objective.predictor(two), one)
    return {"predict": objective.weight * both_ways / 2}


def sw_av(objective, encoder, first, second):
    prototypes = F.normalize(objective.prototypes, dim=1)
    assert int(objective.count) >= 16, "the queue is full"
    scores, codes = [], []
    for view, kept in zip((first, second), objective.kept, strict=True):
        scores.append(
            torch.tensor([[slow.cosine(row, centre) for centre in prototypes] for row in objective.head(view)])
        )
        earlier = torch.tensor([[slow.dot(row, centre) for centre in prototypes] for row in kept])
        codes.append(slow.sinkhorn(torch.cat((scores[-1], earlier)), objective.epsilon, 3)[:8])
    if objective.crops:
        shown(objective)  # crops are drawn behind the views
        for view in objective.make_crops(BATCH).items.split(8):
            states = stand(encoder, SeqBatch(view, (view > 0).sum(1)), "newest")
            scores.append(
                torch.tensor([[slow.cosine(row, centre) for centre in prototypes] for row in objective.head(states)])
            )
    total = sum(
        slow.swapped(scores[other], torch.tensor(codes[view]), objective.temperature)
        for view in (0, 1)
        for other in range(len(scores))
        if other != view
    )
    return {"swap": objective.weight * total / (2 * (len(scores) - 1))}


def prototypes(objective, encoder, first, second):
    views = shown(objective)
    seen = [stand(encoder, view, objective.intent_states) for view in views]
    slowly = objective.follower.encoder if objective.momentum else encoder
    states, found = ([stand(slowly, one, objective.intent_states) for one in rows] for rows in ([BATCH], views))
    users = [USERS if view.users is None else view.users.tolist() for view in views]  # SameTarget shows rows of others
    base = together(views)
    alike, intents = [base], []
    for centres in objective.centres.split(objective.clusters):
        rows = [[states[0][i] if users[v][i] == USERS[i] else found[v][i] for i in ROWS] for v in (0, 1)]
        own = [[max(range(len(centres)), key=lambda k, x=x: slow.cosine(x, centres[k])) for x in some] for some in rows]
        ours = [{own[0][i], own[1][i]} for i in ROWS]
        alike.append(torch.tensor([[bool(ours[i] & ours[j]) for j in ROWS] for i in ROWS]))
        assert not alike[-1].equal(torch.eye(8, dtype=torch.bool)) and not alike[-1].all()
        total = 0.0
        for v in (0, 1):
            for i in ROWS:
                logits = [like(objective)(seen[v][i], centres[own[v][j]]) / objective.temperature for j in ROWS]
                others = [logits[j] for j in ROWS if not base[i, j] and own[v][i] != own[v][j]]
                total -= log_share(logits[i], others) / 16
        intents.append(total)
    first, second = objective.head(first), objective.head(second)
    all_alike = torch.stack(alike).any(0)
    return {
        "contrast": objective.weight * slow.nt_xent(first, second, objective.temperature, all_alike, like(objective)),
        "intent": objective.intent * sum(intents) / len(intents),
    }


def detect(objective, encoder, first, second):
    losses, rows = [], encoder.last(BATCH)
    torch.manual_seed(3)
    _, view = objective.views(BATCH, torch.default_generator)
    for i in ROWS:
        length = int(view.lengths[i])
        if view.items[i, :length].tolist() != BATCH.items[i, : int(BATCH.lengths[i])].tolist():
            for state, label in ((rows[i], 0), (second[i], 1)):
                chance = 1 / (1 + math.exp(-float(objective.tell(objective.head(state)))))
                losses.append(-math.log(chance if label else 1 - chance))
    assert losses
    return {"detect": objective.weight * sum(losses) / len(losses)}


def learned_views(objective, encoder, first, second):
    one, two = objective.augmenters[0](first), objective.augmenters[1](second)
    learned = 0.0
    for left, right in ((first, two), (second, one), (one, two)):
        learned += slow.nt_xent(left, right, objective.temperature, SAME, like(objective))
        learned += objective.regularise * slow.view_regularizer(left, right, SAME, like(objective))
    contrast = slow.nt_xent(first, second, objective.temperature, SAME, like(objective))
    return {"contrast": objective.weight * contrast, "learned": objective.learned * learned}


def pirl(objective, encoder, first, second):
    torch.manual_seed(3)
    objective.make_views(BATCH)
    drawn = torch.randint(60, (objective.negatives,)).tolist()
    rows, views = objective.head(encoder.last(BATCH)), objective.view_head(second)
    totals, left_out = [0.0, 0.0], 0
    for i in ROWS:
        kept = objective.bank[USERS[i]]
        mine = kept if kept.any() else rows[i]
        others = []
        for user in drawn:
            vector = objective.bank[user]
            if vector.any() and user != USERS[i] and objective.targets[user] != TARGETS[i]:
                others.append(vector)
        left_out += len(drawn) - len(others)
        for place, query in enumerate((views[i], rows[i])):
            logits = [slow.cosine(query, other) / objective.temperature for other in others]
            totals[place] -= log_share(slow.cosine(query, mine) / objective.temperature, logits) / 8
    assert left_out < 8 * len(drawn)
    return {"contrast": objective.weight * (objective.balance * totals[0] + (1 - objective.balance) * totals[1])}


def margin(objective, encoder, first, second):
    first, second = objective.head(first), objective.head(second)
    return {"contrast": objective.weight * slow.margin_contrast(first, second, objective.margin, SAME)}


def instance(objective, encoder, first, second):
    rows = stand(encoder, BATCH, "newest")
    return {"contrast": objective.weight * slow.spreading(rows, second, objective.temperature, SAME)}


def info_min(objective, encoder, first, second):
    one, two = objective.augmenters[0](first), objective.augmenters[1](second)
    contrast, learned = (
        slow.nt_xent(left, right, objective.temperature, SAME) for left, right in ((first, second), (one, two))
    )
    return {"contrast": objective.weight * contrast, "learned": objective.learned * learned}


def loo_c(objective, encoder, first, second):
    torch.manual_seed(3)
    made = objective.make_views(BATCH)
    number = len(objective.heads)  # n operators, and the common space
    views = [SeqBatch(made.items[8 * v : 8 * v + 8], made.lengths[8 * v : 8 * v + 8]) for v in range(number + 1)]
    states = [stand(encoder, view, "newest") for view in views]
    total, twins, alike = 0.0, 0, 0
    for space, head in enumerate(objective.heads):
        query, *keys = (head(one) for one in states)
        for i in ROWS:
            others = [keys[space][j] for j in ROWS if not belong(i, j)]
            for other in set(range(number if space else 0)) - {space}:
                look = views[1 + other].items[i]
                twin = any(look.equal(views[one].items[i]) for one in (0, 1 + space))
                crops = isinstance(objective.views.views[space - 1], Crop)  # the other operator changes nothing
                changed = crops and any(views[one].lengths[i] < BATCH.lengths[i] for one in (0, 1 + other))
                twins, alike = twins + twin, alike + (not changed and not twin)
                others += [keys[other][i]] if changed and not twin else []
            logits = [slow.cosine(query[i], key) / objective.temperature for key in (keys[space][i], *others)]
            total -= log_share(logits[0], logits[1:]) / 8
    assert twins and alike
    return {"contrast": objective.weight * total / number}


def sp_cl(objective, encoder, first, second):
    torch.manual_seed(3)
    objective.make_views(BATCH)
    places = torch.rand(objective.negatives, dtype=torch.float64) * int(objective.instances)
    drawn = [int(objective.alone[int(place)]) for place in places]
    assert drawn and all(objective.cluster[user] < 0 for user in drawn)
    members = {int(c): [u for u in range(60) if objective.cluster[u] == c] for c in objective.cluster if c >= 0}
    centres = {c: sum(objective.bank[u] for u in users) / len(users) for c, users in members.items()}
    assert len(centres) > 1 and {int(objective.cluster[user]) for user in USERS} & set(centres)
    total = 0.0
    for view in (first, second):
        for i in ROWS:
            query, mine = F.normalize(view[i], dim=0), int(objective.cluster[USERS[i]])
            own = centres[mine] if mine >= 0 else objective.bank[USERS[i]]
            others = [centre for c, centre in centres.items() if c != mine]
            others += [objective.bank[u] for u in drawn if u != USERS[i] and objective.targets[u] != TARGETS[i]]
            logits = [slow.dot(query, other) / objective.temperature for other in others]
            total -= log_share(slow.dot(query, own) / objective.temperature, logits)
    return {"contrast": objective.weight * total / 16}


def mi_ce(objective, encoder, first, second):
    experts = len(objective.prototypes)
    keys = objective.follower(shown(objective)[1]).view(8, experts, DIM)
    queries, total = objective.spaces(first).view(8, experts, DIM), 0.0
    for i in ROWS:
        gate = [slow.cosine(objective.gate(first[i]), one) / objective.gate_temperature for one in objective.directions]
        parts = []
        for z in range(experts):
            query = F.normalize(queries[i, z], dim=0) + F.normalize(objective.prototypes[z], dim=0)
            logits = [slow.dot(query, F.normalize(keys[j, z], dim=0)) / objective.temperature for j in ROWS]
            share = log_share(logits[i], [logits[j] for j in ROWS if not belong(i, j)])
            parts.append(math.exp(log_share(gate[z], gate[:z] + gate[z + 1 :]) + share))
        total -= math.log(sum(parts))
    return {"contrast": objective.weight * total / 8}


def i_mix(objective, encoder, first, second):
    torch.manual_seed(3)
    views = objective.make_views(BATCH)
    partner, part = objective.draw(8, second)
    table, firsts = encoder.item_embeddings(), [views.items[i][: int(views.lengths[i])] for i in ROWS]
    queries, keys, total = [], objective.head(second), 0.0
    for i in ROWS:
        mine, theirs, vectors = firsts[i].tolist(), firsts[int(partner[i])].tolist(), []
        for behind in range(1, len(mine) + 1):  # from the newest item on
            own = table[mine[-behind]]
            other = table[theirs[-behind]] if behind <= len(theirs) else None
            vectors.append(own if other is None else part[i] * own + (1 - part[i]) * other)
        queries.append(objective.head(encoder_of_vectors(encoder, torch.stack(vectors[::-1])))[0])
    for i in ROWS:
        j = int(partner[i])
        logits = [slow.cosine(queries[i], key) / objective.temperature for key in keys]
        known = [k for k in ROWS if k in (i, j) or not (belong(i, k) or belong(j, k))]
        norm = math.log(sum(math.exp(logits[k]) for k in known))
        total -= float(part[i]) * (logits[i] - norm) + float(1 - part[i]) * (logits[j] - norm)
    return {"contrast": objective.weight * total / 8}


def encoder_of_vectors(encoder, vectors):
    """The newest state of one row that is read as vectors (n, D): they stand in the table for n items."""
    other = deepcopy(encoder)
    with torch.no_grad():
        other.item_embeddings()[1 : len(vectors) + 1] = vectors
    return other.last(SeqBatch(torch.arange(1, len(vectors) + 1)[None], torch.tensor([len(vectors)])))


def clae(objective, encoder, first, second):
    views = shown(objective)
    first, second = objective.head(first), objective.head(second)
    plain = slow.nt_xent(first, second, objective.temperature, SAME)
    with torch.enable_grad():
        vectors = [encoder.item_embeddings()[views[1].items[i, :n]].detach() for i, n in enumerate(views[1].lengths)]
        for one in vectors:
            one.requires_grad_()
        states = torch.cat([reading_vectors(encoder, one) for one in vectors])
        loss = nt_xent(first.detach(), objective.head(states), temperature=objective.temperature, same=SAME)
        moves = torch.autograd.grad(loss, vectors)
    harder = []
    for one, towards in zip(vectors, moves, strict=True):
        moved = [v + objective.epsilon * v.norm() * g / g.norm() for v, g in zip(one.detach(), towards, strict=True)]
        harder.append(objective.head(encoder_of_vectors(encoder, torch.stack(moved)))[0])
    against = slow.nt_xent(first, torch.stack(harder), objective.temperature, SAME)
    return {"contrast": objective.weight * (plain + objective.adversarial * against)}


def reading_vectors(encoder, vectors):
    """The newest state of a row that is read as vectors, with gradient: a table of them, called by place."""
    table = torch.cat((torch.zeros(1, DIM), vectors, encoder.item_embeddings()[len(vectors) + 1 :].detach()))
    batch = SeqBatch(torch.arange(1, len(vectors) + 1)[None], torch.tensor([len(vectors)]))
    return functional_call(Last(encoder), {"encoder.table.weight": table}, (batch,))


class Last(torch.nn.Module):
    """The newest states, as a call."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch):
        return self.encoder.last(batch)


REFERENCES = {
    "IMix": i_mix,
    "CLAE": clae,
    "TwoViews": two_views,
    "SupCon": sup_con,
    "MoCo": mo_co,
    "BYOL": byol,
    "MoCoV3": mo_co_v3,
    "DIM": deep_infomax,
    "AlignUniform": align_uniform,
    "LoCo": lo_co,
    "Barlow": barlow,
    "VICReg": vic_reg,
    "SimSiam": sim_siam,
    "SwAV": sw_av,
    "Prototypes": prototypes,
    "Detect": detect,
    "LearnedViews": learned_views,
    "PIRL": pirl,
    "Margin": margin,
    "Instance": instance,
    "InfoMin": info_min,
    "LooC": loo_c,
    "SpCL": sp_cl,
    "MiCE": mi_ce,
}


def like(objective):
    return getattr(slow, objective.similarity)


class Replaced(View):
    """Put items in the place of others, which the row itself need not have."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, batch, generator):
        other = torch.randint(1, 9, batch.items.shape, generator=generator)
        swap = (torch.rand(batch.items.shape, generator=generator) < self.rate) & (batch.items > 0)
        return batch._replace(items=torch.where(swap, other, batch.items))


def shown(objective) -> tuple[SeqBatch, ...]:
    """Make the views that the objective makes of the batch after seed 3."""
    torch.manual_seed(3)
    return apart(objective.make_views(BATCH), objective.views.number)


def stand(encoder, batch: SeqBatch, kind: str) -> torch.Tensor:
    """Make the vectors of rows, a row at a time; for all states, the newest comes first and zeros behind the oldest."""
    found = []
    for items, length in zip(batch.items, batch.lengths, strict=True):
        states = encoder(SeqBatch(items[None, :length], length[None]))[0]  # (length, D)
        if kind == "newest":
            found.append(states[-1])
        elif kind == "mean":
            found.append(sum(states) / int(length))
        else:
            found.append(torch.cat([*reversed(states), torch.zeros((MAX_LEN - int(length)) * DIM)]))
    return torch.stack(found)


def test_every_contrastive_objective_has_a_reference():
    assert set(REFERENCES) == set(BUILT)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in REFERENCES),
        *((name, {"similarity": "dot"}) for name in ("TwoViews", "Prototypes", "LearnedViews")),
        ("TwoViews", {"third": Mask}),
        ("TwoViews", {"third": SameTarget, "similarity": "dot"}),
        ("DIM", {"second": Mask}),
        ("DIM", {"second": partial(Replaced, rate=0.6), "layers": "items"}),
        ("DIM", {"second": SameTarget, "layers": "items"}),
        ("SwAV", {"crops": 3, "crop": 0.4}),
        ("MoCo", {"mixed": 5, "mixed_with_query": 3, "hardest": 6}),
        ("TwoViews", {"states": "mean"}),
        *(("TwoViews", {"states": "all", "similarity": kind, "head": "none"}) for kind in ("cosine", "dot")),
        ("TwoViews", {"states": "mean", "similarity": "dot"}),
        ("Prototypes", {"states": "all", "similarity": "dot", "head": "none", "intent_states": "mean"}),
        ("Prototypes", {"states": "all", "head": "none"}),
        ("Prototypes", {"states": "mean", "intent_states": "mean"}),
        ("Prototypes", {"intent_states": "mean", "similarity": "dot"}),
        ("Prototypes", {"momentum": 0.9}),
        ("Prototypes", {"momentum": 0.9, "second": SameTarget}),
        ("Prototypes", {"second": SameTarget}),
        ("Prototypes", {"second": SameTarget, "similarity": "dot"}),
    ],
    ids=str,
)
def test_a_contrastive_objective_equals_a_loop_over_rows(name, options):
    options = {"second": partial(Crop, rate=0.5)} | options
    views = [Identity(), *(options.pop(place)() for place in ("second", "third") if place in options)]
    encoder, objective = made(name, views=Pair(views=views, ordered=name != "LooC", number=len(views)), **options)
    encoder.eval()
    objective.eval()
    states = options.get("states", "newest")
    if name == "PIRL":
        objective.balance = 0.3
    with torch.no_grad():
        objective(encoder, EARLIER)  # fills queues and banks
        for parameter in objective.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # followers and heads are no copies of one another
        expected = REFERENCES[name](objective, encoder, *(stand(encoder, view, states) for view in shown(objective)))
        torch.manual_seed(3)
        found = objective(encoder, BATCH)
    assert {key: float(term) for key, term in found.items()} == pytest.approx(
        {key: float(term) for key, term in expected.items()}, rel=1e-4
    )


def test_counterfactual_rows_equal_a_loop_over_rows():
    torch.manual_seed(0)
    encoder = ENCODERS["SASRec"]().eval()
    objective = Counterfactual(dim=DIM, positives=2, negatives=3, weight=0.7, interest=0.3)
    objective.prepare(encoder, TRAIN)
    objective.bank = BATCH.items[:, 0].contiguous()  # so few that rows are often drawn as they are
    batch, targets, table = BATCH, torch.tensor(TARGETS), encoder.item_embeddings()
    closest = objective.closest(table, batch, targets)
    generator = torch.Generator().manual_seed(3)
    near = [objective.replaced(batch.items, (batch.items > 0) & ~closest, targets, generator) for _ in range(2)]
    far = [objective.replaced(batch.items, closest, targets, generator) for _ in range(3)]
    keep = torch.tensor([[not torch.equal(rows[i], batch.items[i]) for i in ROWS] for rows in far])
    assert 0 < keep.sum() < keep.numel()
    with torch.no_grad():
        anchors = encoder.last(batch)
        near, far = (torch.stack([encoder.last(batch._replace(items=items)) for items in rows]) for rows in (near, far))
        torch.manual_seed(3)
        found = objective(encoder, batch)
    expected = {
        "observed": 0.7 * slow.triplet(anchors, near, far, objective.triplet_margin, keep),
        "interest": 0.3 * slow.cosine_margin(table[targets], near, far, objective.cosine_margin, keep),
    }
    assert {key: float(term) for key, term in found.items()} == pytest.approx(expected, rel=1e-4)
    assert float(objective.observed["masked_share"]) == pytest.approx(float((~keep).float().mean()))


def test_items_of_two_thinned_graphs_equal_a_loop_over_edges():
    torch.manual_seed(0)
    encoder, objective = ENCODERS["SASRec"](), ItemGraph(weight=0.7, temperature=0.3, rate=0.4)
    objective.prepare(encoder, TRAIN)
    users, items = TRAIN.known()
    into: dict[int, Counter[int]] = defaultdict(Counter)
    for user in range(60):
        for one, two in pairwise(items[users == user].tolist()):
            into[two][one] += 1
    newest = sorted({int(row[length - 1]) for row, length in zip(BATCH.items, BATCH.lengths, strict=True)})
    assert max(into[item].total() - len(into[item]) for item in newest) > 0, "some edges happened twice"
    edges = [(item, other) for item in newest for other in sorted(into[item])]
    table, views = encoder.item_embeddings().detach(), []
    torch.manual_seed(3)
    for _ in range(2):
        kept = [edge for edge, draw in zip(edges, torch.rand(len(edges)), strict=True) if draw >= 0.4]
        assert 0 < len(kept) < len(edges)
        views.append([])
        for item in newest:
            sent = [(into[item][other], table[other]) for owner, other in kept if owner == item]
            whole = sum(count for count, _ in sent)
            views[-1].append(
                table[item] + sum((count * vector for count, vector in sent), torch.zeros(DIM)) / max(whole, 1)
            )
    total, masked = 0.0, 0
    for i, one in enumerate(newest):
        apart = [j for j, two in enumerate(newest) if i != j and not into[one][two] and not into[two][one]]
        masked += len(newest) - 1 - len(apart)
        logits = [slow.cosine(views[0][i], views[1][j]) / 0.3 for j in range(len(newest))]
        total -= log_share(logits[i], [logits[j] for j in apart]) / len(newest)
    torch.manual_seed(3)
    found = objective(encoder, BATCH)
    assert float(found["graph"].detach()) == pytest.approx(0.7 * total, rel=1e-4)
    assert masked and float(objective.observed["masked_share"]) == pytest.approx(
        masked / len(newest) / (len(newest) - 1)
    )
    found["graph"].backward()
    reached = encoder.item_embeddings().grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert set(newest) <= set(reached) <= {*newest, *(other for _, other in edges)}


def test_the_graph_of_items_knows_training_alone_and_no_step_from_user_to_user():
    objective = ItemGraph()
    objective.prepare(ENCODERS["SASRec"](), replace(TRAIN, ends=TRAIN.ends - 1))
    pairs = Counter()
    for begin, end in zip(TRAIN.offsets[:-1], TRAIN.ends - 1, strict=True):
        pairs.update(pairwise(TRAIN.items[begin:end].tolist()))
    found = {}
    for item in range(len(objective.starts) - 1):
        for edge in range(objective.starts[item], objective.starts[item + 1]):
            found[int(objective.others[edge]), item] = int(objective.counts[edge])
    assert found == dict(pairs)


@pytest.mark.parametrize("options", [{"rate": 1.0}, {"temperature": 0.0}, {"weight": -1.0}], ids=str)
def test_an_impossible_graph_of_items_is_refused_by_name(options):
    with pytest.raises(UserError, match=f"ItemGraph: {next(iter(options))}"):
        ItemGraph(**options)
