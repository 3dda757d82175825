"""A copy of the encoder that follows it slowly, as in MoCo and BYOL."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from seqcl.encoders import Encoder, states_of_all
from seqcl.errors import UserError
from seqcl.types import SeqBatch


class Follower(nn.Module):
    """A copy of encoder and head that takes no gradient and follows them: theta <- m theta + (1 - m) leader."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = deepcopy(encoder).requires_grad_(False)
        self.head = deepcopy(head).requires_grad_(False)
        self.led_by = (head,)  # in a tuple, so that its parameters stay with the objective

    @torch.no_grad()
    def forward(self, batch: SeqBatch) -> Tensor:
        """Project the states after the newest items: (B, D)."""
        return self.head(states_of_all(self.encoder.last, batch))

    @torch.no_grad()
    def follow(self, encoder: Encoder, momentum: float) -> None:
        """Move towards an encoder and the head, onto them with momentum 0; the statistics of batch norm stay the copy's own."""
        mine: list[Tensor] = [*self.encoder.parameters(), *self.head.parameters()]
        leaders: list[Tensor] = [*encoder.parameters(), *self.led_by[0].parameters()]
        torch._foreach_lerp_(mine, leaders, 1 - momentum)


def check_momentum(name: str, momentum: float) -> None:
    """Refuse a momentum outside 0 to 1.

    Raises:
        UserError: names the objective and the momentum.
    """
    if not 0 <= momentum <= 1:
        raise UserError(f"{name}: momentum must be from 0 to 1, not {momentum}")
