"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl import registry

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "mrr@10")
"""Metrics that are shown, where the run has them."""


def print_results(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print a row for each model with its test metrics, under their protocol; those of validation if test was left alone."""
    from rich.table import Table

    table = Table(title=heading(metrics), title_justify="left")
    table.add_column("model", no_wrap=True)
    part = "test" if "test" in metrics else "valid"
    columns = shown(metrics[part])
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    rows = {metrics["model"]: metrics[part], **{name: it[part] for name, it in metrics["baselines"].items()}}
    for model, values in rows.items():
        table.add_row(model, *(f"{values[name]:.4f}" for name in columns))
    console = wide_console(120)
    console.print(table)
    console.print(f"{metrics['seconds']:.0f} s; everything is in {folder}", soft_wrap=True, highlight=False)


def print_comparison(
    records: Sequence[Mapping[str, Any]], metric: str, *, data: Mapping[str, Any], protocol: Mapping[str, Any]
) -> None:
    """Print the rows of a comparison: mean, difference to the first row with its interval, p corrected by Holm, and cost."""
    from rich.table import Table

    table = Table(title=heading_of(data, protocol, seeds_of(records)), title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (
        metric,
        "± seeds",
        "difference",
        "95 % interval",
        "p (Holm)",
        "ahead",
        "effect",
        "minutes",
        "MiB",
        "parameters",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        apart = record["difference"] is not None
        table.add_row(
            record["name"],
            f"{record[metric]:.4f}",
            told_or_empty(record[f"{metric} deviation"], ".4f"),
            told_or_empty(record["difference"], "+.4f"),
            f"{record['low']:+.4f} to {record['high']:+.4f}" if apart else "",
            chance(record["p (Holm)"]),
            record["seeds ahead"] or "",
            told_or_empty(record["effect"], "+.3f"),
            told_or_empty(record["seconds"] and record["seconds"] / 60, ".1f"),
            told_or_empty(record["peak MiB"], ",.0f"),
            told_or_empty(record["parameters"], ","),
        )
    wide_console(180).print(table)


def print_contrast(records: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Print each contrastive model beside itself without its term, with the difference and its interval."""
    from rich.table import Table

    table = Table(title="With and without contrast", title_justify="left")
    for name in ("", "without contrast"):
        table.add_column(name, no_wrap=True)
    for name in (f"{metric} with", "without", "difference", "95 % interval", "p (Holm)", "ahead"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        table.add_row(
            record["model"],
            record["without contrast"],
            f"{record[f'{metric} with']:.4f}",
            f"{record[f'{metric} without']:.4f}",
            f"{record['difference']:+.4f}",
            f"{record['low']:+.4f} to {record['high']:+.4f}",
            chance(record["p (Holm)"]),
            record["seeds ahead"],
        )
    wide_console(180).print(table)


def seeds_of(records: Sequence[Mapping[str, Any]]) -> str:
    """The seeds of all rows, if they are the same, in words."""
    seeds = {record["seeds"] for record in records}
    return f"seeds {seeds.pop()}" if len(seeds) == 1 else "several seeds"


def told_or_empty(value: float | None, form: str) -> str:
    """A number in a form; nothing for None."""
    return "" if value is None else format(value, form)


def chance(p: float | None) -> str:
    """A p; nothing for None, and no 0, which it never is."""
    return "<0.001" if p is not None and p < 0.0005 else told_or_empty(p, ".3f")


def wide_console(width: int) -> Console:
    """Make the console that tables are printed on; a file has no edge at which numbers are cut off."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, width)
    return console


def heading(metrics: Mapping[str, Any]) -> str:
    """Data set, protocol and seed in one line."""
    part = "test" if "test" in metrics else "validation"
    return heading_of(metrics["data"], metrics["protocol"], f"seed {metrics['seed']}", part=part)


def heading_of(data: Mapping[str, Any], protocol: Mapping[str, Any], seeds: str, *, part: str = "test") -> str:
    """Data set and protocol in one line."""
    parts = [
        f"{data['name']}, {part}: {protocol['split']}",
        f"{protocol['candidates']} candidates",
        "seen items excluded" if protocol["exclude_seen"] else "seen items kept",
        f"max_len {protocol['max_len']}",
    ]
    if protocol.get("k_core"):  # an older version may not have stored it
        parts.append(f"{protocol['k_core']}-core")
    if protocol.get("min_length", 1) > 1:
        parts.append(f"users of {protocol['min_length']} items or more")
    if protocol.get("train_users"):
        parts.append(f"{protocol['train_users']:.3g} of the users train")
    if protocol.get("noise"):
        parts.append(f"{protocol['noise']:.3g} of the training items replaced")
    if protocol.get("cold_items"):
        parts.append(f"{protocol['cold_items']:.3g} of the items not in training")
    if protocol.get("unreachable_targets"):
        share = protocol["unreachable_targets"] / protocol["num_targets"]
        parts.append(f"{share:.1%} of the targets cannot be hit (best possible {1 - share:.4f})")
    return ", ".join([*parts, seeds])


def shown(found: Iterable[str]) -> list[str]:
    """The columns of the table: ours, then each registered metric once, at 10 if it is there."""
    names = list(found)
    columns = [name for name in COLUMNS if name in names] or names[:6]
    for other in registry.TABLES["metric"].others:
        at = [name for name in names if name.partition("@")[0] == other and name not in columns]
        columns += [f"{other}@10"] if f"{other}@10" in at else at[:1]
    return columns
