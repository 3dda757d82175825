"""TiCoSeRec (Dang et al., AAAI 2023, arXiv 2212.08262)."""

from __future__ import annotations

from seqcl.augment import evened_out
from seqcl.models.base import Contrastive
from seqcl.objectives import TwoViews
from seqcl.parts import part


class TiCoSeRec(Contrastive):
    """CoSeRec with views that even out the gaps in time; needs timestamps (Dang et al. 2023, arXiv 2212.08262).

    Differs from the paper: full softmax over cosines instead of one sampled negative; every row is augmented from the first
    epoch on, the most even ones too, where the code begins with 40 epochs without contrast; the item after a gap is replaced,
    or has its neighbour inserted, where the code takes the one before it (`views.side` before); any places are masked, where
    the code's command for Beauty masks those at the largest gaps (`views.masked` large); a crop of two items keeps both, where
    the code keeps one; rows of one user or with one target are no negatives of each other.
    """

    views = part(evened_out)
    objective = part(TwoViews, temperature=0.2)
