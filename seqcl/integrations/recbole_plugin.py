"""RecBole through the doors that are open to everyone: `--encoder recbole:NAME` and `--recbole-config FILE`.

This module is the entry point `recbole` in the group `seqcl.plugins`. RecBole itself is imported when an encoder of its is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqcl import registry


def find_encoder(name: str) -> Any:
    """The encoder class of a sequential model of RecBole."""
    from seqcl.integrations.recbole_encoders import encoder

    return encoder(name)


def read_config(path: Path) -> dict[str, Any]:
    """a YAML of RecBole's with its keys for data and evaluation; --config and options win"""
    from seqcl.integrations.recbole_yaml import options

    return options(path)


registry.register("encoder", find_encoder, name="recbole:")
registry.CONFIG_FILES["--recbole-config"] = read_config
