"""Tensors of several processes together: rows of all, means, sums and gradients; and draws that each makes for itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from seqcl.processes.group import check_same, count, most, number, talking

BUCKET = 16 * 2**20
"""Bytes of gradients that are sent as one piece."""


class Counts:
    """Count what this process has done so far.

    Attributes:
        payload: bytes of tensors handed over.
        draws: times that `own_draws` was entered: with the seed and the number of the process, the source of what it draws there.
    """

    payload = 0
    draws = 0


@contextmanager
def own_draws(device: torch.device) -> Iterator[None]:
    """Inside, this process draws numbers of its own; the stream that all have in common stands where it was."""
    if count() == 1:
        yield
        return
    Counts.draws += 1
    words = np.random.SeedSequence([torch.initial_seed() % 2**63, number(), Counts.draws]).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(words[0]))
        yield


def check_common_draws() -> None:
    """Compare the stream of random numbers that the processes have in common: one that left it would draw other views.

    Raises:
        UserError: a process stands elsewhere.
    """
    if count() > 1:
        states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])]
        check_same("random state", hashlib.sha256(b"".join(one.numpy().tobytes() for one in states)).hexdigest())


def all_rows(own: Tensor, *, alike: bool = True) -> Tensor:
    """The rows of all processes, one after the other, as many from each; the gradient comes back.

    Args:
        own: (n, ...).
        alike: every process makes the same of all rows, so that the sum of their gradients needs no message.

    Returns:
        (R * n, ...).
    """
    return own if count() == 1 else _AllRows.apply(own, alike)


def share_of_mean(own: Tensor, weight: int, total: int) -> Tensor:
    """A scalar whose mean over the processes, which `mean_gradients` takes, is that of all processes by their weights.

    Args:
        own: this process's scalar.
        weight: how much it counts, such as the number of positions that it is the mean of.
        total: the sum of the weights.
    """
    return own if count() == 1 else own * (weight * count() / max(total, 1))


def add_up(tensors: Sequence[Tensor]) -> None:
    """Add up tensors over the processes, in place."""
    if count() > 1:
        with talking():
            for one in tensors:
                _sent(one)
                dist.all_reduce(one)


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, alike: bool) -> Tensor:
        own = own.contiguous()
        ctx.rows, ctx.alike = len(own), alike
        every = own.new_empty(count() * len(own), *own.shape[1:])
        with talking():
            dist.all_gather(list(every.view(count(), *own.shape)), _sent(own))
        return every

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = slice(number() * ctx.rows, (number() + 1) * ctx.rows)
        if ctx.alike:
            return gradient[own] * count(), None
        gradient = gradient.clone()
        add_up([gradient])
        return gradient[own], None


@torch.no_grad()
def mean_gradients(parameters: Sequence[torch.nn.Parameter], values: Tensor, *, sparse: bool = False) -> Tensor:
    """Give every parameter the mean of the processes' gradients; one that no process has a gradient for keeps none.

    Args:
        parameters: of one device.
        values: (V,) scalars of this process, which go along with the gradients.
        sparse: some gradients may be sparse. These are joined by their rows, so that a message is as long as the rows of a step.

    Returns:
        (V,) the means of the values over the processes.
    """
    if count() == 1:
        return values
    by_rows = _sparse_anywhere(parameters) if sparse else set()
    dense = []
    for place, one in enumerate(parameters):
        if place in by_rows:
            one.grad = _joined(one)
        else:
            dense.append(one)
    here = [one.grad is not None for one in dense]
    given = values.new_ones(len(dense)) if all(here) else values.new_tensor(here)
    *gradients, values, given = _means([*map(_dense_gradient, dense), values, given])
    # Only a process that lacks a gradient waits for the device, to learn whether another one has it.
    anywhere = here if all(here) else given.tolist()
    for one, gradient, there in zip(dense, gradients, anywhere, strict=True):
        one.grad = gradient if there else None
    return values


def _sparse_anywhere(parameters: Sequence[torch.nn.Parameter]) -> set[int]:
    """The places of the parameters whose gradient is sparse on some process, and dense on none."""
    kinds = torch.tensor([0 if one.grad is None else 1 if one.grad.is_sparse else 2 for one in parameters])
    with talking():
        dist.all_reduce(kinds, op=dist.ReduceOp.MAX)
    return {place for place, kind in enumerate(kinds.tolist()) if kind == 1}


def _dense_gradient(parameter: torch.nn.Parameter) -> Tensor:
    """The gradient, zeros where there is none."""
    grad = parameter.grad
    if grad is None:
        return parameter.detach().new_zeros(parameter.shape)
    return (grad.to_dense() if grad.is_sparse else grad).contiguous()


def _means(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The means of tensors over the processes, in few messages."""
    means: list[Tensor] = []
    for bucket in _buckets(tensors):
        flat = bucket[0].flatten() if len(bucket) == 1 else torch.cat([one.flatten() for one in bucket])
        add_up([flat])
        flat /= count()
        parts = flat.split([one.numel() for one in bucket])
        means += [part.view_as(one) for part, one in zip(parts, bucket, strict=True)]
    return means


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together at most BUCKET bytes; a larger one is alone."""
    bucket: list[Tensor] = []
    size = 0
    for one in tensors:
        if bucket and (size + one.nbytes > BUCKET or one.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.nbytes
    if bucket:
        yield bucket


def _joined(parameter: torch.nn.Parameter) -> Tensor:
    """The mean of the sparse gradients of a table (N, D)."""
    grad = parameter.grad
    rows = torch.empty(0, dtype=torch.int64, device=parameter.device)
    values = parameter.new_empty(0, *parameter.shape[1:])
    if grad is not None:
        grad = grad.coalesce()
        rows, values = grad.indices()[0], grad.values()
    more = most(len(rows)) - len(rows)  # behind its rows a process repeats row 0 with zeros
    rows = all_rows(F.pad(rows, (0, more)))
    values = all_rows(torch.cat((values, values.new_zeros(more, *values.shape[1:]))))
    return torch.sparse_coo_tensor(rows[None], values / count(), parameter.shape, check_invariants=False).coalesce()


def _sent(tensor: Tensor) -> Tensor:
    Counts.payload += tensor.nbytes
    return tensor
