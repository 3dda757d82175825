"""Rows as vectors, one kind of vector for each row; and whole rows, with their last target."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.encoders import Encoder
from seqcl.errors import UserError, check_choice
from seqcl.objectives.heads import Head
from seqcl.types import PAD, SeqBatch

States = Literal["newest", "mean", "all"]


def row_states(encoder: Encoder, batch: SeqBatch, *kinds: States) -> tuple[Tensor, ...]:
    """Make one vector of each row, for every kind asked: its newest state, the mean of its states, or all of them.

    newest and mean are (B, D). all is (B, L * D), the newest state first and zeros behind the oldest: an inner product
    is then the sum over pairs of states at one distance to the end. One encoding serves mean and all. Of a
    bidirectional encoder, mean and all lack the MASK at which its newest state is read.
    """
    others = set(kinds) - {"newest"}
    found: dict[str, Tensor] = {"newest": encoder.last(batch)} if "newest" in kinds else {}
    if others:
        states = encoder(batch)  # (B, L, D)
        behind = batch.lengths[:, None] - 1 - torch.arange(states.shape[1], device=states.device)  # (B, L)
        turned = states.gather(1, behind.clamp(min=0)[..., None].expand_as(states))  # newest first
        turned = turned.masked_fill((behind < 0)[..., None], 0)
        found |= {"mean": turned.sum(1) / batch.lengths[:, None], "all": turned.flatten(1)}
    return tuple(found[kind] for kind in kinds)


def check_states(name: str, states: States, head: Head) -> None:
    """Refuse an unknown choice, and a head over all states of a row, whose number varies.

    Raises:
        UserError: names the choice or the head.
    """
    check_choice("states", states, States)
    if states == "all" and head != "none":
        raise UserError(f"{name}: states=all takes no head, not {head}: use states=mean, or head=none")


def whole_rows(batch: SeqBatch) -> SeqBatch:
    """Put each row's last target behind its items, where it has one: items (B, L + 1).

    Raises:
        ValueError: the batch has no targets.
    """
    newest = batch.last_targets()  # (B,)
    if newest is None:
        raise ValueError("a whole row ends in its last target, and the batch has no targets")
    items = F.pad(batch.items, (0, 1), value=PAD).scatter(1, batch.lengths[:, None], newest[:, None])  # (B, L + 1)
    return SeqBatch(items, batch.lengths + (newest > PAD), users=batch.users)
