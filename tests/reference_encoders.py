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


def bsarec(encoder, items: list[int], *, alpha: float, cutoff: int) -> Tensor:
    """The state of one row, padded in front, by sums over frequencies and places (arXiv 2312.10325, section 4): (D,)."""
    length, pad = encoder.max_len, encoder.max_len - len(items)
    table, places = encoder.table.weight, encoder.place
    x = [encoder.embed_norm(table[item] + places[t]) for t, item in enumerate([0] * pad + items)]
    for block in encoder.blocks:
        low = []
        for t in range(length):
            total = torch.zeros_like(x[0])
            for k in range(length):
                if min(k, length - k) <= cutoff // 2:  # a frequency and its mirror
                    angles = [2 * math.pi * k * (t - s) / length for s in range(length)]
                    total = total + sum(math.cos(angle) * x[s] for s, angle in enumerate(angles)) / length
            low.append(total)
        beta = block.filter.beta_root**2
        smooth = [block.filter_norm(x[t] + low[t] + beta * (x[t] - low[t])) for t in range(length)]
        attention, read = block.attention, []
        asked = [attention.query(vector) for vector in x]
        known = [attention.key_value(vector).chunk(2) for vector in x]
        for t in range(length):
            seen = [s for s in range(pad, t + 1)] or list(range(length))  # a place of padding sees everything
            heads = []
            for part in torch.arange(len(x[0])).chunk(attention.heads):
                scores = [asked[t][part] @ known[s][0][part] / math.sqrt(len(part)) for s in seen]
                weights = torch.stack(scores).softmax(0)
                heads.append(sum(weight * known[s][1][part] for weight, s in zip(weights, seen, strict=True)))
            read.append(block.attention_norm(x[t] + attention.output(torch.cat(heads))))
        mixed = [alpha * one + (1 - alpha) * two for one, two in zip(smooth, read, strict=True)]
        x = []
        for vector in mixed:
            wide = block.widen(vector)
            gelu = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
            x.append(block.feed_norm(vector + block.narrow(gelu)))
    return x[-1]
