"""Softmax of the target among itself and some drawn items.

Shared negatives go through the chunks of `softmax.py`, with the target as one more column. This takes 22 ms; cross entropy
of concatenated logits takes 61 (1,770 positions, 2,048 negatives, D = 64, float32, value and gradients, one thread of an
AMD EPYC, best of 15 in one run). Under autocast logits are concatenated all the same.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqcl.errors import check_choice
from seqcl.losses.given import check_positions
from seqcl.losses.next_item import mean_of, scores
from seqcl.losses.softmax import at_once, divisor, walk
from seqcl.shapes import fixed

Correction = Literal["negatives", "both"]


def sampled_softmax(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    log_q: Tensor | None = None,
    correction: Correction = "negatives",
    real: Tensor | None = None,
) -> Tensor:
    """Cross entropy of the target among itself and K drawn items, corrected for the chance to be drawn.

    "negatives" divides exp(j) of a drawn item by its expected count K q_j, so that the sum estimates the denominator of the
    full softmax. The target is there for certain, so its logit stays (Bengio and Senecal, AISTATS 2003;
    arXiv 2507.09331). "both" takes log q off the target's logit too (Yi et al., RecSys 2019, eq. 4). Its optimum is that of
    the full softmax for any K, but its gradient soon vanishes, as the target competes with K items and not with all.
    A negative that is the position's own target is left out.

    Args:
        states: (T, D).
        table: (N, D).
        targets: (T,) rows of the table.
        negatives: (K,), shared by all positions, or (T, K) rows of the table.
        log_q: (N,) log of the chance of each item at each draw; None for a uniform draw.
        correction: negatives or both.
        real: (T,) bool, False where a position only fills the shape and counts for nothing.

    Raises:
        UserError: another correction, no negative, or shapes that do not fit each other.
    """
    check_choice("correction", correction, Correction)
    check_positions("sampled_softmax", states, targets, negatives)
    if log_q is None:
        log_q = torch.full_like(
            table[:, 0], -math.log(len(table)), dtype=torch.promote_types(table.dtype, torch.float32)
        )
    drawn = negatives.shape[-1]
    gain = math.log(drawn) if correction == "negatives" else -log_q[targets]  # of the target's logit
    if negatives.dim() == 1 and not torch.is_autocast_enabled(states.device.type):
        return _shared(states, table, targets, negatives, log_q, gain, real)
    positive, negative, hit = scores(states, table, targets, negatives)
    negative = (negative - log_q[negatives]).masked_fill(hit, -torch.inf)
    logits = torch.cat(((positive + gain)[:, None], negative), 1)  # (T, 1 + K)
    return mean_of(logits.logsumexp(1) - logits[:, 0], real)


def _shared(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    drawn: Tensor,
    log_q: Tensor,
    gain: Tensor | float,
    real: Tensor | None,
) -> Tensor:
    wide = torch.promote_types(states.dtype, torch.float32)
    states, table = states.to(wide), table.to(wide)
    targets = targets.contiguous()
    drawn = drawn.sort().values  # (K,): the columns of an item that was drawn several times are neighbours
    first = torch.searchsorted(drawn, targets)  # (T,), the first column that is the target
    hits = torch.searchsorted(drawn, targets, right=True) - first  # (T,), how many are
    positive = (states * F.embedding(targets, table)).sum(1) + gain  # (T,)
    rows = F.pad(F.embedding(drawn, table), (0, 0, 0, 1))  # (K + 1, D): the last column's logit is `positive`
    positive, offset = positive.to(wide), -log_q[drawn].to(wide)
    gradient = torch.is_grad_enabled() and positive.requires_grad
    return _Shared.apply(states, rows, positive, offset, first, hits, gradient, divisor(states, real))


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        rows: Tensor,
        positive: Tensor,
        offset: Tensor,
        first: Tensor,
        hits: Tensor,
        gradient: bool,
        total: int | Tensor,
    ) -> Tensor:
        def adjust(part: slice | Tensor, logits: Tensor) -> None:
            logits[:, :-1] += offset
            logits[:, -1] = positive[part]
            here = hits[part]  # (C,)
            if fixed():
                column, begin = torch.arange(logits.shape[1], device=here.device), first[part][:, None]
                logits.masked_fill_((column >= begin) & (column < begin + here[:, None]), -torch.inf)
                return
            position = torch.arange(len(here), device=here.device).repeat_interleave(here)
            nth = torch.arange(len(position), device=here.device) - (here.cumsum(0) - here)[position]
            logits[position, first[part][position] + nth] = -torch.inf

        last = torch.full_like(first, len(rows) - 1)
        loss, chances, *gradients = walk(
            states,
            rows,
            last,
            chunk=at_once(states.device, states.itemsize * len(rows)),
            operands=states.dtype,
            gradient=gradient,
            total=total,
            adjust=adjust,
        )
        ctx.save_for_backward(*gradients, (chances - 1) / (total if isinstance(total, int) else total[:, 0]))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None, None]:
        grad_states, grad_rows, grad_positive = ctx.saved_tensors
        return grad_states * scale, grad_rows * scale, grad_positive * scale, None, None, None, None, None
