"""Full softmax over the catalogue in chunks: logits take 12 MiB, or 128 positions, however many positions there are.

Cost of value and both gradients, D = 64, best of several calls in milliseconds, on two cores of an AMD EPYC 9004 shared
with other work. The floor is 6 T N D operations at the rate at which float32 matrices of 1024 x 1024 were multiplied in
the same minutes: 90 GFLOP/s on one thread; on two 190 for the first column and 145 for the others. Plain cross entropy
takes 176 ms where this takes 72 to 90.

    positions T x items N      1,500 x 12,101   6,000 x 12,101   1,500 x 60,000   6,000 x 60,000
    float32, two threads             62              327              424            1,625
    float32, one thread             118              453              593            2,311
    bfloat16, two threads            42              183              267            1,038
    bfloat16, one thread             72              288              393            1,869
    floor, two threads / one      37 / 77        190 / 310        240 / 384        960 / 1,540

What was tried on the first column, each against its rival in one run: torch.softmax in place takes 0.45 times what
amax, sub, exp, sum and div do. Rows of logits that start on a cache line: 64 against 73 ms on two threads, 107 against
157 on one. Items by positions, the transposed layout: as fast, but softmax over the first dimension adds 60,000 terms
one by one and misses 1e-5. Tiles of items that stay in the second-level cache, joined by their log sums: 69 to 85
against 66 ms. Chunks of 64 positions: 131 against 93 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqcl import shapes
from seqcl.blocks import ALIGN
from seqcl.losses.given import check_positions, check_share

BLOCK_BYTES = 12 * 2**20
"""Logits that exist at one time, in bytes, but at least 128 positions; 30 MB take 30 % longer than 15 in bfloat16."""
GPU_BLOCK_BYTES = 2**30
"""The same on a GPU, which wants few and large products."""

RARE = 1e-30
"""A target less likely than this has its loss taken from its logits, because the probability loses its digits."""


def softmax(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    chunk: int | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy of states @ table.T, in value and gradient equal to the plain one to 1e-5 in float32.

    The gradient is taken in the forward pass, chunk by chunk: every logit is computed once and memory is chunk * N.
    Operands are bfloat16 where autocast to bfloat16 is on; gradients are summed in float32 all the same.

    Args:
        states: (T, D).
        table: (N, D).
        targets: (T,) rows of the table.
        smoothing: Part of the target distribution to spread evenly over all items (arXiv 1512.00567, section 7).
        chunk: Positions whose logits exist at one time; None takes the value that was measured best.
        real: (T,) bool, False where a position only fills the shape and counts for nothing.

    Raises:
        UserError: states and targets differ in their number, or smoothing is outside 0 to 1.
    """
    check_positions("softmax", states, targets)
    check_share("softmax", smoothing=smoothing)
    kind = states.device.type
    low = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    wide = torch.promote_types(states.dtype, torch.float32)
    gradient = torch.is_grad_enabled() and (states.requires_grad or table.requires_grad)
    with torch.autocast(kind, enabled=False):
        states, table = states.to(wide), table.to(wide)
        operands = torch.bfloat16 if low else wide
        chunk = chunk or at_once(states.device, operands.itemsize * len(table))
        total = divisor(states, real)
        loss = _Softmax.apply(states, table, targets, chunk, operands, gradient, total)
        if smoothing:
            # The two losses differ by a term linear in the logits, whose mean over items needs no logits at all.
            gap = F.embedding(targets, table) - table.mean(0)  # (T, D)
            loss = loss + smoothing * over(states * gap, total)
    return loss


def at_once(device: torch.device, row_bytes: int) -> int:
    """Positions whose logits, of so many bytes each, exist at one time."""
    return max(128, (BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES) // row_bytes)


def divisor(states: Tensor, real: Tensor | None) -> int | Tensor:
    """The number that makes a mean of sums over positions: T; or (T, 1) with the number of real ones, and infinity where one is not."""
    if real is None:
        return max(len(states), 1)
    return torch.where(real, real.sum().clamp(min=1).to(states.dtype), torch.inf)[:, None]


def over(values: Tensor, total: int | Tensor) -> Tensor:
    """The mean over positions of values (T,) or (T, D), those of a position added up; see `divisor`."""
    if isinstance(total, int):
        return values.sum() / total
    return (values / (total if values.dim() == 2 else total[:, 0])).sum()


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        chunk: int,
        operands: torch.dtype,
        gradient: bool,
        total: int | Tensor,
    ) -> Tensor:
        loss, _, *gradients = walk(
            states, table, targets, chunk=chunk, operands=operands, gradient=gradient, total=total
        )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        return grad_states * scale, grad_table * scale, None, None, None, None, None


def walk(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    chunk: int,
    operands: torch.dtype,
    gradient: bool,
    total: int | Tensor,
    adjust: Callable[[slice | Tensor, Tensor], None] | None = None,
) -> list[Tensor]:
    """The mean loss, the targets' probabilities (T,) and, with `gradient`, the loss's gradients by states and table.

    Args:
        states: (T, D).
        table: (N, D).
        targets: (T,) rows of the table.
        chunk: Positions whose logits exist at one time.
        operands: Type of the operands: that of the states, or bfloat16.
        gradient: Also return the gradients.
        total: As `divisor` makes it.
        adjust: Turns products (C, N) of some positions, a slice or (C,), into their logits, in place.
    """
    size, items, fixed = len(states), len(table), shapes.fixed()
    exact = operands == states.dtype
    width = -(-items // ALIGN) * ALIGN  # M
    low_states = states.to(operands)  # (T, D)
    low_table = F.pad(table.to(operands), (0, 0, 0, width - items))  # (M, D)
    scaled = (low_states / total).to(operands)  # (T, D), so that the table's gradient is the mean's
    block = states.new_empty(min(chunk, max(size, 1)), width, dtype=operands)  # (C, M), the only logits there are
    one = block.new_full((len(block), 1), -1.0)
    chances = states.new_empty(size, 1)  # (T, 1), of the targets
    exact_losses = torch.empty_like(chances) if fixed else chances  # (T, 1)
    grad_states = torch.empty_like(states) if gradient else states
    grad_table = table.new_zeros(width, table.shape[1]) if gradient else table  # (M, D)
    for start in range(0, size, chunk):
        part = slice(start, min(start + chunk, size))
        target = targets[part, None]  # (C, 1)
        share = block[: len(target)]
        torch.mm(low_states[part], low_table.T, out=share)
        if adjust:
            adjust(part, share[:, :items])
        share[:, items:] = -torch.inf
        if fixed:
            exact_losses[part] = share.logsumexp(1, keepdim=True) - share.gather(1, target)
        torch.softmax(share, 1, out=share)
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
    if fixed:  # the search for rare targets would wait for the device
        losses = torch.where(chances < RARE, exact_losses, losses[:, None])[:, 0]
    for rows in () if fixed else (chances[:, 0] < RARE).nonzero()[:, 0].split(chunk):
        logits = states[rows] @ table.T  # (C, N)
        if adjust:
            adjust(rows, logits)
        losses[rows] = logits.logsumexp(1) - logits.gather(1, targets[rows, None])[:, 0]
    loss = over(losses, total)
    return [loss, chances[:, 0], *((grad_states / total, grad_table[:items]) if gradient else ())]
