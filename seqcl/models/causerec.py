"""CauseRec (Zhang et al., SIGIR 2021, arXiv 2109.05261)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Parts, Recommender
from seqcl.models.pretraining import ContrastFirst
from seqcl.objectives import Counterfactual, Objective
from seqcl.parts import part


class CauseRec(Recommender):
    """Next item and margins between a row and what it might have been (Zhang et al. 2021, arXiv 2109.05261).

    Differs from the paper: any encoder instead of attention over concepts, an item being a concept; full softmax over
    cosines; the last target of a row decides which items are indispensable: those closest to it, as the paper says, where the
    authors' code takes the farthest (`objective.indispensable`).
    """

    pretrain = part(ContrastFirst)
    objective = part(Counterfactual)

    contrast_off = ()

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        next_item = super().terms(encoder, parts)
        return {**next_item, "counterfactual": parts["objective"](dim=encoder.dim)}
