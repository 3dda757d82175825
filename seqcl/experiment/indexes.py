"""What faiss indexes over a model's items cost and lose, each alone or all of them at several widths of search."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seqcl.errors import UserError, unknown
from seqcl.evaluation import Questions
from seqcl.report import plot_indexes
from seqcl.retrieval import KINDS, ExactIndex, FaissIndex


def measure(kind: str, vectors: Tensor, asked: Questions) -> dict[str, Any]:
    """One index as it is by default, beside the exact one.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in KINDS:
        raise unknown("index", kind, (*KINDS, "all"))
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


def sweep(vectors: Tensor, asked: Questions) -> list[dict[str, Any]]:
    """A row for the exact index and for each kind at each width of search: overlap with the exact lists, metrics, queries/s."""
    exact = ExactIndex(vectors)
    _, truth, seconds = asked.ask(exact)
    rows = [row("exact", "", None, asked, exact, (truth, seconds))]
    for kind in KINDS:
        index = FaissIndex(vectors, kind=kind)  # type: ignore[arg-type]
        for option, value in widths(index):
            if option:
                setattr(index, option, value)
            found = row(kind, option, value, asked, index, (truth, seconds))
            rows.append(found | {"build_seconds": index.build_seconds, "bytes_per_item": index.bytes_per_item})
    return rows


def widths(index: FaissIndex) -> Iterator[tuple[str, int | None]]:
    """The option that says how widely an index searches, and its values, doubled from one to the next."""
    if index.kind == "flat":
        yield "", None
    elif index.kind == "hnsw":
        yield from (("search_width", 2**power) for power in range(4, 10))
    else:
        powers = range(index.lists.bit_length())
        yield from (("probes", 2**power) for power in powers)


def row(
    kind: str, option: str, value: int | None, asked: Questions, index: Any, truth: tuple[Any, float]
) -> dict[str, Any]:
    """What an index gives as it is set."""
    found = asked.result(index, truth)
    return {
        "kind": kind,
        "option": option,
        "value": value,
        "queries_per_second": len(asked.windows) / found.query_seconds,
        **found.overlap,
        **{
            name: found.result.metrics[name]
            for name in found.result.metrics
            if name.startswith(("recall", "ndcg", "mrr"))
        },
    }


def write_comparison(rows: Sequence[Mapping[str, Any]], folder: Path, *, title: str) -> None:
    """indexes.csv and indexes.png in a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        with (folder / "indexes.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(names))
            table.writeheader()
            table.writerows(rows)
        plot_indexes(rows, folder / "indexes.png", title=title)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
