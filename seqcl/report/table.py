"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "mrr@10")


def print_results(metrics: Mapping[str, Any], folder: Path) -> None:
    """One row a model on test, under its protocol."""
    from rich.console import Console
    from rich.table import Table

    protocol, data = metrics["protocol"], metrics["data"]
    rows = {metrics["model"]: metrics["test"], **{name: it["test"] for name, it in metrics["baselines"].items()}}
    columns = [name for name in COLUMNS if name in metrics["test"]] or list(metrics["test"])[:6]
    seen = "seen items excluded" if protocol["exclude_seen"] else "seen items kept"
    core = f", {protocol['k_core']}-core" if protocol["k_core"] else ""
    core += f", users of {protocol['min_length']} items or more" if protocol["min_length"] > 1 else ""
    table = Table(
        title=f"{data['name']}, test: {protocol['split']}, {protocol['candidates']} candidates, {seen}, "
        f"max_len {protocol['max_len']}{core}, seed {metrics['seed']}",
        title_justify="left",
    )
    table.add_column("model", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for model, values in rows.items():
        table.add_row(model, *(f"{values[name]:.4f}" for name in columns))
    console = Console()
    console.print(table)
    console.print(f"{metrics['seconds']:.0f} s; everything is in {folder}", soft_wrap=True, highlight=False)
