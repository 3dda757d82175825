"""What items are: attributes from the columns of the item table, or from a JSON file of item -> [attributes]."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.files import ATTRIBUTES
from seqcl.errors import UserError, unknown
from seqcl.types import Attributes

if TYPE_CHECKING:
    import pandas as pd

    from seqcl.data.sequences import Sequences

log = logging.getLogger("seqcl")


def item_attributes(sequences: Sequences, chosen: str | None = None) -> Attributes:
    """The attributes of the items of a packed log.

    Args:
        sequences: the packed log.
        chosen: a .json file of item -> [attributes]; or columns of the item table, separated by commas, whose text is split
            at blanks; None: the columns of the item table that are no numbers and have fewer different words than there are items.

    Raises:
        UserError: no item table, no such file or column, a column of numbers, or no item of the log has an attribute.
    """
    names = chosen
    if chosen is not None and chosen.endswith(".json"):
        source, table, names = chosen, read_attributes(Path(chosen)), "attributes"
    elif sequences.item_features is not None:
        source, table = f"the item table of {sequences.name}", sequences.item_features
    else:
        raise UserError(
            f"{sequences.name} has no table of items, so that it is not known what they are: name a JSON file of "
            f"item -> [attributes], put one beside the log as NAME{ATTRIBUTES}, or have an .item file beside an .inter file"
        )
    columns = chosen_columns(table, names, source)
    table = table.loc[~table.index.duplicated(), columns].reindex(sequences.item_ids.tolist())
    words = {column: [split(cell) for cell in table[column]] for column in columns}  # of every item
    if names is None:
        words = {column: cells for column, cells in words.items() if len(set().union(*cells)) < len(cells)}
    owned = [sorted({(column, word) for column in words for word in words[column][item]}) for item in range(len(table))]
    found = sorted(set().union(*owned))
    if not found:
        raise UserError(
            f"{source}: no item of {sequences.name} has an attribute in {', '.join(columns)}; "
            f"its items are such as {', '.join(str(raw) for raw in sequences.item_ids[:3])}"
        )
    log.info("%d attributes of items, from %s: %s", len(found), source, ", ".join(words))
    number = {pair: place for place, pair in enumerate(found)}
    sizes = [0, *map(len, owned), 0]  # PAD, items, MASK
    return Attributes(
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        ids=np.array([number[pair] for pairs in owned for pair in pairs], np.int64),
        names=[f"{column}={word}" for column, word in found],
    )


def chosen_columns(table: pd.DataFrame, names: str | None, source: str) -> list[str]:
    """The columns that `names` lists, or all that hold no fractions."""
    numbers = [column for column in table.columns if table[column].dtype.kind == "f"]
    if names is None:
        return [column for column in table.columns if column not in numbers]
    columns = [name.strip() for name in names.split(",") if name.strip()]
    for column in columns:
        if column not in table.columns:
            raise unknown(f"column in {source}", column, list(table.columns))
        if column in numbers:
            raise UserError(f"{source}: column {column!r} holds numbers, and an attribute is a word")
    return columns


def split(cell: Any) -> Iterable[str]:
    """The words of a cell: text is split at blanks, a list has them already, a missing value has none."""
    if isinstance(cell, str):
        return cell.split()
    if isinstance(cell, list | tuple | set | np.ndarray):
        return [str(word) for word in cell]
    return [] if cell is None or cell != cell else [str(cell)]


def read_attributes(path: Path) -> pd.DataFrame:
    """A JSON file of item -> [attributes] as a table indexed by raw item id, with the one column `attributes`.

    Raises:
        UserError: it cannot be read, is no JSON, or an item has something else than a list.
    """
    import pandas as pd

    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    if not isinstance(known, dict):
        raise UserError(f"{path}: it must hold an object of item -> [attributes], not a {type(known).__name__}")
    for item, words in known.items():
        if not isinstance(words, list) or any(isinstance(word, list | dict) for word in words):
            raise UserError(f"{path}: item {item!r} must have a list of words or numbers, not {json.dumps(words)[:60]}")
    plain = all(item.removeprefix("-").isdecimal() and str(int(item)) == item for item in known)
    table = pd.DataFrame({"attributes": [[str(word) for word in words] for words in known.values()]})
    table.index = pd.Index([int(item) for item in known] if plain else list(known))
    return table
