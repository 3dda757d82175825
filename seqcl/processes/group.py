"""The group of processes that torchrun started, and what they tell each other."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from seqcl.errors import UserError, brief

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=12)
"""Time that one process may need alone, as to pack a large log; a process that ended is noticed at once."""


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
    atexit.register(end)  # threads of the connections would abort an interpreter that ends without


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
        name = f"seqcl/ended/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return bool(store.compare_set(name, "", str(number())) == str(number()).encode())
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
    box = torch.tensor(int(value))
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
    """Compare a value of all processes; of text, line by line.

    Raises:
        UserError: names the first process that has another one, and of text the first line that is another one.
    """
    if count() == 1:
        return
    values: list[Any] = [None] * count()
    with talking():
        dist.all_gather_object(values, value)
    other = next((place for place, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        theirs, ours = values[other], values[0]
        if isinstance(ours, str):
            lines = zip_longest(theirs.splitlines(), ours.splitlines(), fillvalue="nothing")
            theirs, ours = next(pair for pair in lines if pair[0] != pair[1])
        raise UserError(f"process {other} has another {what} than process 0: {brief(theirs)}, not {brief(ours)}")
