"""The options of a model of RecBole, out of its own file of properties: their names, defaults, types and what they mean."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import yaml

LEARNING = (
    *("loss_type", "reg_weight", "transform", "mask_ratio", "ft_ratio", "item_dropout", "temperature"),
    "reg_loss_ratio",  # SINE
    *("use_out_emb", "n_facet_all", "n_facet", "n_facet_context", "n_facet_reranker", "reranker_CAN_NUM"),  # GRU4RecCPR
    *("n_facet_emb", "n_facet_hidden", "n_facet_window", "n_facet_MLP", "weight_mode", "context_norm"),
    *("partition_merging_mode", "reranker_merging_mode", "use_proj_bias", "post_remove_context"),
)
"""Keys of RecBole's files that say how its own loss and scores are made, which are not used here."""
WIDTHS = ("embedding_size", "hidden_size")
"""What RecBole calls the width of states and items; where a file has both, the first."""


def options_of(defaults: dict[str, Any]) -> dict[str, Any]:
    """The keys that say how states are made, the width's without a value, since `dim` may say it."""
    width = width_key(defaults)
    return {key: None if key == width else value for key, value in defaults.items() if key not in LEARNING}


def properties(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of a model's file with their values, and what its comments say of them."""
    text = path.read_text(encoding="utf-8")
    values = {key: number(value) for key, value in (yaml.safe_load(text) or {}).items()}
    comments = re.findall(r"^(\w+):[^#\n]*#\s*(?:\([^)]*\)\s*)?(.+?)\s*$", text, re.MULTILINE)
    return values, dict(comments)


def number(value: Any) -> Any:
    """RecBole reads 1e-12 as a number, YAML 1.1 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def constructor(base: type, options: dict[str, Any]) -> Any:
    """A constructor like that of `base` whose signature has an option for every key, as options are read from there."""

    def __init__(self: Any, **values: Any) -> None:
        base.__init__(self, **values)  # type: ignore[misc]

    keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    types = {
        "num_items": int,
        "max_len": int,
        "dim": int | None,
        **{key: int | None if key in WIDTHS and value is None else type_of(value) for key, value in options.items()},
    }
    values = {"num_items": empty, "max_len": empty, "dim": None, **options}
    parameters = [inspect.Parameter(key, keyword, default=values[key], annotation=types[key]) for key in values]
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = inspect.Signature([itself, *parameters], return_annotation=None)  # type: ignore[attr-defined]
    __init__.__annotations__ = {**types, "return": None}
    return __init__


def type_of(value: Any) -> Any:
    """The type of an option from its value in RecBole's file."""
    if isinstance(value, list):
        return list[type(value[0])] if value else list  # type: ignore[misc]
    return str | None if value is None else type(value)


def document(name: str, defaults: dict[str, Any], texts: dict[str, str]) -> str:
    """The documentation of a class, from which its help page is made."""
    lines = [
        f"RecBole's {name}, one state a row; learns from rows with one target each (--data.windows prefix).",
        "",
        "Args:",
    ]
    lines += ["    num_items: N, ids 1..N.", "    max_len: longest row, in items."]
    lines += [f"    dim: width D of states and item embeddings; RecBole's {width_key(defaults)}."]
    lines += [f"    {key}: {texts.get(key, 'as in RecBole')}" for key in options_of(defaults)]
    return "\n".join(lines)


def width_key(defaults: dict[str, Any]) -> str:
    """What the model's file calls the width of its states."""
    return next((key for key in WIDTHS if key in defaults), WIDTHS[0])
