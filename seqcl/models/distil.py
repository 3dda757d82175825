"""Distillation into a smaller, equal or other encoder (SimCLR v2, Chen et al., NeurIPS 2020, arXiv 2006.10029)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.errors import UserError
from seqcl.models.base import Parts, Recommender
from seqcl.objectives import Distillation, Objective
from seqcl.parts import part


class Distil(Recommender):
    """Next item, and all items as finished runs or counted models rank them (Chen et al. 2020, arXiv 2006.10029).

    Any other recipe learns from teachers too: `--distil.teachers RUN`, or `seqcl distill RUN --model NAME`.

    Differs from the paper: what `Distillation` names; and any encoder may be the student.
    """

    distil = part(Distillation, teachers="SLIST")

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        if not parts["distil"].options.get("teachers"):
            raise UserError(
                "Distil learns from teachers: give --distil.teachers, folders of finished runs or names of counted models"
            )
        return super().terms(encoder, parts)
