"""DirectAU (Wang et al., KDD 2022, arXiv 2206.12811) for sequences."""

from __future__ import annotations

from seqcl import encoders, objectives
from seqcl.models.base import Parts, Recommender
from seqcl.parts import part


class DirectAU(Recommender):
    """A state near its next item, states and items uniform over the sphere, and no softmax (Wang et al. 2022, arXiv 2206.12811).

    Differs from the paper: what the objective names; and any encoder of rows in the place of user embeddings.
    """

    next_item = None
    objective = part(objectives.DirectAU)

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, objectives.Objective]:
        return {"next_item": parts["objective"]()}
