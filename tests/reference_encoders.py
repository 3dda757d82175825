"""Slow, obvious versions of what the encoders compute."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relative_attention(attention, x: Tensor, place: int, *, stop: int | None = None) -> Tensor:
    """The output of the query at `place` of one row x (L, D) over the places before `stop` (Shaw et al., arXiv 1803.02155, eq. 3 and 4): (D,)."""
    width, read = attention.width, []
    query = attention.query(x)
    key, value = attention.key_value(x).chunk(2, dim=-1)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        scores = []
        for other in range(stop or place + 1):
            far = attention.far_key[head, abs(place - other)]
            scores.append(query[place, part] @ (key[other, part] + far) / math.sqrt(width))
        weights = torch.stack(scores).softmax(0)
        values = [value[other, part] + attention.far_value[head, abs(place - other)] for other in range(len(scores))]
        read.append(sum(weight * vector for weight, vector in zip(weights, values, strict=True)))
    return attention.output(torch.cat(read))


def hstu_block(block, x: Tensor, place: int) -> Tensor:
    """The output of a block at `place` of one row x (L, D) (arXiv 2402.17152, eq. 1 to 3): (D,)."""

    def silu(value: Tensor) -> Tensor:
        return value / (1 + torch.exp(-value))

    dim = x.shape[1]
    width = dim // block.heads
    normed = [block.input_norm(vector) for vector in x]
    gate, query = silu(block.gate_query(normed[place])).split(dim)
    read = []
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        total = torch.zeros(width, dtype=x.dtype)
        for other in range(place + 1):
            key, value = silu(block.key_value(normed[other])).split(dim)
            weight = silu(query[part] @ key[part] + block.far_bias[head, place - other])
            total = total + weight / block.far_bias.shape[1] * value[part]
        read.append(total)
    return x[place] + block.output(block.read_norm(torch.cat(read)) * gate)


def narm(encoder, items: list[int]) -> Tensor:
    """The state after the last of `items`, by a weight for every item (arXiv 1711.04725): (D,)."""
    hidden = encoder.gru(encoder.table.weight[items][None])[0][0]  # (L, H)
    attention = encoder.attention
    scores = []
    for other in range(len(items)):
        pair = attention.query.weight @ hidden[-1] + attention.key.weight @ hidden[other]
        scores.append(attention.score.weight[0] @ (1 / (1 + torch.exp(-pair))))
    weights = [torch.exp(score) / sum(torch.exp(each) for each in scores) for score in scores]
    local = sum(weight * vector for weight, vector in zip(weights, hidden, strict=True))
    return encoder.output.weight @ torch.cat((hidden[-1], local))
