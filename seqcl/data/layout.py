"""Recognise the layout of a text file by evidence, or stop with the readings that are nearest."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqcl.data.columns import Wanted
from seqcl.data.dates import looks_like_date
from seqcl.data.evidence import looks_like_ratings, number, overlap, roles_by_content
from seqcl.data.names import usual
from seqcl.data.user_lines import check_sequences, colon_rows
from seqcl.errors import UserError

SAMPLE_LINES = 1000
"""Lines that are looked at."""

DELIMITERS = ("\t", "::", ",", ";", "|")
BLANK = " "
"""The delimiter of files whose cells any run of blanks separates."""

SPELLED = {"\t": "tabs", "::": "'::'", ",": "commas", ";": "semicolons", "|": "bars", BLANK: "blanks"}
"""Delimiters in words."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of a text file.

    Args:
        kind: table, atomic (RecBole's), text ('user item item ...'), colon ('user:item item ...') or json (a line an object).
        delimiter: what separates two cells of a table.
        quoted: quotes may group a cell.
        header: the first line names the columns.
        names: names of the columns of a table; without a header the role of each, or its place, such as _3.
    """

    kind: Literal["table", "atomic", "text", "colon", "json"]
    delimiter: str = ""
    quoted: bool = False
    header: bool = False
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "table":
            return f"separated by {SPELLED[self.delimiter]}, {'with a' if self.header else 'no'} header"
        return {
            "atomic": "RecBole's atomic file",
            "text": "a line a user, 'user item item ...', oldest first",
            "colon": "a line a user, 'user:item item ...', oldest first",
            "json": "a JSON object a line",
        }[self.kind]


def recognise(head: bytes, path: Path, wanted: Wanted, suffix: str = "") -> Layout:
    """Recognise the layout of a text file by its first bytes.

    Args:
        head: its first bytes, checked to be text.
        path: the file, for messages.
        wanted: what the user says.
        suffix: the format that the name of the file suggests, if any.

    Raises:
        UserError: nothing fits, or two readings do.
    """
    lines = sample_lines(head)
    if not lines[0].strip():
        raise UserError(f"{path}:1: there is nothing but blank space")
    format = wanted.format or suffix
    if wanted.format == "text":
        return Layout(kind="colon" if colon_rows(lines) else "text")
    if format == "json" or (not format and lines[0].lstrip().startswith(("{", "["))):
        if lines[0].lstrip().startswith("["):
            raise UserError(f"{path}:1: a JSON array; write one object a line instead (jq -c '.[]' does)")
        return Layout(kind="json")
    if format == "atomic":
        cells = lines[0].split("\t")
        return Layout(kind="atomic", delimiter="\t", header=True, names=tuple(c.strip().split(":")[0] for c in cells))
    positions = wanted.positions()
    if not positions and not format and colon_rows(lines):
        return Layout(kind="colon")
    delimiter = "\t" if format == "tsv" else best_delimiter(lines)
    if delimiter is None and format == "csv" and not same_width([line.split() for line in lines]):
        delimiter = max((",", "\t", ";", "|"), key=lines[0].count)
    rows = [cells_of_line(line, delimiter or BLANK) for line in lines]
    check_first_line(lines[0], rows, path)
    if positions is not None:
        return by_given_positions(rows, delimiter or BLANK, positions, path, wanted)
    if is_header(rows, wanted) and (delimiter or same_width(rows)):
        return with_header(rows, delimiter or BLANK)
    if delimiter is None and not same_width(rows):
        check_sequences(rows, path)
        return Layout(kind="text")
    if (
        (delimiter or len(rows[0]) == 2)
        and len(rows[0]) <= 4
        and all(number(cell) is None for row in rows for cell in row)
    ):
        raise UserError(
            f"{path}:1: is the first line a header? If so, name its columns with --data.user and --data.item; if not, say what they are with --data.columns user,item"
        )
    return by_content(rows, delimiter or BLANK, path)


def sample_lines(head: bytes) -> list[str]:
    """The first lines that are not blank, without the last one where it may be cut off."""
    lines = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    lines = lines[:-1] if len(head) >= 1 << 16 and len(lines) > 1 else lines  # the last one may be cut off
    return [line for line in lines[:SAMPLE_LINES] if line.strip()] or [""]


def cells_of_line(line: str, delimiter: str) -> list[str]:
    """The cells of a line, stripped."""
    if delimiter == BLANK:
        return line.split()
    if delimiter == "\t":  # a quote alone is a letter there
        return [unquoted(cell.strip()) for cell in line.split(delimiter)]
    if len(delimiter) > 1 or '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return [cell.strip() for cell in line.split(delimiter)]


def unquoted(cell: str) -> str:
    """A cell without the quotes around it, if there are two."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def best_delimiter(lines: Sequence[str], among: Sequence[str] = DELIMITERS) -> str | None:
    """The delimiter that gives most lines the width of the first; None for blanks, and where no delimiter does."""
    best, share = None, 0.5
    for delimiter in among:
        widths = [len(cells_of_line(line, delimiter)) for line in lines]
        same = sum(width == widths[0] for width in widths) / len(widths)
        if widths[0] > 1 and same > share:
            best, share = delimiter, same
    if best == "\t":
        pairs = [line.split("\t") for line in lines]
        if all(len(cells) == 2 for cells in pairs) and 2 * sum(BLANK in cells[1].strip() for cells in pairs) >= len(
            pairs
        ):
            return None  # 'user <tab> item item ...'
    return best


def same_width(rows: Sequence[Sequence[str]]) -> bool:
    """True if all rows have the same width, of at least two cells."""
    return len(rows[0]) > 1 and len({len(row) for row in rows}) == 1


def is_header(rows: Sequence[Sequence[str]], wanted: Wanted) -> bool:
    """True if the first row holds words, and a usual or given name, or words above numbers or dates."""
    first, below = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if not any(first) or any(is_value(cell) for cell in first):
        return False
    names = [cell.split(":")[0] for cell in first]
    if any(usual(name) or name in (wanted.user, wanted.item, wanted.time) for name in names):
        return True
    return any(all(is_value(row[place]) for row in below) for place in range(len(first))) if below else False


def is_value(cell: str) -> bool:
    """True for a number or a date, which no name of a column is."""
    return number(cell) is not None or looks_like_date(cell)


def with_header(rows: Sequence[Sequence[str]], delimiter: str) -> Layout:
    """The layout of a table with a header, which may be RecBole's typed one; a column without a name is called by its place."""
    cells = [cell or f"_{place}" for place, cell in enumerate(rows[0], 1)]
    typed = delimiter == "\t" and all(":" in cell for cell in cells)
    names = tuple(cell.split(":")[0] for cell in cells) if typed else tuple(cells)
    return Layout(
        kind="atomic" if typed else "table", delimiter=delimiter, quoted=not typed and may_quote(rows, delimiter), header=True, names=names
    )  # fmt: skip


def by_given_positions(
    rows: Sequence[Sequence[str]], delimiter: str, roles: Sequence[str], path: Path, wanted: Wanted
) -> Layout:
    """The layout of a table without a header whose columns the user names.

    Raises:
        UserError: it has another number of columns, or a header.
    """
    if len(rows[0]) != len(roles):
        raise UserError(
            f"--data.columns {wanted.columns}: {len(roles)} columns, but {path}:1 has {len(rows[0])} (separated by {SPELLED[delimiter]}): {' '.join(rows[0])[:60]}"
        )
    if len(rows) > 1 and is_header(rows, Wanted()):
        raise UserError(
            f"--data.columns {wanted.columns}: {path}:1 looks like a header ({', '.join(rows[0])[:80]}); choose its columns with --data.user, --data.item and --data.time"
        )
    return table(rows, delimiter, roles)


def may_quote(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    """True if quotes may group a cell; between tabs they do not where a cell has one quote alone, as titles have."""
    alone = (cell.startswith('"') != cell.endswith('"') for row in rows for cell in row)
    return delimiter in ",;|" or (delimiter == "\t" and not any(alone))


def table(rows: Sequence[Sequence[str]], delimiter: str, roles: Sequence[str]) -> Layout:
    """The layout of a table without a header."""
    names = [
        f"_{place}" if role == "_" else "timestamp" if role == "time" else role for place, role in enumerate(roles, 1)
    ]
    return Layout(kind="table", delimiter=delimiter, quoted=may_quote(rows, delimiter), names=tuple(names))


def by_content(rows: Sequence[Sequence[str]], delimiter: str, path: Path) -> Layout:
    """The layout of a file without a header whose rows have one width.

    Raises:
        UserError: the evidence does not decide.
    """
    width = len(rows[0])
    columns = [[row[place] for row in rows if len(row) == width] for place in range(width)]
    if width == 1:
        raise UserError(
            f"{path}:1: a line holds a single value, {rows[0][0][:40]!r}; a log has at least a user and an item"
        )
    rest, roles = roles_by_content(columns)
    recurs = len(set(columns[0])) < 0.9 * len(columns[0])
    plain = delimiter == BLANK and width > 2 and not recurs and "time" not in roles
    if plain and (width > 4 or (overlap(columns[1:]) and not looks_like_ratings(columns[-1]))):
        check_sequences(rows, path)
        return Layout(kind="text")
    if plain or (not recurs and delimiter != BLANK and "time" not in roles and width > 2 and len(rows) < 20):
        raise UserError(
            f"{path}: the layout is not clear, as no user has two rows. If a line is one interaction, add --data.columns {','.join(roles)}"
            + (
                "; if it is a user and its items, add --data.format text"
                if delimiter == BLANK
                else ", or a first line with names"
            )
        )
    if "item" not in roles:
        ways = [",".join("item" if place == n else role for place, role in enumerate(roles)) for n in rest[:2]]
        raise UserError(
            f"{path}: no header, and what the columns are is not clear: {' '.join(rows[0])[:80]}; say it, such as --data.columns {' or '.join(ways)}"
        )
    if any("," in value or value.startswith("[") for value in columns[roles.index("item")]):
        raise UserError(
            f"{path}:1: column {roles.index('item') + 1} holds lists; lists of items are read from Parquet, JSON lines, or a line a user"
        )
    return table(rows, delimiter, roles)


def check_first_line(line: str, rows: Sequence[Sequence[str]], path: Path) -> None:
    """Refuse a first line that is a comment, or the header that pandas makes of numbers.

    Raises:
        UserError: says to take it out.
    """
    if line.lstrip().startswith(("#", "%")):
        raise UserError(
            f"{path}:1: the first line is a comment: {line[:60]!r}; take it out, as in: tail -n +2 {path.name}"
        )
    width = len(rows[0])
    if width > 2 and rows[0] in ([str(n) for n in range(width)], ["", *(str(n) for n in range(width - 1))]):
        raise UserError(
            f"{path}:1: the first line counts the columns, as pandas does without names; take it out, or write names there"
        )
