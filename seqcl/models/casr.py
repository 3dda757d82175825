"""CASR (Wang et al., SIGIR 2021): counterfactual rows from a trained copy of the model."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Parts, Recommender
from seqcl.objectives import CounterfactualRows, Objective
from seqcl.parts import part


class CASR(Recommender):
    """Next item, and rows with one item replaced whose next item a trained copy tells (Wang et al. 2021, doi 10.1145/3404835.3462855).

    Differs from the paper: what `CounterfactualRows` names; full softmax over cosines; any encoder.
    """

    objective = part(CounterfactualRows)

    contrast_off = ()

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        ranks = super().terms(encoder, parts)
        return {**ranks, "counterfactual": parts["objective"](**ranks)}
