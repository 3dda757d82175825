"""Contrastive learning for sequential recommendation.

Four calls from a data frame to recommendations:

    run = seqcl.train(frame, model="CL4Rec", train={"epochs": 20})
    run.metrics["test"]["ndcg@10"]
    run.evaluate("valid").metrics
    run.recommend(items=["B001", "B007"], k=10)

`seqcl.load(folder)` reads a finished run back; `seqcl.register` and `seqcl.part` bring parts of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqcl.errors import UserError
from seqcl.version import VERSION as __version__

if TYPE_CHECKING:
    from seqcl.data import Interactions
    from seqcl.experiment import Run, load, train
    from seqcl.parts import part
    from seqcl.registry import register
    from seqcl.training import Callback

__all__ = ["Callback", "Interactions", "Run", "UserError", "__version__", "load", "part", "register", "train"]

ROOMS = {"Run": "experiment", "load": "experiment", "train": "experiment", "Interactions": "data", "part": "parts"}
ROOMS |= {"Callback": "training"}


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `seqcl --version` and error messages do without.
    if name == "register":
        import_module("seqcl.config")  # brings all tables, so that a name that is taken is refused
        from seqcl.registry import register

        return register
    if name in ROOMS:
        return getattr(import_module(f"seqcl.{ROOMS[name]}"), name)
    raise AttributeError(f"module 'seqcl' has no attribute {name!r}")
