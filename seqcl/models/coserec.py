"""CoSeRec (Liu et al., 2021, arXiv 2108.06479)."""

from __future__ import annotations

from seqcl.augment import by_length
from seqcl.models.base import Contrastive
from seqcl.objectives import TwoViews
from seqcl.parts import part


class CoSeRec(Contrastive):
    """Next item and contrast of views that correlated items make robust (Liu et al. 2021, arXiv 2108.06479).

    As in the authors' code, substitute and insert change one item at least.

    Differs from the paper: full softmax over cosines instead of one sampled negative; rows of one user or with one target
    are no negatives of each other; the newest state represents a row, where the code takes all (`objective.states` all);
    the scores of the hybrid are scaled among the neighbours kept, where the code scales them among all pairs.
    """

    views = part(by_length)
    objective = part(TwoViews, temperature=0.2)
