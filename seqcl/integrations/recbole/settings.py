"""The settings of a recipe out of RecBole's configuration: our names, `encoder.dim` or a section `encoder: {dim: 64}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqcl import config as configuration
from seqcl.config import Recipe
from seqcl.config.settings import flatten
from seqcl.errors import UserError, unknown
from seqcl.integrations.recbole_keys import all_refused
from seqcl.models import MODELS
from seqcl.parts import declared

OURS = {
    "hidden_size": "encoder.dim",
    "embedding_size": "encoder.dim",
    "inner_size": "encoder.hidden",
    "n_layers": "encoder.layers",
    "num_layers": "encoder.layers",
    "n_heads": "encoder.heads",
    "hidden_dropout_prob": "encoder.dropout",
    "attn_dropout_prob": "encoder.attention_dropout",
    "dropout_prob": "encoder.dropout",
    "hidden_act": "encoder.activation",
    "loss_type": "next_item.loss",
    "tau": "objective.temperature",
    "lmd": "objective.weight",
}
"""Our names for settings of RecBole's own models, and of its contrastive forks."""
MEANING = {"inner_size": ", a multiple of encoder.dim"}
"""A word on our setting, where it does not mean the same."""
RUNNING = {
    "model",
    "dataset",
    "nproc",
    "world_size",
    "ip",
    "port",
    "offset",
    "local_rank",
    "config_file",
    "config_files",
    "encoding",
    "tail_ratio",
}
"""Keys that RecBole puts into a configuration itself, or reads without having them in its lists."""


def resolved(recipe: str, values: Mapping[str, Any]) -> tuple[Recipe, Any]:
    """A recipe with the settings that RecBole's configuration has for it, and the start of its item embeddings.

    A dotted name goes before a section.

    Raises:
        UserError: an unknown name, or a value that does not fit.
    """
    sections = declared(MODELS[recipe])
    mine = {key: value for key, value in values.items() if key == "start" or key.partition(".")[0] in sections}
    whole = dict(flatten({key: value for key, value in mine.items() if "." not in key}))
    dotted = dict(flatten({key: value for key, value in mine.items() if "." in key}))
    return configuration.recipe(recipe, {**whole, **dotted})


def check_keys(recipe: str, config: Any) -> None:
    """Refuse a key that neither RecBole nor the recipe knows, before any data is read; RecBole's Config calls it.

    A word of the command line without a dot may be meant for the script that runs, and is left alone.

    Raises:
        UserError: names the nearest that is known.
    """
    known = {key for keys in config.parameters.values() for key in keys} | config.internal_config_dict.keys() | RUNNING
    sections = declared(MODELS[recipe])
    refused: dict[str, tuple[UserError, str]] = {}
    for key in config.external_config_dict:
        if key in known or key == "start" or key.partition(".")[0] in sections:
            continue
        options = [name for name, _ in flatten(resolved(recipe, {})[0].values())]
        if key in OURS:
            here = f"here it is {OURS[key]}{MEANING.get(key, '')}" if OURS[key] in options else ""
            text = f"{recipe} has no {key}, which is a setting of RecBole's own models{here and ': '}{here}"
            refused[key] = UserError(text), here or "a setting of RecBole's own models"
        elif key not in config.cmd_config_dict or "." in key:
            names = [*known, *sections] if "." not in key else options
            refused[key] = unknown(f"setting of {recipe} or RecBole", key, names), "unknown"
    if refused:
        raise all_refused(refused)
    if config.external_config_dict.get("train_neg_sample_args") is not None:
        raise UserError(
            f"{recipe} draws its negatives itself (next_item.loss, next_item.negatives): leave train_neg_sample_args out"
        )
    resolved(recipe, config.external_config_dict)
