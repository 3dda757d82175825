"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl import disk
from seqcl.report.drawings import Records, draw_differences, draw_slices, draw_time, draw_validation, plain
from seqcl.report.table import chance
from seqcl.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True, kw_only=True)
class Details:
    """The details that a row unfolds to."""

    name: str
    seeds: str
    folders: list[str]
    config: str  # YAML
    about: Mapping[str, str]  # versions and machine
    curves: Sequence[tuple[Sequence[float], Sequence[float]]]  # epochs and validation values of each seed


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The facts of one comparison that the page shows."""

    records: Records  # the rows, the baseline first
    details: Sequence[Details]  # of each row
    metric: str
    heading: str  # data and protocol in one line
    protocol: Mapping[str, Any]  # the whole of it
    slices: Sequence[str]  # names of the slices that the records have
    contrast: Records = ()  # contrastive models beside themselves without their term


def write_page(path: Path, sheets: Sequence[Sheet]) -> None:
    """Write one page with a part for each comparison.

    Raises:
        OSError: the file cannot be written; the one before it is untouched.
    """
    page = template("page.html.j2")
    parts = [part_of(sheet) for sheet in sheets]
    title = parts[0]["title"] if len(parts) == 1 else f"{len(parts)} comparisons"
    disk.write_text(path, page.render(title=title, parts=parts, version=VERSION, date=date.today().isoformat()))


def part_of(sheet: Sheet) -> dict[str, Any]:
    """The facts of one comparison that the template needs."""
    records, metric = sheet.records, sheet.metric
    columns = {metric: metric, "± seeds": f"{metric} deviation", **dict(zip(SHOWN, SHOWN, strict=True))}
    return {
        "title": f"{len(records)} model{'s' * (len(records) > 1)} on {sheet.heading.partition(',')[0]}",
        "heading": sheet.heading,
        "protocol": sheet.protocol,
        "metric": metric,
        "baseline": records[0]["name"],
        "columns": ["model", *columns],
        "rows": cells(records, columns, metric),
        "contrast": contrast_cells(sheet.contrast, metric),
        "contrast_columns": contrast_columns(metric),
        "drawings": drawings(records, sheet.details, sheet.slices, metric),
        "details": sheet.details,
    }


def template(name: str) -> Template:
    """A template of this room."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = FileSystemLoader(Path(__file__).parent)
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=here).get_template(name)


SHOWN = ("difference", "low", "high", "p (Holm)", "seeds ahead", "effect", "seconds", "peak MiB", "parameters")
FORMS = {"seconds": ",.0f", "peak MiB": ",.0f", "parameters": ",", "effect": "+.3f"}
FORMS |= dict.fromkeys(("difference", "low", "high"), "+.4f")


def contrast_columns(metric: str) -> list[str]:
    """The columns of the table of contrast."""
    return ["model", "without contrast", f"{metric} with", f"{metric} without", "difference", "low", "high", "p (Holm)", "seeds ahead"]  # fmt: skip


def contrast_cells(records: Records, metric: str) -> list[list[dict[str, Any]]]:
    """The cells of the table of contrast, as those of `cells`."""
    return [[cell(record[key], key) for key in contrast_columns(metric)] for record in records]


def cell(value: Any, key: str) -> dict[str, Any]:
    """A cell: its text, and the value to sort by."""
    text = "" if value is None else value if isinstance(value, str) else format(value, FORMS.get(key, ".4f"))
    text = chance(value) if key == "p (Holm)" else text
    return {"text": text, "value": "" if value is None else value, "mark": ""}


def cells(records: Records, columns: Mapping[str, str], metric: str) -> list[list[dict[str, Any]]]:
    """The cells of the table: text, value to sort by, and whether it is the best or the second."""
    order = sorted(range(len(records)), key=lambda place: -records[place][metric])
    marks = dict(zip(order, ("best", "second"), strict=False))
    rows = []
    for place, record in enumerate(records):
        row = [cell(record[key], key) for key in ("name", *columns.values())]
        row[1]["mark"] = marks.get(place, "")
        rows.append(row)
    return rows


def drawings(
    records: Records, details: Sequence[Details], slices: Sequence[str], metric: str
) -> list[tuple[str, str, str]]:
    """The drawings that there are: name, what it shows, SVG."""
    records = [{**record, "name": plain(record["name"])} for record in records]
    found = [
        (
            "Differences",
            "Each point is a mean over users and seeds; where its line crosses 0, the difference may be none.",
            draw_differences(records, metric),
        ),
        ("Quality and time", "Up and to the left is better.", draw_time(records, metric)),
        (
            "Validation by epoch",
            "A line for each seed; the best epoch is the one that is tested.",
            draw_validation({plain(one.name): one.curves for one in details}, metric),
        ),
        (
            "Slices",
            "Head, torso and tail are the most frequent fifth of the items, the next two, and the rest; cold items are not in "
            "training; histories are cut into thirds by length.",
            draw_slices(records, slices, metric),
        ),
    ]
    return [(name, text, drawing) for name, text, drawing in found if drawing is not None]
