"""What items are, in words: from the columns of the item table, or from a JSON file of item -> [attributes]."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl.data.cells import bag, cells_of, listed, missing, numeric, some, split
from seqcl.data.files import ATTRIBUTES
from seqcl.errors import UserError
from seqcl.types import Bag

if TYPE_CHECKING:
    import pandas as pd

    from seqcl.data.sequences import Sequences

log = logging.getLogger("seqcl")


def item_attributes(sequences: Sequences, chosen: str | None = None) -> Bag:
    """The attributes of the items of a packed log: rows PAD, 1..N, MASK, words such as "class=Drama".

    Args:
        sequences: the packed log.
        chosen: a .json file of item -> [attributes]; or columns of the item table, separated by commas; None: the columns of
            the table that hold words, without those that have as many different words as there are items, if others are left.
            Text is split at blanks.

    Raises:
        UserError: no item table, no such file or column, a column of fractions, or no item of the log has an attribute.
    """
    names = chosen
    if chosen is not None and chosen.lower().endswith(".json"):
        source, table, names = chosen, read_attributes(Path(chosen).expanduser()), "attributes"
    elif sequences.item_features is not None:
        source, table = f"the item table of {sequences.name}", sequences.item_features
    else:
        raise UserError(
            f"{sequences.name} has no table of items, so that it is not known what they are: name a JSON file of "
            f"item -> [attributes] (--mutual.attributes FILE.json), put one beside the log as NAME{ATTRIBUTES} "
            "(`seqcl data download NAME` does for a published set that has one), have an .item file beside an .inter file, or "
            "do without: --mutual.item_attribute 0 --mutual.masked_attribute 0"
        )
    cells = cells_of(table, sequences.item_ids, source)
    if names is not None:
        cells = {name: cells[name] for name in listed(names, cells, source)}
        for name, column in cells.items():
            if any(isinstance(cell, float) and not cell.is_integer() for cell in column if not missing(cell)):
                raise UserError(f"{source}: column {name!r} holds fractions, and an attribute is a word")
    else:
        cells = {name: column for name, column in cells.items() if not numeric(column)}
    words = {name: [set(split(cell)) for cell in column] for name, column in cells.items()}  # of every item
    if names is None:
        telling = {name: rows for name, rows in words.items() if len(set().union(*rows)) < sequences.num_items}
        words = telling or words
    owned = [
        sorted((name, word) for name in words for word in words[name][item]) for item in range(sequences.num_items)
    ]
    found = sorted(set().union(*owned))
    if not found:
        raise UserError(
            f"{source}: no item of {sequences.name} has an attribute in {', '.join(words) or 'any column of words'}; items are "
            f"such as {some(sequences.item_ids)} in the log and {some(table.index)} there"
        )
    log.info("%d attributes of items, from %s: %s", len(found), source, ", ".join(words))
    number = {pair: place for place, pair in enumerate(found)}
    rows = [[], *([number[pair] for pair in pairs] for pairs in owned), []]  # PAD, items, MASK
    return bag(rows, [f"{name}={word}" for name, word in found])


def read_attributes(path: Path) -> pd.DataFrame:
    """A JSON file of item -> [attributes] as a table indexed by raw item id, with the one column `attributes`.

    Raises:
        UserError: it cannot be read, is no JSON, or an item has something else than a list of words and numbers.
    """
    import pandas as pd

    try:
        known = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    if not isinstance(known, dict) or not known:
        raise UserError(f"{path}: it must hold an object of item -> [attributes], not {json.dumps(known)[:60]}")
    for item, words in known.items():
        if not isinstance(words, list) or not all(is_word(word) for word in words):
            raise UserError(f"{path}: item {item!r} must have a list of words or numbers, not {json.dumps(words)[:60]}")
    lists = [[str(word) for word in words] for words in known.values()]
    return pd.DataFrame({"attributes": lists}, index=list(known))


def is_word(value: Any) -> bool:
    """Whether a value of a JSON file is text or a number."""
    return isinstance(value, str) or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
