"""The pictures of a diagnosis, one for each topic, in colours that are told apart with any kind of colour vision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.report.drawings import COLOURS, MARKS, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]


def draw(found: Found, folder: Path) -> list[Path]:
    """Draw every topic to a PNG in a folder; give the files."""
    made = []
    for topic, drawing in TOPICS.items():
        if topic in found:
            figure = drawing(found[topic])
            figure.suptitle(
                f"{found['model']} on {found['data']}: {TITLES[topic]}", x=0.01, ha="left", fontsize="medium"
            )
            made.append(folder / f"{topic}.png")
            figure.savefig(made[-1])
    return made


def panels(number: int, *, height: float = 4.2, width: float = 5.2) -> tuple[Figure, list[Axes]]:
    """A figure with panels beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * number, height), dpi=120, layout="constrained")
    axes = list(figure.subplots(1, number, squeeze=False)[0])
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def geometry(found: Found) -> Figure:
    """Singular values of items and states, and the directions that they amount to."""
    figure, (left, right) = panels(2)
    for place, name in enumerate(("items", "states")):
        values = np.array(found[name]["singular_values"])
        label = f"{name}: effective rank {found[name]['effective_rank']:.1f} of {found['dim']}"
        left.plot(np.arange(1, len(values) + 1), values / values.max(initial=1e-30), color=COLOURS[place], marker=MARKS[place], markersize=3, label=label)  # fmt: skip
        share = np.cumsum(values**2) / max(float((values**2).sum()), 1e-30)
        right.plot(np.arange(1, len(values) + 1), share, color=COLOURS[place], marker=MARKS[place], markersize=3, label=name)  # fmt: skip
    left.set_yscale("log")
    left.set_ylim(bottom=max(left.get_ylim()[0], 2e-3))  # a norm takes one direction away altogether
    left.set_xlabel("singular value, from the largest")
    left.set_ylabel("over the largest")
    left.legend(frameon=False, fontsize="small")
    right.set_xlabel("number of directions")
    right.set_ylabel("share of the energy (squares) in them")
    right.set_ylim(0, 1.02)
    right.legend(frameon=False, fontsize="small")
    return figure


def views(found: Found) -> Figure:
    """Cosine of the two views of a row, by operator and rate, between the extremes of dropout and of different rows."""
    figure, (axis,) = panels(1, width=8.4, height=4.8)
    names = list(dict.fromkeys(row["operator"] for row in found["operators"]))
    for place, name in enumerate(names):
        rows = [row for row in found["operators"] if row["operator"] == name]
        rates = np.array([row["rate"] for row in rows]) + 0.012 * (place - (len(names) - 1) / 2)
        means = np.array([row["mean"] for row in rows])
        reach = [means - [row["low"] for row in rows], [row["high"] for row in rows] - means]
        axis.errorbar(rates, means, yerr=np.clip(reach, 0, None), color=COLOURS[place], marker=MARKS[place], markersize=5, capsize=2, linewidth=1, label=name)  # fmt: skip
    lines = {
        "dropout": found["others"]["dropout"],
        "same target": found["others"]["same target"],
        "different rows": found["rows"],
    }
    if found["own"]:
        lines["the run's own views"] = found["own"]
    for (name, one), style in zip(lines.items(), ("-", "--", ":", "-."), strict=False):
        axis.axhline(one["mean"], color="black", linestyle=style, linewidth=1, label=f"{name} ({one['mean']:.2f})")
    axis.set_xlabel("rate of the operator (crop: part that is kept)")
    axis.set_ylabel("cosine of two draws, mean and 10 to 90 %")
    axis.set_xlim(0, 1)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def false_negatives(found: Found) -> Figure:
    """Shares of pairs and of rows that are false negatives, by batch size; the run's own size is marked."""
    figure, (left, right) = panels(2)
    sizes = [row["batch_size"] for row in found["sizes"]]
    for place, (key, label) in enumerate({"same_target": "same last target", "same_user": "same user"}.items()):
        left.plot(
            sizes, [100 * row[key] for row in found["sizes"]], color=COLOURS[place], marker=MARKS[place], label=label
        )
    left.axhline(
        100 * found["expected"], color="black", linestyle=":", linewidth=1, label="same target, all rows of the log"
    )
    left.set_ylabel("false negatives, % of the pairs of a batch")
    right.plot(sizes, [100 * row["rows_with_one"] for row in found["sizes"]], color=COLOURS[2], marker=MARKS[2])
    right.set_ylabel("rows with at least one false negative, %")
    right.set_ylim(0, 102)
    for axis in (left, right):
        axis.axvline(
            found["batch_size"],
            color=COLOURS[6],
            linewidth=1,
            linestyle="--",
            label=f"the run's batch of {found['batch_size']}",
        )
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("rows in a batch")
        axis.legend(frameon=False, fontsize="small")
    left.set_ylim(bottom=0)
    return figure


def hardness(found: Found) -> Figure:
    """The share of the gradient over the share of the hardest negatives, a line for each temperature."""
    figure, (axis,) = panels(1, width=8.4, height=4.6)
    percent = [100 * part for part in found["parts"]]
    for place, curve in enumerate(found["curves"]):
        own = curve["temperature"] == found["temperature"]
        label = f"temperature {curve['temperature']:g}" + (" (the run's)" if own else "")
        axis.plot(percent, [100 * share for share in curve["shares"]], color=COLOURS[place], marker=MARKS[place], linewidth=2.4 if own else 1.2, label=label)  # fmt: skip
    axis.plot(percent, percent, color="black", linestyle=":", linewidth=1, label="all negatives alike")
    axis.set_xscale("log")
    axis.set_xticks(percent, [f"{one:g}" for one in percent])
    axis.minorticks_off()
    axis.set_ylim(0, 102)
    axis.set_xlabel(f"hardest negatives, % of the {found['negatives']:.0f} of a row")
    axis.set_ylabel("share of the InfoNCE gradient, %")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def popularity(found: Found) -> Figure:
    """Norms and angles of groups of items from rare to popular, and of every item."""
    figure, axes = panels(2)
    groups = found["groups"]
    labels = [f"{row['from']}" if row["from"] == row["to"] else f"{row['from']}–{row['to']}" for row in groups]
    sizes = np.cumsum([row["items"] for row in groups])
    for axis, key, unit, colour in zip(axes, ("norm", "angle"), ("norm of the item vector", "angle to the mean item vector, degrees"), COLOURS, strict=False):  # fmt: skip
        values = np.asarray(found[key])[np.argsort(found["count"], kind="stable")]
        parts = np.split(values, sizes[:-1])
        axis.boxplot(parts, showfliers=False, whis=(10, 90), medianprops={"color": "black"}, patch_artist=True, boxprops={"facecolor": colour, "alpha": 0.45})  # fmt: skip
        axis.set_xticks(range(1, len(labels) + 1), labels, rotation=45, ha="right", fontsize="small")
        axis.set_xlabel("training interactions of the item, tenths of the items")
        axis.set_ylabel(unit)
        value = found["correlation"][key]
        axis.set_title("the same for all" if value is None else f"rank correlation {value:+.2f}", fontsize="small")
    return figure


def item_map(found: Found) -> Figure:
    """Items in the plane, coloured by their training count or by their attribute."""
    figure, (axis,) = panels(1, width=7.6, height=6.4)
    x, y = np.asarray(found["x"]), np.asarray(found["y"])
    if "word" in found:
        words = np.asarray(found["word"])
        names = sorted(set(words.tolist()) - {"other"}, key=lambda word: -int((words == word).sum()))
        axis.scatter(x[words == "other"], y[words == "other"], s=4, color="#bbbbbb", label="other", linewidths=0)
        for place, name in enumerate(names):
            mine = words == name
            axis.scatter(
                x[mine], y[mine], s=9, color=COLOURS[place], marker=MARKS[place], label=short(name), linewidths=0
            )
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small", markerscale=2)
    else:
        order = np.argsort(found["count"], kind="stable")  # popular items lie on top
        from matplotlib.colors import LogNorm

        shown = np.asarray(found["count"])[order] + 1
        dots = axis.scatter(x[order], y[order], c=shown, s=7, cmap="cividis", norm=LogNorm(), linewidths=0)
        figure.colorbar(dots, ax=axis, label="training interactions + 1")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_title(
        f"{found['method']} of {len(x):,} items by cosine, trustworthiness {found['trustworthiness']:.2f}",
        fontsize="small",
    )
    return figure


def short(name: str, longest: int = 34) -> str:
    """A name that fits into a legend."""
    return plain(name if len(name) <= longest else f"{name[: longest - 1]}…")


TOPICS: dict[str, Callable[[Found], Figure]] = {
    "geometry": geometry,
    "views": views,
    "false_negatives": false_negatives,
    "hardness": hardness,
    "popularity": popularity,
    "map": item_map,
}
TITLES = {
    "geometry": "directions that the vectors use",
    "views": "likeness of the two views of a row",
    "false_negatives": "false negatives in a batch",
    "hardness": "weight of hard negatives",
    "popularity": "item vectors by popularity",
    "map": "map of the items",
}
