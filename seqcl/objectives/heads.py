"""Projection heads, between the state that is kept and the vector that is contrasted."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.errors import check_choice

Head = Literal["none", "linear", "mlp", "mlp_bn"]


class RowsNorm(nn.BatchNorm1d):
    """Batch norm that normalises a single row, which has no variance, by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def projection(kind: Head, dim: int) -> nn.Module:
    """Build a map (B, D) -> (B, D): identity, one linear layer, or two with ReLU between (SimCLR, arXiv 2002.05709).

    mlp_bn has batch norm before the ReLU (BYOL, arXiv 2006.07733, section 3.3). The map belongs to the objective: it is
    dropped when the encoder is used.
    """
    check_choice("head", kind, Head)
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, dim, bias=False)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
    return nn.Sequential(nn.Linear(dim, dim, bias=False), RowsNorm(dim), nn.ReLU(), nn.Linear(dim, dim))
