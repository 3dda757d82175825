"""Attributes of items, as words: from columns of the item table, or from a JSON file of item -> [attributes]."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl.data.cells import all_numbers, cells_of, examples, listed_columns, missing, to_bag, words_in
from seqcl.data.files import ATTRIBUTES
from seqcl.data.tables import load_table
from seqcl.disk import regular
from seqcl.errors import UserError, brief
from seqcl.types import Bag, Tables

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("seqcl")


def item_attributes(tables: Tables, chosen: str | None = None) -> Bag:
    """The attributes of the items of a log: rows PAD, 1..N, MASK, words such as "class=Drama".

    Args:
        tables: the tables of the log.
        chosen: a .json file of item -> [attributes]; or columns of the item table, separated by commas; None: all columns
            of words. Without a choice, a column with as many different words as there are items is left out, if others
            remain. Text is split at blanks.

    Raises:
        UserError: no item table, no such file or column, a column of fractions, or no item of the log has an attribute.
    """
    names: str | None = chosen
    if chosen is not None and chosen.lower().endswith(".json"):
        source, table, names = chosen, read_attributes(Path(chosen).expanduser()), "attributes"
    else:
        source, found_table = f"the item table of {tables.name}", load_table(tables.items)
        if found_table is None:
            raise no_item_table(tables.name)
        table = found_table
    cells = cells_of(table, tables.item_ids, source)
    if names is None:
        words = telling_words(cells, len(tables.item_ids))
    else:
        cells = {name: cells[name] for name in listed_columns(names, cells, source)}
        for name, column in cells.items():
            if any(isinstance(cell, float) and not cell.is_integer() for cell in column if not missing(cell)):
                raise UserError(f"{source}: column {name!r} holds fractions, but an attribute must be a word")
        words = word_sets(cells)
    owned = [
        sorted((name, word) for name, sets in words.items() for word in sets[item])
        for item in range(len(tables.item_ids))
    ]
    found = sorted(set().union(*owned))
    if not found:
        raise UserError(
            f"{source}: no item of {tables.name} has an attribute in {', '.join(words) or 'any column of words'}; items are "
            f"such as {examples(tables.item_ids)} in the log, and {examples(table.index)} in the table"
        )
    logger.info("%d attributes of items, from %s: %s", len(found), source, ", ".join(words))
    number = {pair: place for place, pair in enumerate(found)}
    rows = [[], *([number[pair] for pair in pairs] for pairs in owned), []]  # PAD, items, MASK
    return to_bag(rows, [f"{name}={word}" for name, word in found])


def word_sets(cells: Mapping[str, Sequence[Any]]) -> dict[str, list[set[str]]]:
    """The set of words of every cell, by column."""
    return {name: [set(words_in(cell)) for cell in column] for name, column in cells.items()}


def telling_words(cells: Mapping[str, Sequence[Any]], num_items: int) -> dict[str, list[set[str]]]:
    """The sets of words of the columns that hold words.

    A column with as many different words as there are items, such as titles, is left out, if others remain.
    """
    words = word_sets({name: column for name, column in cells.items() if not all_numbers(column)})
    return {name: sets for name, sets in words.items() if len(set().union(*sets)) < num_items} or words


def no_item_table(name: str) -> UserError:
    """The error for a log without a table of items; it lists the ways to give one."""
    return UserError(
        f"{name} has no table of items, so the attributes of its items are not known. Ways to give them: name a JSON file "
        f"of item -> [attributes] (--mutual.attributes FILE.json); put one beside the log as NAME{ATTRIBUTES} "
        "(`seqcl data download NAME` does so for a published data set that has one); put an .item file beside an .inter "
        "file. Or do without: --mutual.item_attribute 0 --mutual.masked_attribute 0"
    )


def read_attributes(path: Path) -> pd.DataFrame:
    """Read a JSON file of item -> [attributes] as a table indexed by raw item id, with one column `attributes`.

    Raises:
        UserError: the file cannot be read, is no JSON, or gives an item anything but a list of words and numbers.
    """
    import pandas as pd

    try:
        known = json.loads((regular(path) if path.exists() else path).read_text(encoding="utf-8-sig"))
        json.dumps(known, ensure_ascii=False).encode()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise UserError(
            f"{path}: a word holds half a letter, an escape such as \\ud800 without its other half"
        ) from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, or lists in lists in lists
        raise UserError(f"{path}: it cannot be read: {brief(error)}") from None
    if not isinstance(known, dict) or not known:
        raise UserError(f"{path}: it must hold an object of item -> [attributes], not {json.dumps(known)[:60]}")
    for item, words in known.items():
        if not isinstance(words, list) or not all(is_word(word) for word in words):
            raise UserError(f"{path}: item {item!r} must have a list of words or numbers, not {json.dumps(words)[:60]}")
    lists = [[str(word) for word in words] for words in known.values()]
    return pd.DataFrame({"attributes": lists}, index=list(known))


def is_word(value: Any) -> bool:
    """True if a value of a JSON file is text or a finite number."""
    return isinstance(value, str) or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
