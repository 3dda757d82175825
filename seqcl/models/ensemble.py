"""Ensemble: several networks of one kind, whose scores are averaged (Lakshminarayanan et al., NeurIPS 2017, arXiv 1612.01474)."""

from __future__ import annotations

from dataclasses import dataclass

from seqcl import encoders
from seqcl.encoders import Several
from seqcl.errors import UserError
from seqcl.models.base import Parts, Recommender
from seqcl.objectives import Apart, Objective
from seqcl.parts import part
from seqcl.types import Windows


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Number of networks in one model.

    Args:
        networks: networks of the encoder's kind that learn side by side, each from weights and dropout of its own.

    Raises:
        UserError: there is none.
    """

    networks: int = 1

    def __post_init__(self) -> None:
        if self.networks < 1:
            raise UserError(f"--ensemble.networks {self.networks}: must be 1 or more")


class Ensemble(Recommender):
    """Next item by the mean score of several networks (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Each learns the next item alone, on the same batches. The model is one: its vectors are those of all networks, one after the
    other, so an index, a bundle and the server take it like any other. Training and answers cost as much as so many networks.

    Differs from the paper: the mean of logits instead of probabilities, no adversarial examples, and biases of items are shared.
    """

    ensemble = part(Networks, networks=2)

    def make_encoder(self, train: Windows, parts: Parts) -> encoders.Encoder:
        number = parts["ensemble"]().networks
        if number == 1:
            return super().make_encoder(train, parts)
        if "distil" in parts and parts["distil"].options.get("teachers"):
            raise UserError(
                f"--distil.teachers teach one network, not an ensemble: give --ensemble.networks 1, not {number}"
            )
        made = [super(Ensemble, self).make_encoder(train, parts) for _ in range(number)]
        return Several(made, similarity=parts["next_item"]().scoring.similarity)

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        found = super().terms(encoder, parts)
        return {name: Apart(one) for name, one in found.items()} if isinstance(encoder, Several) else found
