"""Say in one line how a log was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVIELENS = ["user", "item", "rating", "timestamp"]
"""Columns by position that have a name in the field."""


def sentence(reading: Mapping[str, Any], name: str) -> str:
    """One line about a reading: layout, columns, order, what else could be meant, what was left out, how to change it.

    Args:
        reading: as `Interactions.reading`.
        name: name of the log, where the reading names no file.
    """
    name = reading.get("source", name)
    if not reading:
        return f"{name}: given as it is, no file was read"
    columns = reading["columns"]
    if not columns:
        return f"{name}: {reading['layout']}; use --data.format to change"
    if positions := reading.get("positions"):
        known = " (MovieLens' layout)" if positions == MOVIELENS else ""
        text, change = f"{name}: {reading['layout']}; {', '.join(positions)} by position{known}", "--data.columns"
    else:
        parts = [f"{role} {column}" if role != column else role for role, column in columns.items()]
        text, change = f"{name}: {reading['layout']}; {', '.join(parts)}", "--data.user, --data.item, --data.time"
    text += f"; {reading['times']}" if reading["times"] else "; rows in the order of the source"
    for role, names in reading["others"].items():
        text += f"; {role} could also be {' or '.join(names)}"
    for why, rows in reading["dropped"].items():
        text += f"; {rows:,} rows left out ({why})"
    return f"{text}; use {change} to change"
