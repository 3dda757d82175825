"""The page of a study: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from seqcl import disk
from seqcl.report.drawings import COLOURS, Records, begun, beside, svg
from seqcl.report.page import template
from seqcl.version import VERSION


def write_study(
    path: Path,
    trials: Records,
    *,
    best: int,
    metric: str,
    heading: Mapping[str, Any],
    space: Mapping[str, Any],
    importance: Mapping[str, float],
    config: str,
) -> None:
    """Write the page of a study.

    Args:
        path: the file.
        trials: number, state, value on validation, epochs, seconds, options and error of each, in their order.
        best: number of the best trial.
        metric: its name.
        heading: model, data and seed.
        space: by option, choices or a range.
        importance: share of each option, if it can be told.
        config: YAML of the best trial.

    Raises:
        OSError: the file cannot be written; the one before it is untouched.
    """
    numbers = [option for option in space if any(isinstance(one["options"][option], int | float) for one in trials)]
    text = template("study.html.j2").render(
        heading=heading,
        metric=metric,
        counts={state: [one["state"] for one in trials].count(state) for state in ("complete", "pruned", "fail")},
        best=next(one for one in trials if one["number"] == best),
        first=trials[0],
        trials=sorted(trials, key=lambda one: -float("inf") if one["value"] is None else one["value"], reverse=True),
        space={option: in_words(entry) for option, entry in space.items()},
        history=draw_history(trials, metric),
        importance=draw_importance(importance) if importance else "",
        values=draw_values(trials, numbers, space, metric) if numbers else "",
        config=config,
        version=VERSION,
        date=date.today().isoformat(),
    )
    disk.write_text(path, text)


def in_words(entry: Any) -> str:
    """Choices or a range in words."""
    if isinstance(entry, Mapping):
        log = ", logarithmic" if entry.get("log") else ""
        return f"{entry['low']} to {entry['high']}{log}" + (f" by {entry['step']}" if "step" in entry else "")
    return ", ".join(map(str, entry))


def draw_history(trials: Records, metric: str) -> str:
    """Validation of every trial in their order, and the best one so far."""
    from matplotlib.ticker import MaxNLocator

    figure, axis = begun(height=3.4)
    for state, form, colour, label in (
        ("complete", "o", COLOURS[0], "trained to its end"),
        ("pruned", "x", COLOURS[6], "pruned: its best until then"),
    ):
        of = [one for one in trials if one["state"] == state and one["value"] is not None]
        if of:
            axis.plot([one["number"] for one in of], [one["value"] for one in of], form, color=colour, label=label)
    so_far, line = -float("inf"), []
    for one in trials:
        so_far = max(so_far, one["value"]) if one["state"] == "complete" else so_far
        line.append(so_far)
    shown = [(one["number"], value) for one, value in zip(trials, line, strict=True) if value > -float("inf")]
    axis.plot(*zip(*shown, strict=True), color=COLOURS[1], linewidth=1, drawstyle="steps-post", label="best so far")
    axis.set_xlabel("trial")
    axis.set_ylabel(f"validation {metric}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    beside(figure, axis)
    return svg(figure)


def draw_importance(importance: Mapping[str, float]) -> str:
    """A bar for each option, the most important one on top."""
    figure, axis = begun(height=0.8 + 0.3 * len(importance))
    names = list(importance)
    axis.barh(range(len(names)), list(importance.values()), color=COLOURS[0], height=0.6)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("share of the importance")
    return svg(figure)


def draw_values(trials: Records, options: list[str], space: Mapping[str, Any], metric: str) -> str:
    """Validation against each option that is a number, a panel each."""
    from matplotlib.figure import Figure

    rows = -(-len(options) // 3)
    figure = Figure(figsize=(7.6, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
    for axis, option in zip(axes, options, strict=False):
        for state, form, colour in (("pruned", "x", COLOURS[6]), ("complete", "o", COLOURS[0])):
            of = [one for one in trials if one["state"] == state and one["value"] is not None]
            axis.plot([one["options"][option] for one in of], [one["value"] for one in of], form, color=colour, ms=4)
        if isinstance(space[option], Mapping) and space[option].get("log"):
            axis.set_xscale("log")
        axis.set_xlabel(option)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(options) :]:
        axis.set_visible(False)
    for axis in axes[::3]:
        axis.set_ylabel(f"validation {metric}", fontsize="small")
    return svg(figure)
