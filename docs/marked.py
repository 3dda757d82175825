"""Tables and anchors of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable


def table(head: str, rows: Iterable[Iterable[str]], aligned: str = "") -> str:
    """A Markdown table; `head` has its columns between bars, `aligned` an r for each column of figures."""
    names = head.split(" | ")
    rule = ["---:" if aligned[place : place + 1] == "r" else "---" for place in range(len(names))]
    lines = [names, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def anchor(heading: str) -> str:
    """The anchor that the site gives a heading."""
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
