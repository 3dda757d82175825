"""The positions of a row that learn their next item, and the encoders that can do so in one pass."""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor

from seqcl import processes
from seqcl.encoders import Encoder, share
from seqcl.encoders.dealt import Share
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


class Learned(NamedTuple):
    """The positions that this process learns, of all T in the batch; in a single process, all of them."""

    states: Tensor  # (T', D)
    targets: Tensor  # (T',)
    total: int  # T
    places: Tensor | None = None  # (T',), their numbers among the T; None where they are all
    real: Tensor | None = None  # (T',) bool, False where a position only fills the shape; None where all are real

    def mean(self, loss: Tensor) -> Tensor:
        """What this process adds to the mean over all T positions, from the mean over its own: scalars."""
        return processes.share_of_mean(loss, len(self.targets), self.total)


def learned_positions(encoder: Encoder, batch: SeqBatch, *, newest: bool) -> Learned:
    """The positions that have a target, or this process's share of them; see `positions`.

    Where the batch says where its targets are, nothing is looked up, and the positions are filled up to its number of places.
    """
    mine = share(encoder, batch)
    if mine is None and batch.positions is not None and batch.targets is not None:
        if newest:
            return Learned(encoder.last(batch), cast(Tensor, batch.last_targets()), len(batch.lengths))
        places, real = batch.positions.clamp(min=0), batch.positions >= 0  # (P,)
        states = encoder(batch).flatten(0, 1).index_select(0, places)
        return Learned(states, batch.targets.flatten()[places], len(places), real=real)
    if mine is None:
        states, targets = positions(encoder, batch, newest=newest)
        return Learned(states, targets, len(targets))
    if batch.targets is None:
        raise ValueError("the next item cannot be learned: the batch has no targets")
    marked = (cast(Tensor, batch.last_targets()) if newest else batch.targets) != PAD
    states, targets = positions(mine.encoder, own_rows(mine), newest=newest)
    return Learned(states, targets, int(marked.sum()), mine.places(marked))


def own_rows(mine: Share) -> SeqBatch:
    """The rows of this process; those that are there only to have as many as the others have no targets."""
    return mine.batch._replace(targets=cast(Tensor, mine.batch.targets).masked_fill(~mine.real[:, None], PAD))


def learned_places(encoder: Encoder, batch: SeqBatch, *, newest: bool) -> tuple[SeqBatch, Tensor]:
    """The rows of this process, and where in them, flattened, the positions of `learned_positions` stand: (T',)."""
    mine = share(encoder, batch)
    rows = batch if mine is None else own_rows(mine)
    return rows, places_of(rows, newest=newest)


def places_of(rows: SeqBatch, *, newest: bool) -> Tensor:
    """Find the positions with a target in flattened rows: (T,); with `newest`, of each row the newest alone."""
    if not newest:
        return (cast(Tensor, rows.targets).flatten() != PAD).nonzero()[:, 0]
    kept = (cast(Tensor, rows.last_targets()) != PAD).nonzero()[:, 0]
    return kept * rows.items.shape[1] + rows.lengths[kept] - 1


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
