"""Encoders: from a batch of sequences to states."""

from collections.abc import Callable
from typing import Any

from seqcl import registry
from seqcl.encoders.bert import BERT4Rec
from seqcl.encoders.bsarec import BSARec
from seqcl.encoders.gru import GRU
from seqcl.encoders.hstu import HSTU
from seqcl.encoders.narm import NARM
from seqcl.encoders.sasrec import SASRec
from seqcl.encoders.two_tower import TwoTower
from seqcl.errors import unknown
from seqcl.extensions import foreign

ENCODERS = registry.table(
    "encoder", {"SASRec": SASRec, "BSARec": BSARec, "GRU": GRU, "HSTU": HSTU, "NARM": NARM, "BERT4Rec": BERT4Rec}
)
"""What `--encoder` takes; a new encoder is one file and one row here."""


def find_encoder(name: str) -> Callable[..., Any]:
    """The class of an encoder by its name: a row of `ENCODERS`, or `prefix:name` of another project.

    Raises:
        UserError: there is none, or the project that has it is not installed.
    """
    found = ENCODERS.get(name) or foreign(name)
    if found is None:
        raise unknown("encoder", name, ENCODERS)
    return found


__all__ = ["ENCODERS", "GRU", "HSTU", "NARM", "BERT4Rec", "BSARec", "SASRec", "TwoTower", "find_encoder"]
