"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqcl import registry

COLUMNS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "mrr@10")
"""Metrics that are shown, where the run has them."""


def print_results(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print a row for each model with its test metrics, under their protocol."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=heading(metrics), title_justify="left")
    table.add_column("model", no_wrap=True)
    columns = shown(metrics["test"])
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    rows = {metrics["model"]: metrics["test"], **{name: it["test"] for name, it in metrics["baselines"].items()}}
    for model, values in rows.items():
        table.add_row(model, *(f"{values[name]:.4f}" for name in columns))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a file has no edge at which numbers are cut off
    console.print(table)
    console.print(f"{metrics['seconds']:.0f} s; everything is in {folder}", soft_wrap=True, highlight=False)


def heading(metrics: Mapping[str, Any]) -> str:
    """Data set and protocol in one line."""
    protocol = metrics["protocol"]
    parts = [
        f"{metrics['data']['name']}, test: {protocol['split']}",
        f"{protocol['candidates']} candidates",
        "seen items excluded" if protocol["exclude_seen"] else "seen items kept",
        f"max_len {protocol['max_len']}",
    ]
    if protocol["k_core"]:
        parts.append(f"{protocol['k_core']}-core")
    if protocol["min_length"] > 1:
        parts.append(f"users of {protocol['min_length']} items or more")
    if protocol.get("unreachable_targets"):
        share = protocol["unreachable_targets"] / protocol["num_targets"]
        parts.append(f"{share:.1%} of the targets cannot be hit (best possible {1 - share:.4f})")
    return ", ".join([*parts, f"seed {metrics['seed']}"])


def shown(found: Iterable[str]) -> list[str]:
    """The columns of the table: ours, then each registered metric once, at 10 if it is there."""
    names = list(found)
    columns = [name for name in COLUMNS if name in names] or names[:6]
    for other in registry.TABLES["metric"].others:
        at = [name for name in names if name.partition("@")[0] == other and name not in columns]
        columns += [f"{other}@10"] if f"{other}@10" in at else at[:1]
    return columns
