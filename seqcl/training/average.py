"""A running average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of the parameters; evaluation reads it, training never does.

    The decay is min(decay, (1 + step) / (10 + step)), so that the first weights, which are noise, are soon forgotten.

    Args:
        parameters: the parameters to average, by name.
        decay: portion of the old average that an update keeps, in (0, 1).
    """

    def __init__(self, parameters: dict[str, nn.Parameter], *, decay: float) -> None:
        self.names = list(parameters)
        self.parameters: list[Tensor] = list(parameters.values())
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters, after update number `step` (1-based)."""
        torch._foreach_lerp_(self.values, self.parameters, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the parameters hold the average inside, and exactly their own values after it."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self.adopt()
            yield
        finally:
            self._write(kept)

    def adopt(self) -> None:
        """Make the average the parameters."""
        self._write(self.values)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, values)

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self.names, self.values, strict=True))

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a `state()`, in place; names and shapes must be the same."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def kept_weights(average: Average | None) -> AbstractContextManager[None]:
    """Let the model hold, inside, the weights that are validated and kept: their average, if there is one."""
    return nullcontext() if average is None else average.swapped_in()
