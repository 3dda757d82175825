"""Full softmax over the catalogue in chunks: the logits of all positions never exist at once.

Cost of value and both gradients, D = 64, milliseconds on two cores of an AMD EPYC 9004 with other work going on (square
products of 1024: 145 to 190 GFLOP/s in float32 on two threads, so 7 GFLOP take 37 to 48 ms and that is the floor of the
first column). Plain cross entropy takes 176 ms for the first column, under autocast 171.

    positions T x items N      1,500 x 12,101   6,000 x 12,101   1,500 x 60,000   6,000 x 60,000
    float32, two threads             64              380              430            1,625
    float32, one thread             107              475              750
    bfloat16, two threads            42              183              250            1,000
    bfloat16, one thread             75                               475

What was tried: torch.softmax in place is three times as fast as exp_ with amax, sub and sum around it. Rows of logits that
start on a cache line: 64 against 73 ms on two threads, 107 against 157 on one. Items by positions, the transposed layout:
the same speed, but softmax over the first dimension sums 60,000 terms one by one and misses 1e-5. Tiles of 512 to 2,048
items that stay in the second-level cache, joined by their log sums: 69 to 85 ms, more calls than the cache saves.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = 12 * 2**20
"""Logits that exist at one time, in bytes, but at least 128 positions; twice the block takes up to 50 % longer in bfloat16."""

ALIGN = 32
"""Columns of logits are filled up to a multiple of this: rows that start on a cache line multiply faster."""

RARE = 1e-30
"""A target less likely than this has its loss taken from its logits, because the probability loses its digits."""


def softmax(
    states: Tensor, table: Tensor, targets: Tensor, *, smoothing: float = 0.0, chunk: int | None = None
) -> Tensor:
    """Mean cross entropy of states @ table.T, in value and gradient equal to the plain one to 1e-5 in float32.

    The gradient is taken in the forward pass, chunk by chunk: every logit is computed once and memory is chunk * N.
    Operands are bfloat16 where autocast to bfloat16 is on; gradients are summed in float32 all the same.

    Args:
        states: (T, D).
        table: (N, D).
        targets: (T,) rows of the table.
        smoothing: Share of the target distribution that is spread evenly over all items (arXiv 1512.00567, section 7).
        chunk: Positions whose logits exist at one time; None takes what was measured best.
    """
    kind = states.device.type
    low = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    wide = torch.promote_types(states.dtype, torch.float32)
    gradient = torch.is_grad_enabled() and (states.requires_grad or table.requires_grad)
    with torch.autocast(kind, enabled=False):
        states, table = states.to(wide), table.to(wide)
        operands = torch.bfloat16 if low else wide
        chunk = chunk or max(128, BLOCK_BYTES // (operands.itemsize * len(table)))
        loss = _Softmax.apply(states, table, targets, chunk, operands, gradient)
        if smoothing:
            # The two losses differ by a term linear in the logits, whose mean over items needs no logits at all.
            gap = F.embedding(targets, table) - table.mean(0)  # (T, D)
            loss = loss + smoothing * (states * gap).sum() / max(len(states), 1)
    return loss


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, targets: Tensor, chunk: int, operands: torch.dtype, gradient: bool
    ) -> Tensor:
        loss, *gradients = walk(states, table, targets, chunk=chunk, operands=operands, gradient=gradient)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        return grad_states * scale, grad_table * scale, None, None, None, None


def walk(
    states: Tensor, table: Tensor, targets: Tensor, *, chunk: int, operands: torch.dtype, gradient: bool
) -> list[Tensor]:
    """The mean loss and, with `gradient`, its gradients by states (T, D) and table (N, D)."""
    size, items, total = len(states), len(table), max(len(states), 1)
    exact = operands == states.dtype
    width = -(-items // ALIGN) * ALIGN  # M
    low_states = states.to(operands)  # (T, D)
    low_table = F.pad(table.to(operands), (0, 0, 0, width - items))  # (M, D)
    scaled = low_states / total  # (T, D), so that the table's gradient is the mean's
    block = states.new_empty(min(chunk, total), width, dtype=operands)  # (C, M), the only logits there are
    one = block.new_full((len(block), 1), -1.0)
    chances = states.new_empty(size, 1)  # (T, 1), of the targets
    grad_states = torch.empty_like(states) if gradient else states
    grad_table = table.new_zeros(width, table.shape[1]) if gradient else table  # (M, D)
    for start in range(0, size, chunk):
        part = slice(start, min(start + chunk, size))
        target = targets[part, None]  # (C, 1)
        share = block[: len(target)]
        torch.mm(low_states[part], low_table.T, out=share)
        share[:, items:] = -torch.inf
        torch.softmax(share, 1, out=share)  # in one pass through the cache, three times as fast as amax, sub, exp, sum
        chances[part] = share.gather(1, target)
        if gradient:
            share.scatter_add_(1, target, one[: len(target)])
            if exact:
                torch.mm(share, low_table, out=grad_states[part])
                grad_table.addmm_(share.T, scaled[part])
            else:
                grad_states[part] = share @ low_table
                grad_table += share.T @ scaled[part]
    losses = -chances[:, 0].log()
    rare = (chances[:, 0] < RARE).nonzero()[:, 0]
    for rows in rare.split(chunk):
        logits = states[rows] @ table.T  # (C, N)
        losses[rows] = logits.logsumexp(1) - logits.gather(1, targets[rows, None])[:, 0]
    loss = losses.sum() / total
    return [loss, grad_states / total, grad_table[:items]] if gradient else [loss]
