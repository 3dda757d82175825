"""CPC (van den Oord et al., 2018, arXiv 1807.03748) over the items of a row."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Parts, Recommender
from seqcl.models.pretraining import ContrastFirst
from seqcl.objectives import CPC, Objective
from seqcl.parts import part


class CPCRec(Recommender):
    """Next item and contrast of each state with the items after it (van den Oord et al. 2018, arXiv 1807.03748)."""

    pretrain = part(ContrastFirst)
    objective = part(CPC)

    contrast_off = ()

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        return {**super().terms(encoder, parts), "ahead": parts["objective"](dim=encoder.dim)}
