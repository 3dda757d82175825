"""Recipes: each paper is one short file that composes an encoder, views and objectives."""

from seqcl.models.base import Baseline, Pretraining, Recommender
from seqcl.models.bert4rec import BERT4Rec
from seqcl.models.bsarec import BSARec
from seqcl.models.causerec import CauseRec
from seqcl.models.cl4rec import CL4Rec
from seqcl.models.coserec import CoSeRec
from seqcl.models.duorec import DuoRec
from seqcl.models.gru4rec import GRU4Rec
from seqcl.models.hstu import HSTU
from seqcl.models.iclrec import ICLRec
from seqcl.models.icsrec import ICSRec
from seqcl.models.item_knn import ItemKNN
from seqcl.models.mclrec import MCLRec
from seqcl.models.narm import NARM
from seqcl.models.paradigms import BYOLRec, MoCoRec, PIRLRec, SimSiamRec, SupConRec, SwAVRec
from seqcl.models.popularity import Popularity
from seqcl.models.s3rec import S3Rec
from seqcl.models.sasrec import SASRec
from seqcl.models.ticoserec import TiCoSeRec
from seqcl.models.two_tower import TwoTower

MODELS = {
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
    "MoCoRec": MoCoRec,
    "BYOLRec": BYOLRec,
    "SimSiamRec": SimSiamRec,
    "SwAVRec": SwAVRec,
    "PIRLRec": PIRLRec,
    "SupConRec": SupConRec,
    "TwoTower": TwoTower,
    "SASRec": SASRec,
    "BSARec": BSARec,
    "GRU4Rec": GRU4Rec,
    "NARM": NARM,
    "BERT4Rec": BERT4Rec,
    "HSTU": HSTU,
    "ItemKNN": ItemKNN,
    "Popularity": Popularity,
}
"""What `--model` takes; a new recipe is one file and one row here."""

__all__ = [
    "HSTU",
    "MODELS",
    "NARM",
    "BERT4Rec",
    "BSARec",
    "BYOLRec",
    "Baseline",
    "CL4Rec",
    "CauseRec",
    "CoSeRec",
    "DuoRec",
    "GRU4Rec",
    "ICLRec",
    "ICSRec",
    "ItemKNN",
    "MCLRec",
    "MoCoRec",
    "PIRLRec",
    "Popularity",
    "Pretraining",
    "Recommender",
    "S3Rec",
    "SASRec",
    "SimSiamRec",
    "SupConRec",
    "SwAVRec",
    "TiCoSeRec",
    "TwoTower",
]
