"""What faiss indexes over a model's items cost and lose, each alone or all of them at several widths of search."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seqcl.evaluation import IndexResult, Questions
from seqcl.experiment.folder import log
from seqcl.report import plot_indexes
from seqcl.retrieval import KINDS, ExactIndex, FaissIndex


def measure(kind: str, vectors: Tensor, asked: Questions) -> dict[str, Any]:
    """One index as it is by default, beside the exact one."""
    index = FaissIndex(vectors, kind=kind)  # type: ignore[arg-type]
    _, truth, exact_seconds = asked.ask(ExactIndex(vectors))
    found = asked.result(index, (truth, exact_seconds))
    return {
        "kind": kind,
        "protocol": found.result.protocol,
        "metrics": found.result.metrics,
        "overlap": found.overlap,
        "build_seconds": index.build_seconds,
        "bytes_per_item": index.bytes_per_item,
        "queries_per_second": len(asked.windows) / found.query_seconds,
        "query_seconds": found.query_seconds,
        "exact_query_seconds": found.exact_seconds,
    }


def sweep(vectors: Tensor, asked: Questions, part: str) -> list[dict[str, Any]]:
    """A row for the exact index and for each kind at each width of search: overlap with the exact lists, metrics, queries/s."""
    exact = asked.result(ExactIndex(vectors))
    rows = [row("exact", "", None, part, asked, exact) | {f"overlap@{k}": 1.0 for k in asked.ks}]
    truth = (exact.items, exact.query_seconds)
    for kind in KINDS:
        index = FaissIndex(vectors, kind=kind)  # type: ignore[arg-type]
        about = {"build_seconds": index.build_seconds, "bytes_per_item": index.bytes_per_item}
        for option, value in widths(index, 2 * asked.ks[-1]):
            if option:
                setattr(index, option, value)
            rows.append(row(kind, option, value, part, asked, asked.result(index, truth)) | about)
    return rows


def widths(index: FaissIndex, least: int) -> list[tuple[str, int | None]]:
    """The option that says how widely an index searches, and its values, doubled from one to the next, its default among them.

    A graph is searched at least as widely as items are asked for, twice as many as are wanted; where few cells hold too few, more
    of them are looked into for these queries.
    """
    if index.kind == "flat":
        return [("", None)]
    if index.kind == "hnsw":
        return [
            ("search_width", width)
            for width in sorted({least, index.search_width, *(least * 2**n for n in range(1, 5))})
        ]
    doubled = {2**power for power in range(index.lists.bit_length())}
    return [("probes", probes) for probes in sorted({*doubled, index.probes, index.lists})]


def row(kind: str, option: str, value: int | None, part: str, asked: Questions, found: IndexResult) -> dict[str, Any]:
    """What an index gave as it was set, with the protocol of it."""
    shown = {name: value for name, value in found.result.metrics.items() if name.startswith(("recall", "ndcg", "mrr"))}
    return {
        "kind": kind,
        "option": option,
        "value": value,
        "part": part,
        **found.result.protocol,
        "queries_per_second": len(asked.windows) / found.query_seconds,
        **found.overlap,
        **shown,
    }


def write_comparison(rows: Sequence[Mapping[str, Any]], folder: Path, part: str, *, title: str) -> None:
    """indexes-PART.csv and indexes-PART.png in a folder; where that cannot be written, the rows are still worth having, and it is said."""
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        with (folder / f"indexes-{part}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(names))
            table.writeheader()
            table.writerows(rows)
        plot_indexes(rows, folder / f"indexes-{part}.png", title=title)
    except OSError as error:
        log.warning("%s: the comparison of indexes is not written there: %s", folder, error.strerror)
