"""MCLRec (Qin et al., SIGIR 2023, arXiv 2304.07763)."""

from __future__ import annotations

from seqcl.augment import crop_mask_reorder
from seqcl.models.base import Contrastive
from seqcl.objectives import LearnedViews
from seqcl.parts import part


class MCLRec(Contrastive):
    """Next item, contrast of two views, and of learned versions of them (Qin et al. 2023, arXiv 2304.07763).

    Differs from the paper: full softmax over cosines; cosines in place of inner products in the contrast; rows of one user
    or with one target are no negatives of each other; the encoder is trained once on a batch, where the code trains it
    before and after the augmenters. The code's augmenters have GELU and an output of length 1 (`objective.activation` gelu,
    `objective.unit`), its views are of two different operators and leave rows of one item alone (`views.distinct`,
    `views.keep_single`), and it masks with padding.
    """

    views = part(crop_mask_reorder, crop=0.5, mask=0.5, reorder=0.8)
    objective = part(LearnedViews)
