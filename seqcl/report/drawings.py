"""The drawings of a comparison, as SVG for a page: differences, quality against time, validation by epoch, and slices."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[Mapping[str, Any]]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
"""Colours that are told apart with any kind of colour vision (Okabe and Ito, 2008); a form of its own goes with each."""
MARKS = "osD^vP*X"

LETTERS = 90
"""Letters of names beside each other that a drawing has room for."""


def colour(place: int) -> str:
    """The colour of a row."""
    return COLOURS[place % len(COLOURS)]


def mark(place: int) -> str:
    """The form of a row's points."""
    return MARKS[(place + place // len(COLOURS)) % len(MARKS)]


def plain(name: str) -> str:
    """A name that matplotlib draws as it stands: no part of it is a formula, and none is left out of the legend."""
    return ("\N{ZERO WIDTH SPACE}" if name.startswith("_") else "") + name.replace("$", r"\$")


def draw_differences(records: Records, metric: str) -> str | None:
    """A forest plot: the difference of every row to the first one, with its interval; None if there is no other row."""
    rows = [record for record in records if record["difference"] is not None]
    if not rows:
        return None
    figure, axis = begun(height=0.8 + 0.36 * len(rows))
    for place, record in enumerate(rows):
        reach = [[record["difference"] - record["low"]], [record["high"] - record["difference"]]]
        sure = record["p (Holm)"] < 0.05
        axis.errorbar(
            record["difference"], place, xerr=reach, fmt="o", color=COLOURS[0] if sure else COLOURS[6], capsize=3,
            markerfacecolor=COLOURS[0] if sure else "white",
        )  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [record["name"] for record in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"difference in {metric} to {records[0]['name']}, 95 % interval; filled: p (Holm) below .05")
    return svg(figure)


def draw_time(records: Records, metric: str) -> str | None:
    """Quality against minutes of training, with the rows that no other one beats in both; None if none was trained."""
    rows = [(place, record) for place, record in enumerate(records) if record["seconds"]]
    if not rows:
        return None
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axis = begun(height=3.4)
    for place, record in rows:
        axis.plot(record["seconds"] / 60, record[metric], mark(place), color=colour(place), label=record["name"])
    best, front = -float("inf"), []
    for _, record in sorted(rows, key=lambda row: (row[1]["seconds"], -row[1][metric])):
        if record[metric] > best:
            best = record[metric]
            front.append((record["seconds"] / 60, best))
    axis.plot(*zip(*front, strict=True), color="black", linewidth=0.8, linestyle=":", drawstyle="steps-post")
    least, most = (some(record["seconds"] for _, record in rows) for some in (min, max))
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most > 5 * least else range(1, 10)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("minutes of training, mean over seeds; dotted: nothing is better in less time")
    axis.set_ylabel(metric)
    beside(figure, axis)
    return svg(figure)


def draw_validation(curves: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], metric: str) -> str | None:
    """Validation by epoch, a line for each seed of each row; None if nothing was validated.

    Args:
        curves: by row, in the order of the table: epochs and values of each seed.
        metric: its name.
    """
    if not any(curves.values()):
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axis = begun(height=3.4)
    for place, (name, seeds) in enumerate(curves.items()):
        for number, (epochs, values) in enumerate(seeds):
            label = name if number == 0 else None
            axis.plot(epochs, values, color=colour(place), marker=mark(place), markersize=3, linewidth=1, label=label)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel(f"validation {metric}")
    beside(figure, axis)
    return svg(figure)


def draw_slices(records: Records, slices: Sequence[str], metric: str) -> str | None:
    """The difference to the first row in each slice of the targets, with its interval; None without slices."""
    rows = [(place, record) for place, record in enumerate(records) if record["difference"] is not None]
    if not slices or not rows:
        return None
    figure, axis = begun(height=0.9 + 0.2 * len(slices) * (1 + len(rows)))
    step = 0.8 / len(rows)
    for order, (place, record) in enumerate(rows):
        for line, name in enumerate(slices):
            if record.get(f"{name} difference") is None:
                continue
            middle, low, high = (record[f"{name} {key}"] for key in ("difference", "low", "high"))
            axis.errorbar(
                middle, line + (order + 0.5) * step - 0.4, xerr=[[middle - low], [high - middle]], fmt=mark(place),
                color=colour(place), markersize=4, linewidth=1, label=record["name"] if line == 0 else None,
            )  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(slices)), list(slices))
    axis.invert_yaxis()
    axis.set_xlabel(f"difference in {metric} to {records[0]['name']}, 95 % interval")
    beside(figure, axis)
    return svg(figure)


def begun(*, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel, 760 units wide."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, height), layout="constrained")
    axis = figure.add_subplot()
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def beside(figure: Figure, axis: Axes) -> None:
    """Put the names of the lines above the panel, which keeps its height."""
    lines, names = axis.get_legend_handles_labels()
    columns = max(1, min(3, LETTERS // max(map(len, names), default=1)))
    figure.set_figheight(figure.get_figheight() + 0.19 * (len(names) // columns))
    figure.legend(lines, names, loc="outside upper left", ncols=columns, frameon=False, fontsize="small")


def svg(figure: Figure) -> str:
    """The drawing as an element of a page; its letters stay letters."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "seqcl", "font.family": "sans-serif"}):
        buffer = io.StringIO()
        with warnings.catch_warnings():  # the reader's browser has letters that matplotlib's own fonts lack
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
