"""The item table that every encoder ties to its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from seqcl.errors import UserError
from seqcl.types import PAD

_filled = ContextVar("filled", default=True)


class ItemTable(nn.Embedding):
    """Embeddings of PAD, items 1..N and MASK: (N + 2, D), normal with deviation 0.02, the PAD row zero and without gradient.

    `read`, if set, takes the place of a plain lookup: a function from ids of any shape to vectors.
    """

    read: Callable[[Tensor], Tensor] | None = None

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__(num_items + 2, dim, padding_idx=PAD)

    def reset_parameters(self) -> None:
        if not _filled.get():
            return
        nn.init.normal_(self.weight, std=0.02)
        self._fill_padding_idx_with_zero()

    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items) if self.read is None else self.read(items)


@contextmanager
def unfilled() -> Iterator[None]:
    """Make item tables, inside, without values, which are to be put there: their memory is not touched."""
    token = _filled.set(False)
    try:
        yield
    finally:
        _filled.reset(token)


def at_least_one(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        UserError: names the first of them.
    """
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"encoder.{name} must be 1 or more, not {size}")
