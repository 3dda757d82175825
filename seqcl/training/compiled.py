"""An encoder that is compiled for training: the same results with fewer and larger steps on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from seqcl.encoders import Encoder
from seqcl.errors import UserError, brief
from seqcl.types import SeqBatch

METHODS = ("forward", "last")


def check_compile(encoder: Encoder) -> None:
    """Refuse an encoder whose shapes depend on values.

    Raises:
        UserError: names it.
    """
    one = encoder.each()[0]
    if not one.fixed_shapes:
        raise UserError(
            f"train.compile: the encoder {type(one).__name__} has shapes that depend on the lengths of the rows; "
            "those made of attention blocks can be compiled, such as SASRec, BERT4Rec, HSTU"
        )


@contextmanager
def compiled(encoder: Encoder) -> Iterator[None]:
    """Inside, the encoder is compiled where it trains; in evaluation, whose shapes never come again, it is as it was.

    On a GPU each of its passes becomes one CUDA graph (torch.compile, mode reduce-overhead). Compiled functions are made at
    the first batch of each shape, which takes half a minute or so.

    Raises:
        UserError: the encoder cannot be compiled, or there is no compiler here.
    """
    check_compile(encoder)
    each = encoder.each()
    for one in each:
        for name in METHODS:
            setattr(one, name, in_training(one, getattr(one, name)))
    try:
        yield
    finally:
        for one in each:
            for name in METHODS:
                delattr(one, name)


def in_training(encoder: Encoder, plain: Callable[[SeqBatch], Tensor]) -> Callable[[SeqBatch], Tensor]:
    """A method of the encoder, compiled for each shape of a batch, while the encoder trains."""
    fast = torch.compile(plain, dynamic=False, mode="reduce-overhead")

    def either(batch: SeqBatch) -> Tensor:
        if not encoder.training:
            return plain(batch)
        try:
            return fast(batch._replace(targets=None, users=None, positions=None))
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = brief(str(error.inner_exception).strip().splitlines()[0])
            raise UserError(f"train.compile: nothing can be compiled here ({reason}); leave the option out") from error

    return either
