"""Recipes: each paper is one short file that declares its encoder, views and objectives."""

from seqcl.models.alignuniformrec import AlignUniformRec
from seqcl.models.barlowrec import BarlowRec
from seqcl.models.base import Baseline, Contrastive, Model, Parts, Recommender
from seqcl.models.bert4rec import BERT4Rec
from seqcl.models.blend import Blend
from seqcl.models.bsarec import BSARec
from seqcl.models.byolrec import BYOLRec
from seqcl.models.casr import CASR
from seqcl.models.causerec import CauseRec
from seqcl.models.cclrec import CCLRec
from seqcl.models.cl4rec import CL4Rec
from seqcl.models.claerec import CLAERec
from seqcl.models.coserec import CoSeRec
from seqcl.models.cpcrec import CPCRec
from seqcl.models.dimrec import DIMRec
from seqcl.models.directau import DirectAU
from seqcl.models.distil import Distil
from seqcl.models.duorec import DuoRec
from seqcl.models.ease import EASE
from seqcl.models.ensemble import Ensemble
from seqcl.models.graphclrec import GraphCLRec
from seqcl.models.gru4rec import GRU4Rec
from seqcl.models.hstu import HSTU
from seqcl.models.iclrec import ICLRec
from seqcl.models.icsrec import ICSRec
from seqcl.models.imixrec import IMixRec
from seqcl.models.infominrec import InfoMinRec
from seqcl.models.instancerec import InstanceRec
from seqcl.models.item_knn import ItemKNN
from seqcl.models.locorec import LoCoRec
from seqcl.models.loocrec import LooCRec
from seqcl.models.marginrec import MarginRec
from seqcl.models.markov import Markov
from seqcl.models.mclrec import MCLRec
from seqcl.models.micerec import MiCERec
from seqcl.models.mminforec import MMInfoRec
from seqcl.models.mocorec import MoCoRec
from seqcl.models.mocov3rec import MoCoV3Rec
from seqcl.models.narm import NARM
from seqcl.models.pclrec import PCLRec
from seqcl.models.pirlrec import PIRLRec
from seqcl.models.popularity import Popularity
from seqcl.models.pretraining import Pretraining
from seqcl.models.s3rec import S3Rec
from seqcl.models.sasrec import SASRec
from seqcl.models.sglrec import SGLRec
from seqcl.models.simclrv2rec import SimCLRv2Rec
from seqcl.models.simsiamrec import SimSiamRec
from seqcl.models.sknn import SKNN
from seqcl.models.slist import SLIST
from seqcl.models.spclrec import SpCLRec
from seqcl.models.supconrec import SupConRec
from seqcl.models.swavrec import SwAVRec
from seqcl.models.taprec import TapRec
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
        "CCLRec": CCLRec,
        "DuoRec": DuoRec,
        "ICLRec": ICLRec,
        "ICSRec": ICSRec,
        "MCLRec": MCLRec,
        "InfoMinRec": InfoMinRec,
        "CauseRec": CauseRec,
        "CASR": CASR,
        "S3Rec": S3Rec,
        "SimCLRv2Rec": SimCLRv2Rec,
        "MoCoRec": MoCoRec,
        "MoCoV3Rec": MoCoV3Rec,
        "BYOLRec": BYOLRec,
        "SimSiamRec": SimSiamRec,
        "BarlowRec": BarlowRec,
        "VICRegRec": VICRegRec,
        "AlignUniformRec": AlignUniformRec,
        "MarginRec": MarginRec,
        "InstanceRec": InstanceRec,
        "LoCoRec": LoCoRec,
        "LooCRec": LooCRec,
        "GraphCLRec": GraphCLRec,
        "SGLRec": SGLRec,
        "DirectAU": DirectAU,
        "IMixRec": IMixRec,
        "CLAERec": CLAERec,
        "SwAVRec": SwAVRec,
        "PCLRec": PCLRec,
        "SpCLRec": SpCLRec,
        "MiCERec": MiCERec,
        "PIRLRec": PIRLRec,
        "SupConRec": SupConRec,
        "CPCRec": CPCRec,
        "MMInfoRec": MMInfoRec,
        "DIMRec": DIMRec,
        "Distil": Distil,
        "TwoTower": TwoTower,
        "SASRec": SASRec,
        "BSARec": BSARec,
        "TapRec": TapRec,
        "GRU4Rec": GRU4Rec,
        "NARM": NARM,
        "BERT4Rec": BERT4Rec,
        "HSTU": HSTU,
        "Ensemble": Ensemble,
        "Blend": Blend,
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

__all__ = ["MODELS", "Baseline", "Blend", "Contrastive", "Model", "Parts", "Pretraining", "Recommender"]
