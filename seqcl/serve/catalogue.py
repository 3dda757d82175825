"""What is known of items beyond their ids: titles, pictures, attributes; and the search by id or title."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from seqcl.data.cells import missing

TITLES = ("title", "name")
PICTURES = ("picture", "image", "poster", "cover", "photo")
LOOKED_AT = 1000
"""Items that a search takes of those which hold a text in one way: id, title, begin of a word, anywhere."""


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
        lines = [self.line(item) for item in range(1, len(item_ids) + 1)]
        self.lines = "\n" + "\n".join(lines) + "\n"
        self.starts = np.cumsum([1, *(len(line) + 1 for line in lines)])  # (N + 1,)

    def line(self, item: int) -> str:
        """Join what a search looks at: the id and the title of an item, a tab between them."""
        title = cell(self.columns[self.title][item - 1]) if self.title else None
        return "\t".join(plain(str(one)) for one in (self.item_ids[item - 1], "" if title is None else title))

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
        """Items with a text in their id or title: the item of this id, titles, then ids that begin with it, then others."""
        wanted = plain(text)
        if not wanted:
            return []
        pattern = re.escape(wanted).replace(r"\ ", "[ \t]")  # it may go on from the id into the title
        found = set(self.holding(pattern))
        if len(found) == LOOKED_AT:  # those that rank high may stand behind them
            for way in (f"\n{pattern}\t", f"\t{pattern}", f"\n{pattern}", f" {pattern}"):
                found.update(self.holding(way))
        return sorted(found, key=lambda item: self.rank(item, wanted))[:limit]

    def holding(self, pattern: str) -> Iterator[int]:
        """The first `LOOKED_AT` items in whose line a pattern begins, or at the break before it."""
        search, start = re.compile(pattern).search, 0
        for _ in range(LOOKED_AT):
            if (match := search(self.lines, start)) is None:
                return
            item = int(np.searchsorted(self.starts, match.start() + match.group().startswith("\n"), side="right"))
            yield item
            start = int(self.starts[item]) - 1  # the break before the next line

    def rank(self, item: int, wanted: str) -> tuple[int, int]:
        """The place of an item among those that a search has found; the smallest is the first."""
        name, _, title = self.lines[self.starts[item - 1] : self.starts[item] - 1].partition("\t")
        begins = title.startswith(wanted), name.startswith(wanted)
        return (name == wanted, *begins, f" {wanted}" in f" {title}", True).index(True), item


def plain(text: str) -> str:
    """A text in small letters, with single spaces."""
    return " ".join(text.lower().split())


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
    if missing(value) or value == "":
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
