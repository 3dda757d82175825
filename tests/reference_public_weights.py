"""The forward pass and the ranking of S3-Rec's code, one row and one number at a time, from weights by its names."""

from __future__ import annotations

import math

import numpy as np


def layer_norm(x, weights, name):
    """Mean 0 and variance 1, with 1e-12 under the root."""
    spread = math.sqrt(((x - x.mean()) ** 2).mean() + 1e-12)
    return weights[f"{name}.weight"] * (x - x.mean()) / spread + weights[f"{name}.bias"]


def linear(x, weights, name):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def gelu(x):
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def state(weights, items, *, heads, front=True):
    """The state at the newest of `items` in a row padded to its full length, in front or behind: (D,)."""
    length = len(weights["position_embeddings.weight"])
    items = list(items)[-length:]
    padding = [0] * (length - len(items))
    row, newest = (padding + items, length - 1) if front else (items + padding, len(items) - 1)
    x = [
        layer_norm(weights["item_embeddings.weight"][item] + weights["position_embeddings.weight"][place], weights, "LayerNorm")
        for place, item in enumerate(row)
    ]  # fmt: skip
    layer = 0
    while f"item_encoder.layer.{layer}.attention.query.weight" in weights:
        x = [block(x, row, place, weights, f"item_encoder.layer.{layer}", heads) for place in range(length)]
        layer += 1
    return x[newest]


def block(x, row, place, weights, name, heads):
    """The output of a block at one place: attention to itself and what is before it, padding at -10,000."""
    query = linear(x[place], weights, f"{name}.attention.query")
    keys = [linear(other, weights, f"{name}.attention.key") for other in x]
    values = [linear(other, weights, f"{name}.attention.value") for other in x]
    width, read = len(query) // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = []
        for other in range(len(x)):
            hidden = row[other] == 0 or other > place
            scores.append(query[part] @ keys[other][part] / math.sqrt(width) - 10000 * hidden)
        shares = [math.exp(score - max(scores)) for score in scores]
        read.append(sum(share / sum(shares) * value[part] for share, value in zip(shares, values, strict=True)))
    read = linear(np.concatenate(read), weights, f"{name}.attention.dense")
    x = layer_norm(read + x[place], weights, f"{name}.attention.LayerNorm")
    wide = gelu(linear(x, weights, f"{name}.intermediate.dense_1"))
    return layer_norm(
        linear(wide, weights, f"{name}.intermediate.dense_2") + x, weights, f"{name}.intermediate.LayerNorm"
    )


def rank(weights, items, target, *, seen, heads, front=True):
    """1 + the number of other candidates that score at least as much as the target, after `items`.

    Args:
        weights: by S3-Rec's names; the last row of the items is the MASK.
        items: all that the user has, oldest first.
        target: an item.
        seen: exclude, keep, or zero: seen items score 0, and padding and MASK are candidates too.
        heads: attention heads.
        front: true if rows are padded in front.
    """
    table = weights["item_embeddings.weight"]
    scores = table @ state(weights, items, heads=heads, front=front)
    if seen != "keep":
        for item in items:
            scores[item] = 0 if seen == "zero" else -math.inf
    above = 0
    for other in range(len(table)):
        if other != target and (seen == "zero" or 0 < other < len(table) - 1):
            above += scores[other] >= scores[target]
    return 1 + above
