"""Several processes that train one model together: what they tell each other, with gradient and without.

`torchrun` starts them. Every process draws the same batches and the same views, and encodes its own share of the rows. What is
made of all rows is computed alike everywhere, so every term of the loss has one value on all processes, and the gradient of
the run is the mean of theirs. With one process nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from seqcl.errors import UserError, brief

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=12)
"""Time that one process may need alone, as to pack a large log; a process that ended is noticed at once."""

BUCKET = 16 * 2**20
"""Bytes of gradients that are sent as one piece."""

payload = 0
"""Bytes of tensors that this process has handed over so far."""

draws = 0
"""Times that `own_draws` was entered: with the seed and the number of the process, the source of what it draws there."""


class Gone(UserError):
    """Another process of the run has ended."""


class Told(SystemExit):
    """Ends a process quietly: another one tells why."""


def started_by_torchrun() -> bool:
    """True in a process of a group of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "TORCHELASTIC_RUN_ID" in os.environ


def start() -> None:
    """Join the other processes, over NCCL between cards and gloo between processors; nothing to do for one alone.

    Raises:
        UserError: this torch cannot join processes, or the others cannot be reached.
    """
    if not started_by_torchrun() or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of torchrun cannot join: {brief(str(error).splitlines()[0])}") from error


def end() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """Number of processes R."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Number of this process, from 0 on."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """True on the process that writes and speaks for all."""
    return number() == 0


def local_number() -> int:
    """Number of this process on its machine: that of its card."""
    return int(os.environ.get("LOCAL_RANK", 0)) if count() > 1 else 0


def has_the_word() -> bool:
    """True on the first process that asks: it tells how the run ended, and the others keep silent."""
    if count() == 1:
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        return bool(store.compare_set("seqcl/ended", "", str(number())) == str(number()).encode())
    except RuntimeError:  # the store is on a machine that is gone
        return True


@contextmanager
def talking() -> Iterator[None]:
    """Inside, a broken connection means that a process has ended.

    Raises:
        Gone: says so.
    """
    try:
        yield
    except RuntimeError as error:
        raise Gone(f"another of the {count()} processes has ended ({brief(str(error).splitlines()[0], 80)})") from error


def most(value: int) -> int:
    """The largest value among the processes."""
    if count() == 1:
        return value
    box = torch.tensor(value)
    with talking():
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box)


def of_first(value: T) -> T:
    """The value that the first process has, on all of them; anything that can be pickled."""
    if count() == 1:
        return value
    box = [value]
    with talking():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def wait() -> None:
    """Go on when all processes have come here."""
    most(0)


def by_first(work: Callable[[], T]) -> T:
    """The result of some work that the first process does for all; anything that can be pickled.

    Raises:
        Exception: what the first process met; the others end with `Told`.
    """
    if count() == 1:
        return work()
    result: Any = None
    failed: Exception | None = None
    if is_first():
        try:
            result = work()
        except Exception as error:
            failed = error
    ended, result = of_first((failed is not None, result))
    if failed is not None:
        raise failed
    if ended:
        raise Told(1)
    return result


def first_before_others(work: Callable[[], T]) -> T:
    """The result of some work that every process does, the first one alone before the others: it fills the cache they read.

    Raises:
        Exception: as `by_first`.
    """
    found: list[T] = []
    by_first(lambda: found.append(work()))
    return found[0] if found else work()


def check_same(what: str, value: Any) -> None:
    """Compare a value of all processes.

    Raises:
        UserError: names the first process that has another one.
    """
    if count() == 1:
        return
    values: list[Any] = [None] * count()
    with talking():
        dist.all_gather_object(values, value)
    other = next((place for place, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        raise UserError(
            f"process {other} has another {what} than process 0: {brief(values[other])}, not {brief(values[0])}"
        )


@contextmanager
def own_draws(device: torch.device) -> Iterator[None]:
    """Inside, this process draws numbers of its own; the stream that all have in common stands where it was."""
    global draws
    if count() == 1:
        yield
        return
    draws += 1
    words = np.random.SeedSequence([torch.initial_seed() % 2**63, number(), draws]).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(words[0]))
        yield


def all_rows(own: Tensor, *, alike: bool = True) -> Tensor:
    """The rows of all processes, one after the other, as many from each; the gradient comes back.

    Args:
        own: (n, ...).
        alike: every process makes the same of all rows, so that the sum of their gradients needs no message.

    Returns:
        (R * n, ...).
    """
    return own if count() == 1 else _AllRows.apply(own, alike)


def mean_of_all(own: Tensor, weight: float) -> Tensor:
    """The mean of a scalar over the processes by their weights, 0 if these are all 0; the gradient comes back."""
    return own if count() == 1 else _MeanOfAll.apply(own, weight)


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
            dist.all_gather(list(every.split(max(len(own), 1))), _sent(own))
        return every

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = slice(number() * ctx.rows, (number() + 1) * ctx.rows)
        if ctx.alike:
            return gradient[own] * count(), None
        gradient = gradient.clone()
        add_up([gradient])
        return gradient[own], None


class _MeanOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, weight: float) -> Tensor:
        both = torch.stack((own.detach() * weight, own.new_tensor(weight)))
        with talking():
            dist.all_reduce(_sent(both))
        total = both[1].clamp(min=torch.finfo(both.dtype).tiny)
        ctx.share = weight / total * count()
        return both[0] / total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.share, None


@torch.no_grad()
def mean_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Give every parameter the mean of the processes' gradients; one that no process has a gradient for keeps none.

    Sparse gradients are joined by their rows, so that a message is as long as the rows of a step.
    """
    if count() == 1:
        return
    kinds = torch.tensor([0 if one.grad is None else 1 if one.grad.is_sparse else 2 for one in parameters])
    with talking():
        dist.all_reduce(kinds, op=dist.ReduceOp.MAX)
    dense = []
    for one, kind in zip(parameters, kinds.tolist(), strict=True):
        if kind == 2:
            grad = one.grad if one.grad is not None else one.detach().new_zeros(one.shape)
            one.grad = (grad.to_dense() if grad.is_sparse else grad).contiguous()
            dense.append(one.grad)
        elif kind == 1:
            one.grad = _joined(one)
    for bucket in _buckets(dense):
        flat = bucket[0] if len(bucket) == 1 else torch.cat([grad.flatten() for grad in bucket])
        add_up([flat])
        flat /= count()
        if len(bucket) > 1:
            for grad, part in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
                grad.copy_(part.view_as(grad))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type, together at most BUCKET bytes; a larger one is alone."""
    bucket: list[Tensor] = []
    size = 0
    for one in gradients:
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
    return torch.sparse_coo_tensor(rows[None], values / count(), parameter.shape).coalesce()


def _sent(tensor: Tensor) -> Tensor:
    global payload
    payload += tensor.nbytes
    return tensor
