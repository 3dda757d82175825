"""Distillation into a smaller, equal or other encoder (SimCLR v2, Chen et al., NeurIPS 2020, arXiv 2006.10029)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Parts, Recommender
from seqcl.objectives import Distillation, Objective
from seqcl.parts import part


class Distil(Recommender):
    """Next item, and all items as finished runs or counted models rank them (Chen et al. 2020, arXiv 2006.10029).

    Any other recipe learns from teachers too: `--distil.teachers RUN`, or `seqcl distill RUN --model NAME`.

    Differs from the paper: what `Distillation` names; and any encoder may be the student.
    """

    objective = part(Distillation, teachers="SLIST")
    distil = None

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        return {name: parts["objective"](ranker=ranker) for name, ranker in super().terms(encoder, parts).items()}
