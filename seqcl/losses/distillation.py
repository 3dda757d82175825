"""Distillation: a student's softmax over all items towards a teacher's, a chunk of positions at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqcl.losses.given import check_above_zero
from seqcl.losses.softmax import BLOCK_BYTES, at_once

Chances = Callable[[slice], Tensor]
"""A teacher's chances of all N items for some of the positions: (C, N), which add up to 1."""


def distillation(
    states: Tensor, table: Tensor, teacher: Chances, *, temperature: float = 1.0, chunk: int | None = None
) -> Tensor:
    """Mean over positions of the divergence KL(teacher, student), the student being softmax(states @ table.T / temperature).

    Source: SimCLR v2, arXiv 2006.10029, eq. 2. Differs from the paper, whose cross-entropy is larger by the entropy of the
    teacher: the gradient is the same, and a student that equals its teacher has 0. No factor of the temperature squared.

    The gradient is taken in the forward pass, so that logits and chances of `chunk` positions exist at one time.

    Args:
        states: (T, D).
        table: (N, D).
        teacher: gives the chances at that temperature, of the positions in a slice of 0 to T.
        temperature: Divisor of the student's scores.
        chunk: Positions at one time; None takes as many as `softmax` does.
    """
    check_above_zero("distillation", temperature=temperature)
    kind = states.device.type
    with torch.autocast(kind, enabled=False):
        wide = torch.promote_types(states.dtype, torch.float32)
        states, table = states.to(wide) / temperature, table.to(wide)
        chunk = chunk or max(128, BLOCK_BYTES // (wide.itemsize * len(table)))  # teachers need as much again, each
        gradient = torch.is_grad_enabled() and (states.requires_grad or table.requires_grad)
        return _Distillation.apply(states, table, teacher, chunk, gradient)


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, teacher: Chances, chunk: int, gradient: bool) -> Tensor:
        total = max(len(states), 1)
        loss, grad_states, grad_table = states.new_zeros(()), torch.zeros_like(states), torch.zeros_like(table)
        for start in range(0, len(states), chunk):
            part = slice(start, min(start + chunk, len(states)))
            wanted = teacher(part).to(states)  # (C, N)
            log_own = (states[part] @ table.T).log_softmax(1)  # (C, N)
            loss += torch.xlogy(wanted, wanted).sum() - (wanted * log_own).sum()
            if gradient:
                gap = log_own.exp_().sub_(wanted).div_(total)
                grad_states[part] = gap @ table
                grad_table.addmm_(gap.T, states[part])
        ctx.save_for_backward(grad_states, grad_table)
        return loss / total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        return grad_states * scale, grad_table * scale, None, None, None


def kept_distillation(
    states: Tensor, table: Tensor, items: Tensor, chances: Tensor, *, temperature: float = 1.0, chunk: int | None = None
) -> Tensor:
    """The same where a teacher gives chances to K items of each position and none to the others.

    Args:
        states: (T, D).
        table: (N, D).
        items: (T, K) rows of the table.
        chances: (T, K), at that temperature; those of a position add up to 1.
        temperature: Divisor of the student's scores.
        chunk: Positions at one time; None takes as many as `softmax` does.
    """
    check_above_zero("kept_distillation", temperature=temperature)
    with torch.autocast(states.device.type, enabled=False):
        wide = torch.promote_types(states.dtype, torch.float32)
        states, table, chances = states.to(wide) / temperature, table.to(wide), chances.to(wide)
        chunk = chunk or at_once(states.device, wide.itemsize * len(table))
        gradient = torch.is_grad_enabled() and (states.requires_grad or table.requires_grad)
        return _KeptDistillation.apply(states, table, items, chances, chunk, gradient)


class _KeptDistillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, items: Tensor, chances: Tensor, chunk: int, gradient: bool
    ) -> Tensor:
        total = max(len(states), 1)
        grad_states, grad_table = torch.zeros_like(states), torch.zeros_like(table)
        loss = torch.xlogy(chances, chances).sum()
        block = states.new_empty(min(chunk, total), len(table))  # (C, N), the only logits there are
        for start in range(0, len(states), chunk):
            part = slice(start, min(start + chunk, len(states)))
            logits = torch.mm(states[part], table.T, out=block[: len(states[part])])
            norm = logits.logsumexp(1, keepdim=True)
            loss -= (chances[part] * (logits.gather(1, items[part]) - norm)).sum()
            if gradient:
                gap = logits.sub_(norm).exp_().scatter_add_(1, items[part], -chances[part]).div_(total)
                torch.mm(gap, table, out=grad_states[part])
                grad_table.addmm_(gap.T, states[part])
        ctx.save_for_backward(grad_states, grad_table)
        return loss / total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        return grad_states * scale, grad_table * scale, None, None, None, None
