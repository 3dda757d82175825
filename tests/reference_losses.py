"""Slow, obvious versions of the losses: Python loops over float64 numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def cosine(a: Tensor, b: Tensor) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def softmax(states: Tensor, table: Tensor, targets: Sequence[int], smoothing: float = 0.0) -> float:
    total = 0.0
    for state, target in zip(states, targets, strict=True):
        logits = [dot(state, item) for item in table]
        norm = math.log(sum(math.exp(x) for x in logits))
        wanted = [smoothing / len(table) + (1 - smoothing) * (j == target) for j in range(len(table))]
        total -= sum(p * (x - norm) for p, x in zip(wanted, logits, strict=True))
    return total / len(states)


def distillation(states: Tensor, table: Tensor, wanted: Tensor, temperature: float = 1.0) -> float:
    total = 0.0
    for state, chances in zip(states, wanted.tolist(), strict=True):
        logits = [dot(state, item) / temperature for item in table]
        norm = math.log(sum(math.exp(x) for x in logits))
        total += sum(p * (math.log(p) - (x - norm)) for p, x in zip(chances, logits, strict=True) if p > 0)
    return total / len(states)


def each_positive(logits: Tensor, positives: Tensor, keep: Tensor | None = None) -> float:
    terms = []
    kept = [[True] * logits.shape[1]] * len(logits) if keep is None else keep.tolist()
    for row, marks, here in zip(logits.tolist(), positives.tolist(), kept, strict=True):
        below = sum(math.exp(x) for x, mark, one in zip(row, marks, here, strict=True) if one and not mark)
        terms += [-math.log(math.exp(x) / (math.exp(x) + below)) for x, mark in zip(row, marks, strict=True) if mark]
    return sum(terms) / max(len(terms), 1)


def sampled_softmax(
    states: Tensor,
    table: Tensor,
    targets: Sequence[int],
    negatives: Sequence[Sequence[int]],
    chance: Sequence[float] | None = None,
    correction: str = "negatives",
) -> float:
    total = 0.0
    for state, target, drawn in zip(states, targets, negatives, strict=True):
        expected = [share * len(drawn) for share in chance or [1 / len(table)] * len(table)]  # times that each is drawn
        above = math.exp(dot(state, table[target])) / (expected[target] if correction == "both" else 1)
        below = above + sum(math.exp(dot(state, table[j])) / expected[j] for j in drawn if j != target)
        total -= math.log(above / below)
    return total / len(states)


def gbce(
    states: Tensor, table: Tensor, targets: Sequence[int], negatives: Sequence[Sequence[int]], t: float = 0.75
) -> float:
    total = 0.0
    for state, target, drawn in zip(states, targets, negatives, strict=True):
        alpha = len(drawn) / (len(table) - 1)
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        total -= math.log(sigmoid(dot(state, table[target])) ** beta) / (len(drawn) + 1)
        total -= sum(math.log(1 - sigmoid(dot(state, table[j]))) for j in drawn if j != target) / (len(drawn) + 1)
    return total / len(states)


def bce(states: Tensor, table: Tensor, targets: Sequence[int], negatives: Sequence[Sequence[int]]) -> float:
    total = 0.0
    for state, target, drawn in zip(states, targets, negatives, strict=True):
        total -= math.log(sigmoid(dot(state, table[target]))) / (len(drawn) + 1)
        total -= sum(math.log(1 - sigmoid(dot(state, table[j]))) for j in drawn if j != target) / (len(drawn) + 1)
    return total / len(states)


def bpr(states: Tensor, table: Tensor, targets: Sequence[int], negatives: Sequence[Sequence[int]]) -> float:
    terms = []
    for state, target, drawn in zip(states, targets, negatives, strict=True):
        for j in drawn:
            gap = dot(state, table[target]) - dot(state, table[j])
            terms.append(-math.log(sigmoid(gap)) if j != target else 0.0)
    return sum(terms) / len(terms)


def contrast(
    logits: Tensor,
    positives: Tensor,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "out",
) -> float:
    terms = []
    for i in range(len(logits)):
        columns = range(logits.shape[1])
        mine = [j for j in columns if positives[i, j]]
        if not mine:
            continue
        below = 0.0
        for j in columns:
            if j in mine:
                below += math.exp(logits[i, j])
            elif keep is None or keep[i, j]:
                below += math.exp(logits[i, j]) * (1.0 if weights is None else float(weights[i, j]))
        shares = [math.exp(logits[i, j]) / below for j in mine]
        if reduction == "out":
            terms.append(-sum(math.log(share) for share in shares) / len(mine))
        else:
            terms.append(-math.log(sum(shares) / len(mine)))
    return sum(terms) / len(terms) if terms else 0.0


def corrected(logits: Tensor, positives: Tensor, keep: Tensor, hardness: float, prior: float, lowest: float) -> float:
    """The contrast with hard and debiased negatives, anchor by anchor (arXiv 2010.04592, algorithm 1)."""
    terms = []
    for i in range(len(logits)):
        mine = [float(x) for x, one in zip(logits[i], positives[i], strict=True) if one]
        others = [float(x) for x, one, kept in zip(logits[i], positives[i], keep[i], strict=True) if kept and not one]
        if not mine:
            continue
        against = 0.0
        if others:
            weights = [math.exp(hardness * x) for x in others]
            against = sum(w * math.exp(x) for w, x in zip(weights, others, strict=True)) / sum(weights)  # a mean
            against = (against - prior * sum(map(math.exp, mine)) / len(mine)) / (1 - prior)
            against = len(others) * max(against, math.exp(lowest))
        below = sum(map(math.exp, mine)) + against
        terms.append(-sum(math.log(math.exp(x) / below) for x in mine) / len(mine))
    return sum(terms) / len(terms)


def hard_mixes(
    query: Tensor, keys: list[Tensor], hardest: int, shares: Sequence[float], places: Sequence[Sequence[float]]
) -> list[np.ndarray]:
    """The mixes of one query and its negatives: a share and one or two places among the hardest, from 0 to 1, for each."""
    near = sorted(keys, key=lambda key: -dot(query, key))[:hardest]
    found = []
    for share, drawn in zip(shares, places, strict=True):
        *partner, key = [near[int(place * len(near))].numpy() for place in drawn]
        mix = share * (partner[0] if partner else query.numpy()) + (1 - share) * key
        found.append(mix / math.sqrt(sum(x * x for x in mix)))
    return found


def barlow(first: Tensor, second: Tensor, redundancy: float) -> float:
    """Channel by channel, with correlations from numpy."""
    width, total = first.shape[1], 0.0
    for i in range(width):
        for j in range(width):
            correlation = float(np.corrcoef(first[:, i], second[:, j])[0, 1])
            total += (1 - correlation) ** 2 if i == j else redundancy * correlation**2
    return total / width


def vicreg(first: Tensor, second: Tensor, variance: float, covariance: float) -> float:
    """Row by row and channel by channel, with covariances from numpy."""
    rows, width = first.shape
    total = sum(float(first[b, i] - second[b, i]) ** 2 for b in range(rows) for i in range(width)) / (rows * width)
    for view in (first, second):
        table = np.cov(view.numpy(), rowvar=False)
        total += variance / 2 * sum(max(0.0, 1 - math.sqrt(table[i, i] + 1e-4)) for i in range(width)) / width
        total += covariance * sum(table[i, j] ** 2 for i in range(width) for j in range(width) if i != j) / width
    return total


def nt_xent(first: Tensor, second: Tensor, temperature: float, same: Tensor | None = None, similarity=cosine) -> float:
    rows = len(first)
    views = [*first, *second]
    total = 0.0
    for i, anchor in enumerate(views):
        partner = (i + rows) % (2 * rows)
        below = 0.0
        for j, other in enumerate(views):
            false_negative = same is not None and bool(same[i % rows, j % rows])
            if j == partner or (j != i and not false_negative):
                below += math.exp(similarity(anchor, other) / temperature)
        total -= math.log(math.exp(similarity(anchor, views[partner]) / temperature) / below)
    return total / (2 * rows)


def alignment(first: Tensor, second: Tensor, power: float) -> float:
    gaps = [2 - 2 * cosine(a, b) for a, b in zip(first, second, strict=True)]
    return sum(gap ** (power / 2) for gap in gaps) / len(gaps)


def uniformity(states: Tensor, t: float, same: Tensor | None = None) -> float:
    rows = [(i, a) for i, a in enumerate(states)]
    pairs = [(a, b) for i, a in rows for j, b in rows if i != j and not (same is not None and same[i, j])]
    return math.log(sum(math.exp(-t * (2 - 2 * cosine(a, b))) for a, b in pairs) / len(pairs))


def cosine_gap(predicted: Tensor, target: Tensor) -> float:
    """Squared distance of the unit vectors, row by row."""
    gaps = [2 - 2 * cosine(one, two) for one, two in zip(predicted, target, strict=True)]
    return sum(gaps) / len(gaps)


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """Exponentials scaled by columns, then by rows, entry by entry."""
    codes = [[math.exp(float(score) / epsilon) for score in row] for row in scores]
    for _ in range(iterations):
        totals = [sum(row[k] for row in codes) for k in range(len(codes[0]))]
        codes = [[value / total for value, total in zip(row, totals, strict=True)] for row in codes]
        codes = [[value / sum(row) for value in row] for row in codes]
    return codes


def swapped(scores: Tensor, codes: Tensor, temperature: float) -> float:
    """Cross entropy with soft labels, entry by entry."""
    total = 0.0
    for row, code in zip(scores, codes, strict=True):
        norm = math.log(sum(math.exp(float(score) / temperature) for score in row))
        total -= sum(float(q) * (float(score) / temperature - norm) for q, score in zip(code, row, strict=True))
    return total / len(scores)


def triplet(anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float, keep: Tensor | None = None) -> float:
    """Every anchor with every of its positives and negatives."""
    total, count = 0.0, 0
    for row in range(len(anchors)):
        for near in positives[:, row]:
            for place, far in enumerate(negatives[:, row]):
                if keep is None or keep[place, row]:
                    one, two = (math.sqrt(max(0.0, 2 - 2 * cosine(anchors[row], other))) for other in (near, far))
                    total += max(0.0, one - two + margin)
                    count += 1
    return total / count


def cosine_margin(
    items: Tensor, positives: Tensor, negatives: Tensor, margin: float, keep: Tensor | None = None
) -> float:
    """Item by item."""
    rows = range(len(items))
    near = [1 - cosine(items[row], other) for row in rows for other in positives[:, row]]
    far = [
        max(0.0, cosine(items[row], other) - margin)
        for row in rows
        for place, other in enumerate(negatives[:, row])
        if keep is None or keep[place, row]
    ]
    return sum(near) / len(near) + sum(far) / len(far)


def margin_contrast(first: Tensor, second: Tensor, margin: float, same: Tensor) -> float:
    """Pair by pair (Hadsell et al., CVPR 2006, eq. 4), distances from cosines."""
    rows, near, far = len(first), [], []
    views = [*first, *second]
    for i, one in enumerate(views):
        for j, two in enumerate(views):
            gap = max(0.0, 2 - 2 * cosine(one, two))
            if abs(i - j) == rows:
                near.append(gap)
            elif not same[i % rows, j % rows]:
                far.append(max(0.0, margin - math.sqrt(gap)) ** 2)
    return sum(near) / len(near) / 2 + (sum(far) / len(far) / 2 if far else 0.0)


def spreading(rows: Tensor, views: Tensor, temperature: float, same: Tensor) -> float:
    """Row by row (arXiv 1904.03436, section 3.2): products of probabilities, their logarithm in the end."""

    def chance(of: int, shown: Tensor, place: int) -> float:
        among = [k for k in range(len(rows)) if k == place or not same[k, place]]
        below = sum(math.exp(cosine(rows[k], shown) / temperature) for k in among)
        return math.exp(cosine(rows[of], shown) / temperature) / below

    total = 0.0
    for i in range(len(rows)):
        likely = chance(i, views[i], i)
        for j in range(len(rows)):
            if i != j and not same[i, j]:
                likely *= 1 - chance(i, rows[j], j)
        total -= math.log(likely)
    return total / len(rows)


def view_regularizer(first: Tensor, second: Tensor, same: Tensor, similarity=cosine) -> float:
    """The regulariser of MCLRec, pair by pair: partners above, and other rows below, the place where they meet."""
    above, below, pairs = 0.0, 0.0, 0
    for i, anchor in enumerate(first):
        own = similarity(anchor, second[i])
        others = [similarity(anchor, other) for j, other in enumerate(second) if not same[i, j]]
        if others:
            above += max(0.0, own - min(own, max(others)))
            below += sum(max(0.0, max(own, *others) - other) for other in others)
            pairs += len(others)
    return above / len(first) + below / max(pairs, 1)


def mixture(queries: Tensor, keys: Tensor, gate: Tensor, temperature: float, same: Tensor) -> float:
    """Row by row and expert by expert, in probabilities."""
    rows, experts, _ = queries.shape
    total = 0.0
    for i in range(rows):
        chances = [math.exp(float(x)) for x in gate[i]]
        likely = 0.0
        for z in range(experts):
            scores = [math.exp(dot(queries[i, z], keys[j, z]) / temperature) for j in range(rows)]
            among = sum(scores[j] for j in range(rows) if j == i or not same[i, j])
            likely += chances[z] / sum(chances) * scores[i] / among
        total -= math.log(likely)
    return total / rows
