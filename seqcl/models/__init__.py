"""Recipes: each paper is one short file that declares its encoder, views and objectives."""

from seqcl.models.alignuniformrec import AlignUniformRec
from seqcl.models.barlowrec import BarlowRec
from seqcl.models.base import Baseline, Contrastive, Model, Parts, Recommender
from seqcl.models.bert4rec import BERT4Rec
from seqcl.models.bsarec import BSARec
from seqcl.models.byolrec import BYOLRec
from seqcl.models.causerec import CauseRec
from seqcl.models.cl4rec import CL4Rec
from seqcl.models.claerec import CLAERec
from seqcl.models.coserec import CoSeRec
from seqcl.models.directau import DirectAU
from seqcl.models.distil import Distil
from seqcl.models.duorec import DuoRec
from seqcl.models.ease import EASE
from seqcl.models.gru4rec import GRU4Rec
from seqcl.models.hstu import HSTU
from seqcl.models.iclrec import ICLRec
from seqcl.models.icsrec import ICSRec
from seqcl.models.imixrec import IMixRec
from seqcl.models.item_knn import ItemKNN
from seqcl.models.markov import Markov
from seqcl.models.mclrec import MCLRec
from seqcl.models.mocorec import MoCoRec
from seqcl.models.mocov3rec import MoCoV3Rec
from seqcl.models.narm import NARM
from seqcl.models.pirlrec import PIRLRec
from seqcl.models.popularity import Popularity
from seqcl.models.pretraining import Pretraining
from seqcl.models.s3rec import S3Rec
from seqcl.models.sasrec import SASRec
from seqcl.models.simclrv2rec import SimCLRv2Rec
from seqcl.models.simsiamrec import SimSiamRec
from seqcl.models.sknn import SKNN
from seqcl.models.slist import SLIST
from seqcl.models.supconrec import SupConRec
from seqcl.models.swavrec import SwAVRec
from seqcl.models.ticoserec import TiCoSeRec
from seqcl.models.two_tower import TwoTower
from seqcl.models.vicregrec import VICRegRec
from seqcl.models.vsknn import VSKNN
from seqcl.registry import table

MODELS = table(
    "model",
    {
        "CL4Rec": CL4Rec,
        "CL4SRec": CL4Rec,
        "CoSeRec": CoSeRec,
        "TiCoSeRec": TiCoSeRec,
        "DuoRec": DuoRec,
        "ICLRec": ICLRec,
        "ICSRec": ICSRec,
        "MCLRec": MCLRec,
        "CauseRec": CauseRec,
        "S3Rec": S3Rec,
        "SimCLRv2Rec": SimCLRv2Rec,
        "MoCoRec": MoCoRec,
        "MoCoV3Rec": MoCoV3Rec,
        "BYOLRec": BYOLRec,
        "SimSiamRec": SimSiamRec,
        "BarlowRec": BarlowRec,
        "VICRegRec": VICRegRec,
        "AlignUniformRec": AlignUniformRec,
        "DirectAU": DirectAU,
        "IMixRec": IMixRec,
        "CLAERec": CLAERec,
        "SwAVRec": SwAVRec,
        "PIRLRec": PIRLRec,
        "SupConRec": SupConRec,
        "Distil": Distil,
        "TwoTower": TwoTower,
        "SASRec": SASRec,
        "BSARec": BSARec,
        "GRU4Rec": GRU4Rec,
        "NARM": NARM,
        "BERT4Rec": BERT4Rec,
        "HSTU": HSTU,
        "EASE": EASE,
        "SLIST": SLIST,
        "ItemKNN": ItemKNN,
        "SKNN": SKNN,
        "VSKNN": VSKNN,
        "Markov": Markov,
        "Popularity": Popularity,
    },
    Recommender,
    Baseline,
)
"""The recipes that `--model` takes: a new one is one file and one row here (and its import)."""

__all__ = ["MODELS", "Baseline", "Contrastive", "Model", "Parts", "Pretraining", "Recommender"]
