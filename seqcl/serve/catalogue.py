"""What is known of items beyond their ids: titles, pictures, attributes; and the search by id or title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TITLES = ("title", "name")
PICTURES = ("picture", "image", "poster", "cover", "photo")
LOOKED_AT = 1000
"""Items with a text that a search ranks."""


class Catalogue:
    """The items 1..N of a model, with the columns of a table if there is one.

    Args:
        item_ids: (N,) raw ids.
        columns: cells of each column, in the order of the ids; None or NaN where an item has none.
    """

    def __init__(self, item_ids: np.ndarray, columns: Mapping[str, Sequence[Any]]) -> None:
        self.item_ids = item_ids
        self.columns = dict(columns)
        self.title = named_like(TITLES, self.columns)
        self.picture = named_like(PICTURES, self.columns)
        lines = [" ".join(self.text(item).lower().split()) for item in range(1, len(item_ids) + 1)]
        self.lines = "\n" + "\n".join(lines) + "\n"
        self.starts = np.cumsum([1, *(len(line) + 1 for line in lines)])  # (N + 1,)

    def text(self, item: int) -> str:
        """The text of an item that a search looks at: its id and title."""
        title = cell(self.columns[self.title][item - 1]) if self.title else None
        return f"{self.item_ids[item - 1]} {'' if title is None else title}"

    def about(self, item: int, *, attributes: bool = True) -> dict[str, Any]:
        """What is known of an item: `item`, its raw id, `title`, `picture` and `attributes`, where there are any."""
        found: dict[str, Any] = {"item": spoken(self.item_ids[item - 1])}
        for key, name in (("title", self.title), ("picture", self.picture)):
            value = cell(self.columns[name][item - 1]) if name else None
            if value is not None:
                found[key] = str(value)
        rest = [name for name in self.columns if name not in (self.title, self.picture)] if attributes else []
        values = {name: value for name in rest if (value := cell(self.columns[name][item - 1])) is not None}
        return found | ({"attributes": values} if values else {})

    def find(self, text: str, limit: int) -> list[int]:
        """Items with a text in their id or title: the item of this id first, then titles that begin with it, then others."""
        wanted = " ".join(text.lower().split())
        found: list[int] = []
        place = self.lines.find(wanted) if wanted else -1
        while place >= 0 and len(found) < LOOKED_AT:
            item = max(1, int(np.searchsorted(self.starts, place, side="right")))
            found.append(item)
            place = self.lines.find(wanted, int(self.starts[item]))
        return sorted(found, key=lambda item: self.rank(item, wanted))[:limit]

    def rank(self, item: int, wanted: str) -> tuple[int, int]:
        """The place of an item among those that a search has found; the smallest is the first."""
        name, _, title = self.text(item).lower().partition(" ")
        order = (name == wanted, title.startswith(wanted), f" {wanted}" in f" {title}", True)
        return order.index(True), item


def named_like(endings: Sequence[str], columns: Mapping[str, Any]) -> str | None:
    """The first column whose name ends like one of these, the first ending before the others."""
    return next((name for end in endings for name in columns if name.lower().removesuffix("_url").endswith(end)), None)


def cell(value: Any) -> Any:
    """A cell as JSON holds it; None where it is empty."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return None  # a vector is nothing to read
    if isinstance(value, np.ndarray | list | tuple):
        return [one for part in value if (one := cell(part)) is not None] or None
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value != value or value == "":
        return None
    return (
        value
        if isinstance(value, bool | int | str) or (isinstance(value, float) and abs(value) < 1e300)
        else str(value)
    )


def spoken(raw: Any) -> int | str:
    """A raw id as JSON holds it: text where a reader with floating-point numbers, as browsers are, would round it."""
    raw = raw.item() if isinstance(raw, np.generic) else raw
    return raw if isinstance(raw, str) or abs(raw) < 2**53 else str(raw)
