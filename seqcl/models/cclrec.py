"""CCL (Bian et al., CIKM 2021): contrastive curriculum learning."""

from __future__ import annotations

from seqcl.augment import growing_crop_mask_reorder
from seqcl.models.base import Contrastive
from seqcl.objectives import TwoViews
from seqcl.parts import part


class CCLRec(Contrastive):
    """Next item and contrast of views that grow stronger over the epochs (Bian et al. 2021, doi 10.1145/3459637.3481905; views of arXiv 2010.14395).

    Differs from the paper: crop, mask and reorder at growing rates, as in the authors' code; the paper orders rows of a trained
    generator, which replaces items by the attributes of users, by how hard they are. The rate of a crop in that code is
    the part kept, so that its crops grow milder; here they grow stronger. It masks each item by chance, where a part of a row is
    rounded down here: in short rows a crop takes an item on the first stair, and a mask none. Its contrast has a temperature of 1,
    a linear head, first views alone as anchors, and one pair of operators for a run. Next item and contrast learn together, where
    the paper learns by contrast first (`pretrain.epochs` 100, `pretrain.contrast` false). Full softmax over cosines; rows of
    one user or with one target are no negatives of each other.
    """

    views = part(growing_crop_mask_reorder)
    objective = part(TwoViews, temperature=0.2)
