"""Options of a model of RecBole, read from its own file of properties: names, defaults, types and meaning."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import yaml

from seqcl.errors import UserError, unknown

LEARNING = (
    *("loss_type", "reg_weight", "transform", "mask_ratio", "ft_ratio", "item_dropout", "temperature"),
    "reg_loss_ratio",  # SINE
    *("use_out_emb", "n_facet_all", "n_facet", "n_facet_context", "n_facet_reranker", "reranker_CAN_NUM"),  # GRU4RecCPR
    *("n_facet_emb", "n_facet_hidden", "n_facet_window", "n_facet_MLP", "weight_mode", "context_norm"),
    *("partition_merging_mode", "reranker_merging_mode", "use_proj_bias", "post_remove_context"),
)
"""Keys of RecBole's files about its own loss and scores, which are not used here."""
WIDTHS = ("embedding_size", "hidden_size")
"""RecBole's names for the width of states and items; if a file has both, the first counts."""


def options_of(defaults: dict[str, Any]) -> dict[str, Any]:
    """The keys about states; the width has no value, since `dim` may give it."""
    width = width_key(defaults)
    return {key: None if key == width else value for key, value in defaults.items() if key not in LEARNING}


def properties(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the keys of a model's file with their values, and its comments on them."""
    text = path.read_text(encoding="utf-8")
    values = {key: number(value) for key, value in (yaml.safe_load(text) or {}).items()}
    comments = re.findall(r"^(\w+):[^#\n]*#\s*(?:\([^)]*\)\s*)?(.+?)\s*$", text, re.MULTILINE)
    return values, dict(comments)


def number(value: Any) -> Any:
    """Read text such as 1e-12 as a number, as RecBole does; YAML 1.1 takes it for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def constructor(base: type, options: dict[str, Any]) -> Any:
    """Make a constructor like that of `base`, with an option for every key in its signature, where options are read from."""

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


def check_values(name: str, given: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Refuse values that do not have the type of their default: a bundle's come from its manifest, unread by any parser.

    Raises:
        UserError: names the key, and the nearest one where there is no such key.
    """
    known = options_of(defaults)
    for key, value in given.items():
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        default = defaults[key]
        if not (fits(value, default) or (value is None and known[key] is None)):
            wanted = "text" if default is None else f"like {default!r}, a {type(default).__name__}"
            raise UserError(f"{name}: encoder.{key} must be {wanted}, not {value!r:.60}")


def fits(value: Any, default: Any) -> bool:
    """True if a value has the type of a default; a whole number is a fraction too, a truth value is no number."""
    if isinstance(default, list):
        return isinstance(value, list) and all(fits(one, like) for one in value for like in default[:1])
    kind = str if default is None else type(default)
    return type(value) is kind or (kind is float and type(value) is int)


def type_of(value: Any) -> Any:
    """Derive the type of an option from its value in RecBole's file."""
    if isinstance(value, list):
        return list[type(value[0])] if value else list  # type: ignore[misc]
    return str | None if value is None else type(value)


def document(name: str, defaults: dict[str, Any], texts: dict[str, str]) -> str:
    """Write the documentation of a class, from which its help page is made."""
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
    """The key of the width of states in a model's file."""
    return next((key for key in WIDTHS if key in defaults), WIDTHS[0])
