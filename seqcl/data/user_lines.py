"""Evidence for and against files with a line a user: 'user item item ...' and 'user:item item ...'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seqcl.data.dates import looks_like_date
from seqcl.data.evidence import number
from seqcl.errors import UserError


def colon_rows(lines: Sequence[str]) -> bool:
    """True if every line is 'user:item item ...', for most lines of another user."""
    users = set()
    for line in lines:
        owner, colon, rest = line.partition(":")
        if not colon or ":" in rest or len(owner.split()) != 1 or owner != owner.strip() or not rest.split():
            return False
        users.add(owner)
    return 2 * len(users) > len(lines) and any(len(line.split()) > 1 for line in lines)


def check_sequences(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Refuse rows that are not plausibly 'user item item ...'.

    Raises:
        UserError: names the first line that speaks against it.
    """
    way_out = "if it is a line a user all the same, add --data.format text; for a table, --data.columns user,item,_"
    seen: dict[str, int] = {}
    again = 0
    for line, cells in enumerate(rows, 1):
        if len(cells) == 1 and "," in cells[0]:
            raise UserError(
                f"{path}:{line}: column 2: user {cells[0][:40]!r} has no items (a table separated by commas needs rows of one width)"
            )
        again += cells[0] in seen
        seen.setdefault(cells[0], line)
        strange = next((cell for cell in cells if strange_item(cell)), None)
        if strange is not None:
            raise UserError(
                f"{path}:{line}: no known layout: {strange[:40]!r} is no item of a line 'user item item ...'; {way_out}"
            )
    widths = Counter(map(len, rows))
    usual_width, often = widths.most_common(1)[0]
    if again and usual_width <= 4 and 2 * often > len(rows) and len(rows) > 2:
        odd = next(line for line, cells in enumerate(rows, 1) if len(cells) != usual_width)
        raise UserError(
            f"{path}:{odd}: {len(rows[odd - 1])} cells, but most lines have {usual_width}, and users recur, as in a table; mend the line, or {way_out}"
        )
    if 2 * again > len(rows):
        raise UserError(
            f"{path}: no known layout: most lines begin with a word that an earlier line begins with; {way_out}"
        )


def strange_item(cell: str) -> bool:
    """True for what is no id of an item: a pair, a fraction, a date, a word with a mark of punctuation."""
    if looks_like_date(cell) or (number(cell) is not None and "." in cell):
        return True
    return ":" in cell or cell[-1] in ",.;!?" or cell[0] in "[{("
