"""Draw indexes.png: the share of the exact lists that an index finds, over the queries that it answers in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_indexes(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draw indexes to a PNG of 800 x 500 pixels: a line for each kind, a point for each width of search.

    Args:
        rows: measurements with `kind`, `option`, `value`, `queries_per_second` and `overlap@k` for one k or more; the
            largest k below 20 is drawn.
        path: file to write.
        title: title of the plot.
    """
    from matplotlib.figure import Figure

    cutoffs = sorted(int(name.partition("@")[2]) for name in rows[0] if name.startswith("overlap@"))
    k = max((cutoff for cutoff in cutoffs if cutoff < 20), default=cutoffs[0])
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axis = figure.add_subplot()
    for number, kind in enumerate(dict.fromkeys(row["kind"] for row in rows)):
        points = [row for row in rows if row["kind"] == kind]
        speed = [row["queries_per_second"] for row in points]
        found = [row[f"overlap@{k}"] for row in points]
        option = points[0].get("option")
        label = f"{kind} ({option.replace('_', ' ')} {points[0]['value']} to {points[-1]['value']})" if option else kind
        axis.plot(speed, found, "o-" if len(points) > 1 else "s", color=f"C{number}", label=label, markersize=5)
    axis.set_xscale("log")
    axis.set_xlabel("queries per second")
    axis.set_ylabel(f"overlap with the exact top {k}")
    axis.grid(alpha=0.25, which="both")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small")
    if title:
        axis.set_title(title)
    figure.savefig(path)
