"""Contrastive learning for sequential recommendation.

Four calls from a data frame to recommendations:

    run = seqcl.train(frame, model="CL4Rec", train={"epochs": 20})
    run.metrics["test"]["ndcg@10"]
    run.evaluate("valid").metrics
    run.recommend(items=["B001", "B007"], k=10)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seqcl import extensions, registry
from seqcl.errors import UserError
from seqcl.version import VERSION as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from seqcl.data import Interactions
    from seqcl.experiment import Run, train

__all__ = ["Interactions", "Run", "UserError", "__version__", "train"]


def _recbole(name: str) -> Any:
    from seqcl.integrations.recbole_encoders import encoder

    return encoder(name)


def _recbole_config(path: Path) -> dict[str, Any]:
    from seqcl.integrations.recbole_yaml import options

    return options(path)


extensions.ENCODERS["recbole"] = _recbole
registry.register("encoder", _recbole, name="recbole:")
extensions.CONFIG_FILES["--recbole-config"] = _recbole_config


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `seqcl --version` and error messages do without.
    if name in ("Run", "train"):
        from seqcl import experiment

        return getattr(experiment, name)
    if name == "Interactions":
        from seqcl.data import Interactions

        return Interactions
    raise AttributeError(f"module 'seqcl' has no attribute {name!r}")
