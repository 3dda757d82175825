"""Objectives: modules that turn an encoder and a batch into named losses, with state of their own."""

from seqcl.objectives.ahead import CPC, MemoryCPC
from seqcl.objectives.apart import Apart
from seqcl.objectives.bank import PIRL
from seqcl.objectives.base import Joint, Objective, rng
from seqcl.objectives.batch_softmax import BatchSoftmax
from seqcl.objectives.counterfactual import Counterfactual
from seqcl.objectives.counterfactual_rows import CounterfactualRows
from seqcl.objectives.decorrelation import Barlow, VICReg
from seqcl.objectives.detect import Detect
from seqcl.objectives.direct import DirectAU
from seqcl.objectives.distillation import Distillation
from seqcl.objectives.experts import MiCE
from seqcl.objectives.feature_contrast import FeatureContrast
from seqcl.objectives.heads import projection
from seqcl.objectives.info_min import InfoMin
from seqcl.objectives.infomax import DIM
from seqcl.objectives.instance import Instance, Margin
from seqcl.objectives.item_graph import ItemGraph
from seqcl.objectives.item_loss import ItemLoss
from seqcl.objectives.learned_views import LearnedViews
from seqcl.objectives.leave_one_out import LooC
from seqcl.objectives.local import LoCo
from seqcl.objectives.masked_items import MaskedItems
from seqcl.objectives.mixed_inputs import CLAE, IMix
from seqcl.objectives.momentum import MoCo
from seqcl.objectives.mutual_information import MutualInformation
from seqcl.objectives.next_item import NextItem
from seqcl.objectives.predictor import BYOL, MoCoV3, SimSiam
from seqcl.objectives.prototypes import Prototypes
from seqcl.objectives.self_paced import SpCL
from seqcl.objectives.swav import SwAV
from seqcl.objectives.two_views import AlignUniform, SupCon, TwoViews
from seqcl.objectives.views import ViewsObjective
from seqcl.registry import table

OBJECTIVES = table(
    "objective",
    {
        "NextItem": NextItem,
        "MaskedItems": MaskedItems,
        "TwoViews": TwoViews,
        "SupCon": SupCon,
        "AlignUniform": AlignUniform,
        "Margin": Margin,
        "Instance": Instance,
        "LoCo": LoCo,
        "LooC": LooC,
        "MoCo": MoCo,
        "MoCoV3": MoCoV3,
        "BYOL": BYOL,
        "SimSiam": SimSiam,
        "IMix": IMix,
        "CLAE": CLAE,
        "Barlow": Barlow,
        "VICReg": VICReg,
        "Detect": Detect,
        "SwAV": SwAV,
        "Prototypes": Prototypes,
        "SpCL": SpCL,
        "MiCE": MiCE,
        "PIRL": PIRL,
        "DIM": DIM,
        "LearnedViews": LearnedViews,
        "InfoMin": InfoMin,
        "Counterfactual": Counterfactual,
        "CounterfactualRows": CounterfactualRows,
        "CPC": CPC,
        "MemoryCPC": MemoryCPC,
        "DirectAU": DirectAU,
        "Distillation": Distillation,
        "BatchSoftmax": BatchSoftmax,
        "FeatureContrast": FeatureContrast,
        "ItemGraph": ItemGraph,
    },
    Objective,
)
"""The objectives by name; `--objective` takes those that fit the recipe. MutualInformation is the stage `mutual` of S3Rec."""

__all__ = [
    "BYOL",
    "CLAE",
    "CPC",
    "DIM",
    "OBJECTIVES",
    "PIRL",
    "AlignUniform",
    "Apart",
    "Barlow",
    "BatchSoftmax",
    "Counterfactual",
    "CounterfactualRows",
    "Detect",
    "DirectAU",
    "Distillation",
    "FeatureContrast",
    "IMix",
    "InfoMin",
    "Instance",
    "ItemGraph",
    "ItemLoss",
    "Joint",
    "LearnedViews",
    "LoCo",
    "LooC",
    "Margin",
    "MaskedItems",
    "MemoryCPC",
    "MiCE",
    "MoCo",
    "MoCoV3",
    "MutualInformation",
    "NextItem",
    "Objective",
    "Prototypes",
    "SimSiam",
    "SpCL",
    "SupCon",
    "SwAV",
    "TwoViews",
    "VICReg",
    "ViewsObjective",
    "projection",
    "rng",
]
