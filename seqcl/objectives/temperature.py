"""The temperature of a contrast: constant, along a cosine over the epochs, or learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from seqcl.encoders import Encoder
from seqcl.errors import UserError, check_choice, not_negative, positive
from seqcl.objectives.base import Objective, refuse_unread
from seqcl.types import Batches

Schedule = Literal["constant", "cosine", "learned"]

LOWEST = 0.01
"""Smallest temperature that is learned: similarities are multiplied by at most 100 (CLIP, arXiv 2103.00020, section 2.5)."""


class Tempered(Objective):
    """An objective whose similarities are divided by a `temperature` that may change in training.

    cosine begins at the highest temperature, is at the lowest after half a period and goes back (arXiv 2303.13664). A
    high one parts groups of rows, a low one single rows. learned is the exponential of a parameter (CLIP, arXiv 2103.00020).
    """

    scheduled: Tensor  # (), the temperature of this epoch; with cosine alone
    log_scale: nn.Parameter  # (), the log of one over the temperature; with learned alone

    def begin(self, temperature: float, schedule: Schedule, highest: float, period: int) -> None:
        """Take over the options.

        Raises:
            UserError: names the objective and the option.
        """
        name = type(self).__name__
        positive(name, temperature=temperature)
        check_choice("schedule", schedule, Schedule)
        not_negative(name, period=period)
        self.lowest, self.schedule, self.highest, self.period = temperature, schedule, highest, period
        if schedule != "cosine":
            refuse_unread(name, f"schedule=cosine, not {schedule}", type(self), highest=highest, period=period)
        if schedule == "cosine":
            if not highest >= temperature:
                raise UserError(f"{name}: highest={highest} is below temperature={temperature}, the lowest")
            self.register_buffer("scheduled", torch.tensor(highest))
        if schedule == "learned":
            if temperature < LOWEST:
                raise UserError(f"{name}: a learned temperature is at least {LOWEST}, not {temperature}")
            self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def temperature(self) -> float | Tensor:
        """Divisor of the similarities: a number where it is constant, else a scalar tensor."""
        if self.schedule == "constant":
            return self.lowest
        return self.scheduled if self.schedule == "cosine" else (-self.log_scale).exp()

    def seen(self) -> dict[str, Tensor]:
        """The temperature as a figure to log, where it changes."""
        now = self.temperature
        return {"temperature": now.detach().clone()} if isinstance(now, Tensor) else {}

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        super().before_epoch(encoder, batches, epoch=epoch, epochs=epochs)
        if self.schedule == "cosine":
            wave = (1 + math.cos(2 * math.pi * epoch / (self.period or epochs))) / 2
            self.scheduled.fill_(self.lowest + (self.highest - self.lowest) * wave)

    @torch.no_grad()
    def after_step(self, encoder: Encoder) -> None:
        super().after_step(encoder)
        if self.schedule == "learned":
            self.log_scale.clamp_(max=-math.log(LOWEST))
