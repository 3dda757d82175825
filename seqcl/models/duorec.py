"""DuoRec (Qiu et al., WSDM 2022, arXiv 2110.05730)."""

from __future__ import annotations

from seqcl import encoders
from seqcl.augment import dropout_and_same_target
from seqcl.models.base import Parts, Recommender
from seqcl.models.pretraining import ContrastFirst
from seqcl.objectives import Objective, TwoViews
from seqcl.parts import part


class DuoRec(Recommender):
    """Next item and contrast between a row and another one with the same target (Qiu et al. 2022, arXiv 2110.05730).

    Differs from the paper: cosines in place of inner products; rows of one user or with one target are no negatives of each
    other; all positions learn in one pass, and the last target of a row is the one that counts.
    """

    pretrain = part(ContrastFirst)
    views = part(dropout_and_same_target)
    objective = part(TwoViews, temperature=0.2)

    contrast_off = ()

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        made = parts["views"]()
        pairs = made if isinstance(made, dict) else {"views": made}  # --views NAME gives one view
        contrast = {name: parts["objective"](views=pair, dim=encoder.dim) for name, pair in pairs.items()}
        return super().terms(encoder, parts) | contrast
