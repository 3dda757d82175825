"""Projection heads, between the state that is kept and the vector that is contrasted."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.errors import check_choice, positive

Head = Literal["none", "linear", "mlp", "mlp_bn", "mlp3"]


class RowsNorm(nn.BatchNorm1d):
    """Batch norm that normalises a single row, which has no variance, by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def projection(kind: Head, dim: int, width: int | None = None) -> nn.Module:
    """Build a map (B, dim) -> (B, width): identity, one linear layer, or two with ReLU between (SimCLR, arXiv 2002.05709).

    mlp_bn has batch norm before the ReLU (BYOL, arXiv 2006.07733, section 3.3). mlp3 has three layers (SimCLR v2, arXiv
    2006.10029, section 2). The map belongs to the objective: it is dropped when the encoder is used.

    Args:
        kind: none keeps states as they are, whatever the width.
        dim: of the states.
        width: of the vectors and of the layers between; dim if None.

    Raises:
        UserError: an unknown kind, or a width below 1.
    """
    check_choice("head", kind, Head)
    width = dim if width is None else width
    positive("head", width=width)
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, width, bias=False)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
    if kind == "mlp3":
        first, second = nn.Linear(dim, width), nn.Linear(width, width)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(width, width))
    return nn.Sequential(nn.Linear(dim, width, bias=False), RowsNorm(width), nn.ReLU(), nn.Linear(width, width))
