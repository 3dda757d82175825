"""A stage before training: another objective for the same encoder, and what of its head the encoder keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from seqcl import encoders
from seqcl.errors import UserError, not_negative
from seqcl.objectives import LoCo, LooC, MiCE, Objective
from seqcl.parts import options_of
from seqcl.types import SeqBatch


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Options of pre-training, which runs for all its epochs without validation; everything else is as in training.

    Args:
        epochs: passes over the training windows (paper's checkpoints 100 to 150), 0 for none.
        lr: highest learning rate.
        batch_size: rows of a batch; 0 for as many as in training.
    """

    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 0

    def __post_init__(self) -> None:
        not_negative("pretrain", batch_size=self.batch_size)
        if self.epochs < 0 or self.lr < 0:
            raise UserError(f"pretrain.epochs and pretrain.lr must not be negative, not {self.epochs} and {self.lr}")


@dataclass(frozen=True, kw_only=True)
class ContrastFirst(Stage):
    """Options of pre-training by the contrastive terms alone, for all its epochs and without validation (SimCLR, arXiv 2002.05709).

    Args:
        epochs: passes over the training windows before the next item is learned, 0 for none.
        lr: highest learning rate of these passes.
        batch_size: rows of a batch; 0 for as many as in training.
        contrast: the contrastive terms stay beside the next item in training; false: they are dropped after pre-training.
        keep: first layers of the projection head that become the last ones of the encoder (SimCLR v2, arXiv 2006.10029,
            section 2); 0 for none.
    """

    epochs: int = 0
    contrast: bool = True
    keep: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep < 0:
            raise UserError(f"pretrain.keep must be 0 or more, not {self.keep}")
        for option, given in (("keep", self.keep), ("contrast", not self.contrast)):
            if given and not self.epochs:
                raise UserError(f"pretrain.{option} needs pre-training: give pretrain.epochs, such as 20")


class Pretraining(nn.Module):
    """A stage before training: another objective for the same encoder, trained for all of its epochs and not validated.

    It is made when it is asked for. What of it the model has no part of is not in the model's weights.
    """

    def __init__(self, *, encoder: encoders.Encoder, objective: Objective, stage: Stage) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective
        self.stage, self.epochs, self.lr, self.identity = stage, stage.epochs, stage.lr, objective.identity

    def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
        """Weighted loss terms by name."""
        return self.objective(encoders.dealt(self.encoder), batch)

    def batch_size(self, training: int) -> int:
        """Rows of a batch of the stage, where training has that many."""
        return self.stage.batch_size or training


def check_contrast(terms: Mapping[str, Objective]) -> None:
    """Refuse pre-training by terms that there are not, or whose weights are all 0.

    Args:
        terms: the objectives by name; the first one ranks.

    Raises:
        UserError: names the option.
    """
    first = next(iter(terms))
    weights = [getattr(term, "weight", 1.0) for name, term in terms.items() if name != first]
    if not any(weights):
        raise UserError("pretrain.epochs: there is no contrastive term with a weight above 0 to pre-train by")


def keep_layers(encoder: encoders.Encoder, terms: Mapping[str, Objective], number: int) -> encoders.Encoder:
    """Move the first layers of the projection head behind the encoder; the head begins behind them.

    Raises:
        UserError: there is no head of linear layers as wide as the states, or it has too few of them; or two towers.
    """
    if isinstance(encoder, encoders.TwoTower):
        raise UserError("pretrain.keep: a projection head over histories is no part of two towers")
    heads = [term for term in terms.values() if isinstance(getattr(term, "head", None), nn.Sequential)]
    if elsewhere := [type(term).__name__ for term in terms.values() if isinstance(term, LoCo | LooC | MiCE)]:
        raise UserError(
            f"pretrain.keep={number}: {elsewhere[0]} has heads of other kinds, of which none can be kept; leave it at 0"
        )
    if len(heads) != 1:
        way_out = (
            "give --objective.head mlp3"
            if any("head" in options_of(type(term)) for term in terms.values())
            else "leave it at 0"
        )
        raise UserError(
            f"pretrain.keep={number}: the layers of one projection head can be kept, and there are {len(heads)}; {way_out}"
        )
    head: nn.Module = heads[0].head  # type: ignore[assignment]
    layers = list(head.children())
    begins = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if number >= len(begins):
        raise UserError(
            f"pretrain.keep={number}: the head has {len(begins)} layers, of which the last is never kept; mlp3 has three"
        )
    kept = layers[: begins[number]]
    if not all(isinstance(layer, nn.ReLU | nn.Linear) for layer in kept):
        raise UserError("pretrain.keep: a head with batch norm cannot be kept, which would count padding; use mlp3")
    if any(layer.out_features != encoder.dim for layer in kept if isinstance(layer, nn.Linear)):
        raise UserError(f"pretrain.keep: layers that are not {encoder.dim} wide, as the items are, cannot be kept")
    heads[0].head = nn.Sequential(*layers[begins[number] :])
    return encoders.Extended(encoder, nn.Sequential(*kept))
