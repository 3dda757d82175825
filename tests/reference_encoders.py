"""Slow, obvious versions of what the encoders compute."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relative_attention(attention, x: Tensor, place: int) -> Tensor:
    """What the query at `place` of one row x (L, D) reads (Shaw et al., arXiv 1803.02155, eq. 3 and 4): (D,)."""
    width, read = attention.width, []
    query = attention.query(x)
    key, value = attention.key_value(x).chunk(2, dim=-1)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        scores = []
        for other in range(place + 1):
            far = attention.far_key[head, place - other]
            scores.append(query[place, part] @ (key[other, part] + far) / math.sqrt(width))
        weights = torch.stack(scores).softmax(0)
        values = [value[other, part] + attention.far_value[head, place - other] for other in range(place + 1)]
        read.append(sum(weight * vector for weight, vector in zip(weights, values, strict=True)))
    return attention.output(torch.cat(read))
