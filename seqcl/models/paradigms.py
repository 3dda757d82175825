"""The paradigms of contrastive learning from vision, over the views of CL4SRec: MoCo, BYOL, SimSiam, SwAV, PIRL, SupCon.

Each is CL4Rec with another objective by default; `--objective` under any of these recipes takes any of the others.
"""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import Pair, crop_mask_reorder
from seqcl.models.base import Contrastive
from seqcl.objectives import BYOL, PIRL, MoCo, NextItem, SimSiam, SupCon, SwAV
from seqcl.types import Windows


class MoCoRec(Contrastive):
    """Next item and momentum contrast against a queue of keys (He et al. 2020, arXiv 1911.05722; Chen et al. 2020, 2003.04297)."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[MoCo] = partial(MoCo),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)


class BYOLRec(Contrastive):
    """Next item and prediction of a slow copy's projection, without negatives (Grill et al. 2020, arXiv 2006.07733)."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[BYOL] = partial(BYOL),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)


class SimSiamRec(Contrastive):
    """Next item and prediction of the other view's projection, without negatives (Chen and He 2021, arXiv 2011.10566)."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[SimSiam] = partial(SimSiam),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)


class SwAVRec(Contrastive):
    """Next item and prediction of the other view's prototype code (Caron et al. 2020, arXiv 2006.09882)."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[SwAV] = partial(SwAV),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)


class PIRLRec(Contrastive):
    """Next item and contrast with a bank of users' vectors (Misra and van der Maaten 2020, arXiv 1912.01991)."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[PIRL] = partial(PIRL),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)


class SupConRec(Contrastive):
    """Next item and contrast where rows with one target are positives (Khosla et al. 2020, arXiv 2004.11362)."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[SupCon] = partial(SupCon),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
