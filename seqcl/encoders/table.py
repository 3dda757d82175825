"""The item table that every encoder ties to its scores."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from seqcl.errors import UserError
from seqcl.types import PAD


class ItemTable(nn.Embedding):
    """Embeddings of PAD, items 1..N and MASK: (N + 2, D), normal with deviation 0.02, the PAD row zero and without gradient.

    What else is known of items is added where a row is read, by `more`, from ids of any shape to vectors; the table knows nothing of it.
    """

    more: Callable[[Tensor], Tensor] | None = None

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__(num_items + 2, dim, padding_idx=PAD)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
        self._fill_padding_idx_with_zero()

    def forward(self, items: Tensor) -> Tensor:
        found = super().forward(items)
        return found if self.more is None else found + self.more(items)


def at_least_one(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        UserError: names the first of them.
    """
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"encoder.{name} must be 1 or more, not {size}")
