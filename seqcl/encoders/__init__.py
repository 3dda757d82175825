"""Encoders: from a batch of sequences to states."""

from seqcl.encoders.gru import GRU
from seqcl.encoders.sasrec import SASRec

ENCODERS = {"SASRec": SASRec, "GRU": GRU}
"""What `--encoder` takes; a new encoder is one file and one row here."""

__all__ = ["ENCODERS", "GRU", "SASRec"]
