"""From a log of interactions to batches: readers, the packed log and its cache, splits, and the loader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seqcl.data.batches import Loader
from seqcl.data.catalog import DATASETS
from seqcl.data.datasets import load, load_sequences, pack_to, resolve
from seqcl.data.downloads import download
from seqcl.data.files import data_folder
from seqcl.data.hardships import add_noise, hold_out_items, keep_users
from seqcl.data.interactions import Interactions
from seqcl.data.leakage import LeakageError, check_leakage
from seqcl.data.packing import DUPLICATES, pack
from seqcl.data.preparation import Preparation
from seqcl.data.sequences import Sequences
from seqcl.data.split import Split, leave_one_out, temporal
from seqcl.data.synthetic import Markov, markov, shuffled
from seqcl.data.windows import WINDOWS

if TYPE_CHECKING:
    from seqcl.data.readers import FORMATS, read
    from seqcl.data.writers import write

__all__ = [
    "DATASETS",
    "DUPLICATES",
    "FORMATS",
    "WINDOWS",
    "Interactions",
    "LeakageError",
    "Loader",
    "Markov",
    "Preparation",
    "Sequences",
    "Split",
    "add_noise",
    "check_leakage",
    "data_folder",
    "download",
    "hold_out_items",
    "keep_users",
    "leave_one_out",
    "load",
    "load_sequences",
    "markov",
    "pack",
    "pack_to",
    "read",
    "resolve",
    "shuffled",
    "temporal",
    "write",
]


def __getattr__(name: str) -> Any:
    # Readers and writers import pyarrow, which takes a third of a second; a start from the cache does without.
    if name in ("read", "FORMATS"):
        from seqcl.data import readers

        return getattr(readers, name)
    if name == "write":
        from seqcl.data.writers import write

        return write
    raise AttributeError(f"module 'seqcl.data' has no attribute {name!r}")
