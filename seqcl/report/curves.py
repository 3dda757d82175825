"""Draw curves.png: losses by name, validation, and alignment and uniformity of views, over epochs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, float]]


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows of a history.csv; a row leaves out the values that its epoch does not have."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def plot_curves(rows: Rows, path: Path, *, title: str = "", monitor: str = "ndcg@10") -> None:
    """Draw the history of a run to a PNG of 1500 x 450 pixels, or 1000 x 450 without observed views.

    The first panel has the losses by name, one below the other. The second has validation: recall, NDCG and MRR at the
    cutoff of `monitor`, with the best epoch marked. The third has alignment and uniformity of the two views, if the run
    observed them (arXiv 2005.10242; lower is better).
    """
    # Figure without pyplot takes half the time to import, and keeps no global state.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    views = _names(rows, "observed_", ("alignment", "uniformity"))
    panels = 3 if views else 2
    figure = Figure(figsize=(5 * panels, 4.5), dpi=100, layout="constrained")
    grid = figure.add_gridspec(1, panels)
    losses = _names(rows, "loss_", ())
    # Terms differ by orders of magnitude: on a shared axis, linear or logarithmic, one of them would look flat.
    stack = list(grid[0].subgridspec(max(1, len(losses)), 1).subplots(sharex=True, squeeze=False)[:, 0])
    _losses(stack, rows, losses)
    axes = [*stack, figure.add_subplot(grid[1])]
    _validation(axes[-1], rows, monitor)
    if views:
        axes.append(figure.add_subplot(grid[2]))
        _views(axes[-1], rows, views)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines["top"].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if axis not in stack[:-1]:
            axis.set_xlabel("epoch")
    figure.align_ylabels(stack)
    if title:
        figure.suptitle(title)
    figure.savefig(path)


def _losses(axes: list[Axes], rows: Rows, names: list[str]) -> None:
    for index, (axis, name) in enumerate(zip(axes, names, strict=False)):
        axis.plot(*_series(rows, name), color=f"C{index}", marker=_marker(rows))
        axis.set_ylabel(name.removeprefix("loss_").replace("_", " "))
        axis.spines["right"].set_visible(False)
    axes[0].set_title("training losses, weighted")


def _validation(axis: Axes, rows: Rows, monitor: str) -> None:
    cutoff = monitor.rpartition("@")[2]
    # With one target a row, hit rate is recall, MAP is MRR and precision is recall over k: no lines of their own.
    shown = dict.fromkeys([f"valid_{name}@{cutoff}" for name in ("recall", "ndcg", "mrr")] + [f"valid_{monitor}"])
    for name in shown:
        alpha = 1.0 if name == f"valid_{monitor}" else 0.4
        if any(name in row for row in rows):
            axis.plot(*_series(rows, name), label=name.removeprefix("valid_"), alpha=alpha, marker=_marker(rows))
    epochs, values = _series(rows, f"valid_{monitor}")
    if values:
        best = max(range(len(values)), key=values.__getitem__)
        label = f"best {values[best]:.4f}, epoch {epochs[best]:.0f}"
        axis.plot(epochs[best], values[best], "o", color="black", label=label)
        axis.legend(frameon=False, fontsize="small")
    axis.set_title("validation")
    axis.set_ylim(bottom=0)
    axis.spines["right"].set_visible(False)


def _views(axis: Axes, rows: Rows, names: list[str]) -> None:
    twin = axis.twinx()
    for index, (side, name) in enumerate(zip((axis, twin), names, strict=False)):
        label = name.removeprefix("observed_").replace("_", " ")
        side.plot(*_series(rows, name), color=f"C{index}", marker=_marker(rows))
        side.set_ylabel(label, color=f"C{index}")
    axis.set_title("the two views")


def _names(rows: Rows, prefix: str, endings: tuple[str, ...]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
    return [name for name in names if not endings or name.endswith(endings)]


def _series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    points = [(row["epoch"], row[name]) for row in rows if name in row and math.isfinite(row[name])]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _marker(rows: Rows) -> str:
    # A line through a single point cannot be seen.
    return "." if len(rows) <= 20 else ""
