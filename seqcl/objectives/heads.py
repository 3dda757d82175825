"""Projection heads: between the state that is kept and the vector that is contrasted."""

from __future__ import annotations

from typing import Literal

from torch import nn

from seqcl.errors import unknown

Head = Literal["none", "linear", "mlp"]


def projection(kind: Head, dim: int) -> nn.Module:
    """A map (B, D) -> (B, D): the identity, one linear layer, or two with ReLU between (SimCLR, arXiv 2002.05709).

    It belongs to the objective, so that nothing of it is left when the encoder is used.
    Differs from the paper's code: no batch norm.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, dim, bias=False)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
    raise unknown("head", kind, ("none", "linear", "mlp"))
