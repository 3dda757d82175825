"""The positions of a row that learn their next item, and the encoders that can do so in one pass."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from seqcl.encoders import Encoder
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch, Windows


def only_newest(train: Windows) -> bool:
    """True if the newest position of every training row is the only one with a target."""
    return bool((train.first == train.stop - 1).all())


def check_one_pass(encoder: Encoder) -> None:
    """Refuse an encoder that cannot learn all positions of a row in one pass.

    Raises:
        UserError: names the option that helps.
    """
    if encoder.one_pass:
        return
    if encoder.causal:
        raise UserError(
            "this encoder gives the state of a whole row alone, so it cannot learn all positions in one pass: "
            "use --data.windows prefix"
        )
    raise UserError(
        "this encoder reads the next item at every position, so it cannot learn to predict it in one pass: "
        "use --model BERT4Rec, which masks what it predicts, or --data.windows prefix, or another --encoder"
    )


def positions(encoder: Encoder, batch: SeqBatch, *, newest: bool) -> tuple[Tensor, Tensor]:
    """States (T, D) and target ids (T,) of the positions that have a target.

    Args:
        encoder: gives the states.
        batch: rows with targets (B, L).
        newest: the newest position of each row is the only one with a target, so the encoder need not do the others.

    Raises:
        ValueError: the batch has no targets.
    """
    if batch.targets is None:
        raise ValueError("the next item cannot be learned: the batch has no targets")
    if newest:
        targets = cast(Tensor, batch.last_targets())  # (B,)
        kept = (targets != PAD).nonzero()[:, 0]
        states = encoder.last(batch)
        return (states, targets) if len(kept) == len(targets) else (states[kept], targets[kept])
    targets = batch.targets.flatten()  # (B * L,)
    places = (targets != PAD).nonzero()[:, 0]  # (T,)
    return encoder(batch).flatten(0, 1).index_select(0, places), targets[places]
