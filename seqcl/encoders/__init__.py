"""Encoders: from a batch of sequences to states; and how states and items become scores."""

from seqcl.encoders.base import Encoder, Exported, TableEncoder
from seqcl.encoders.bert import BERT4Rec
from seqcl.encoders.bsarec import BSARec
from seqcl.encoders.dealt import dealt, share, states_of_all
from seqcl.encoders.door import reading, vectors_read
from seqcl.encoders.extended import Extended, kept_layers
from seqcl.encoders.gru import GRU
from seqcl.encoders.hstu import HSTU
from seqcl.encoders.memory import Memories, Memory
from seqcl.encoders.narm import NARM
from seqcl.encoders.sasrec import SASRec
from seqcl.encoders.scoring import Scoring
from seqcl.encoders.several import Several
from seqcl.encoders.table import ItemTable
from seqcl.encoders.taprec import TapRec
from seqcl.encoders.two_tower import TwoTower
from seqcl.registry import table

ENCODERS = table(
    "encoder",
    {
        "SASRec": SASRec,
        "BSARec": BSARec,
        "TapRec": TapRec,
        "GRU": GRU,
        "HSTU": HSTU,
        "NARM": NARM,
        "BERT4Rec": BERT4Rec,
    },
    Encoder,
)
"""The encoders that `--encoder` takes: a new one is one file and one row here (and its import)."""

__all__ = [
    "ENCODERS",
    "GRU",
    "HSTU",
    "NARM",
    "BERT4Rec",
    "BSARec",
    "Encoder",
    "Exported",
    "Extended",
    "ItemTable",
    "Memories",
    "Memory",
    "SASRec",
    "Scoring",
    "Several",
    "TableEncoder",
    "TapRec",
    "TwoTower",
    "dealt",
    "kept_layers",
    "reading",
    "share",
    "states_of_all",
    "vectors_read",
]
