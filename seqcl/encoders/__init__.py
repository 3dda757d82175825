"""Encoders: from a batch of sequences to states."""

from seqcl.encoders.bert import BERT4Rec
from seqcl.encoders.bsarec import BSARec
from seqcl.encoders.gru import GRU
from seqcl.encoders.hstu import HSTU
from seqcl.encoders.narm import NARM
from seqcl.encoders.sasrec import SASRec
from seqcl.encoders.two_tower import TwoTower

ENCODERS = {"SASRec": SASRec, "BSARec": BSARec, "GRU": GRU, "HSTU": HSTU, "NARM": NARM, "BERT4Rec": BERT4Rec}
"""What `--encoder` takes; a new encoder is one file and one row here."""

__all__ = ["ENCODERS", "GRU", "HSTU", "NARM", "BERT4Rec", "BSARec", "SASRec", "TwoTower"]
