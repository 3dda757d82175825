"""A view and a recipe of one's own, for examples/own_recipe.py: a plugin is a file that registers them."""

from __future__ import annotations

import torch
from torch import Generator

import seqcl
from seqcl.augment import View
from seqcl.models import Contrastive
from seqcl.objectives import TwoViews
from seqcl.types import PAD, SeqBatch


@seqcl.register("view")
class Echo(View):
    """Repeat each item of a row with some chance, as people who look twice; the newest items stay where the row gets too long.

    Args:
        rate: chance of each item to be repeated.
    """

    def __init__(self, *, rate: float = 0.3) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        rows, width = batch.items.shape
        real = torch.arange(width, device=batch.items.device) < batch.lengths[:, None]  # (B, L)
        twice = real & (
            torch.rand(rows, width, generator=generator, device=generator.device).to(real.device) < self.rate
        )
        times = (real.long() + twice.long()).flip(1).cumsum(1).flip(1)  # (B, L), items from here to the end
        lengths = times[:, 0].clamp(max=width)
        place = lengths[:, None] - times  # (B, L), where an item goes; below 0 it is too old
        items = batch.items.new_full((rows, width + 1), PAD)
        for shift in (0, 1):
            there = real & (place + shift >= 0) & ((shift == 0) | twice)
            items.scatter_(1, torch.where(there, place + shift, width), batch.items)
        return batch._replace(items=items[:, :width], lengths=lengths, targets=None, times=None)


@seqcl.register("model")
class EchoRec(Contrastive):
    """Next item and contrast of two rows in which items are repeated (an example of a recipe of one's own)."""

    views = seqcl.part(Echo)
    objective = seqcl.part(TwoViews, weight=0.1)
