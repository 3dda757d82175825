"""Cost and loss of faiss indexes over a model's items: one of them, or all of them at several widths of search."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seqcl.evaluation import METRICS, IndexResult, Questions
from seqcl.experiment.folder import log
from seqcl.report import plot_indexes
from seqcl.retrieval import KINDS, ExactIndex, FaissIndex
from seqcl.retrieval.promise import keep_promise


def measure(kind: str, asked: Questions, promise: tuple[Tensor, float] | None = None) -> dict[str, Any]:
    """Measure one index beside the exact one, with its default options or, for a `promise`, with the narrowest search.

    The promise has queries to choose with, and the share of the exact lists to find.
    """
    index = FaissIndex(asked.vectors, kind=kind)  # type: ignore[arg-type]
    search = {}
    if promise is not None:
        queries, recall = promise
        search = {"search": keep_promise(index, asked.vectors.cpu(), queries, recall=recall, k=asked.ks[-1])}
    _, truth, exact_seconds = asked.ask(ExactIndex(asked.vectors))
    found = asked.result(index, (truth, exact_seconds))
    return {
        "kind": kind,
        "protocol": found.result.protocol,
        "metrics": found.result.metrics,
        "overlap": found.overlap,
        **cost(index),
        **search,
        "queries_per_second": found.queries_per_second,
        "query_seconds": found.query_seconds,
        "exact_query_seconds": found.exact_seconds,
    }


def sweep(asked: Questions, part: str) -> list[dict[str, Any]]:
    """Measure every index at several widths of search; the exact one comes first.

    A row has the metrics, the overlap with the exact lists, and the queries answered in a second.
    """
    exact = asked.result(ExactIndex(asked.vectors))
    rows = [row("exact", "", None, part, exact) | {f"overlap@{k}": 1.0 for k in asked.ks}]
    truth = (exact.items, exact.query_seconds)
    for kind in KINDS:
        index = FaissIndex(asked.vectors, kind=kind)  # type: ignore[arg-type]
        about = cost(index)
        for option, value in widths(index, 2 * asked.ks[-1]):
            if option:
                setattr(index, option, value)
            rows.append(row(kind, option, value, part, asked.result(index, truth)) | about)
    return rows


def cost(index: FaissIndex) -> dict[str, float]:
    """Seconds to build an index, and its bytes an item."""
    return {"build_seconds": index.build_seconds, "bytes_per_item": index.bytes_per_item}


def widths(index: FaissIndex, least: int) -> list[tuple[str, int | None]]:
    """The option that sets how widely an index searches, with its values: doubled each time, the default among them.

    A graph is searched at least as widely as items are fetched, which is twice as many as are wanted. Cells are looked
    into one, two, four at a time, up to all; a query whose cells hold too few items looks into more.
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


def row(kind: str, option: str, value: int | None, part: str, found: IndexResult) -> dict[str, Any]:
    """One measurement of an index under one option, with its protocol."""
    named = {"recall", "ndcg", "mrr", *METRICS.others}
    shown = {name: number for name, number in found.result.metrics.items() if name.partition("@")[0] in named}
    return {
        "kind": kind,
        "option": option,
        "value": value,
        "part": part,
        **found.result.protocol,
        "queries_per_second": found.queries_per_second,
        **found.overlap,
        **shown,
    }


def write_comparison(rows: Sequence[Mapping[str, Any]], folder: Path, part: str, *, title: str) -> None:
    """Write indexes-PART.csv and indexes-PART.png; where that fails it is a warning, as the rows remain."""
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        with (folder / f"indexes-{part}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(names))
            table.writeheader()
            table.writerows(rows)
        plot_indexes(rows, folder / f"indexes-{part}.png", title=title)
    except OSError as error:
        log.warning("%s: the comparison of indexes is not written there: %s", folder, error.strerror)
