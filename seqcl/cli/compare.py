"""`seqcl compare RUN RUN ...`: finished runs of one protocol in one table."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqcl.experiment.compare import Compared, Row
    from seqcl.report import Details, Sheet


def add_compare(commands: Any) -> None:
    """Give the command line the command."""
    command = commands.add_parser("compare", help="finished runs of one protocol in one table, with intervals")
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, RUN/baselines/NAME, or a file of kept results; seeds of one configuration are pooled",
    )
    command.add_argument(
        "--baseline", metavar="RUN", help="the run that others are compared with (default: the last one)"
    )
    command.add_argument("--metric", default="ndcg@10", help="metric of a target (default: ndcg@10)")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write the rows, with all slices, as CSV")
    command.add_argument(
        "--html", type=Path, metavar="FILE", help="write one page with the table, drawings and configurations"
    )
    command.add_argument("--json", action="store_true", help="print JSON in the place of the table")
    command.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="a .py file or a module with parts that a run needs, or with the metric",
    )


def compare(chosen: argparse.Namespace) -> int:
    """`seqcl compare RUN RUN ...`: a table, or JSON."""
    from seqcl import plugins
    from seqcl.disk import check_place, whole_file
    from seqcl.experiment.compare import compare_runs
    from seqcl.experiment.spoken import warnings_shown
    from seqcl.report import print_comparison, write_page

    for option in ("csv", "html"):
        check_place(getattr(chosen, option), f"--{option}")
    plugins.load_all(chosen.plugin)
    with warnings_shown():
        found = compare_runs(chosen.runs, baseline=chosen.baseline, metric=chosen.metric)
    records = found.records()
    if chosen.csv is not None:
        import pandas as pd

        with whole_file(chosen.csv) as beside:
            beside.write_bytes(pd.DataFrame(records).to_csv(index=False).encode())
    if chosen.html is not None:
        write_page(chosen.html, [sheet_of(found)])
    if chosen.json:
        about = {"metric": found.metric, "baseline": found.baseline, "protocol": found.protocol, "data": found.data}
        print(json.dumps({**about, "rows": records}, indent=2, default=float))
    else:
        print_comparison(records, found.metric, data=found.data, protocol=found.protocol)
    return 0


def sheet_of(found: Compared, contrast: Sequence[Mapping[str, Any]] = ()) -> Sheet:
    """The facts of a comparison that the page shows."""
    from seqcl.report import Sheet, heading_of, seeds_of

    records = found.records()
    return Sheet(
        records=records,
        details=[details_of(row, found.metric) for row in found.rows],
        metric=found.metric,
        heading=heading_of(found.data, found.protocol, seeds_of(records)),
        protocol={"data": found.data["name"], **found.protocol},
        slices=list(dict.fromkeys(name for row in found.rows for name in row.slices)),
        contrast=contrast,
    )


def details_of(row: Row, metric: str) -> Details:
    """Read the details that a row of the page unfolds to."""
    from seqcl.errors import UserError, brief
    from seqcl.report import Details, read_history

    runs = row.side.runs
    curves = []
    for run in runs:
        history = run.folder / "history.csv"
        try:
            rows = read_history(history) if history.is_file() else []
        except (ValueError, TypeError, LookupError, csv.Error) as error:
            raise UserError(f"{history} cannot be read: {brief(error)}") from None
        points = [(one["epoch"], one[f"valid_{metric}"]) for one in rows if f"valid_{metric}" in one]
        if points:
            curves.append(([epoch for epoch, _ in points], [value for _, value in points]))
    return Details(
        name=row.side.name,
        seeds=" ".join(map(str, row.side.seeds)),
        folders=[str(run.folder) for run in runs],
        config=runs[0].config,
        about={
            key: ", ".join(f"{name} {value}" for name, value in (found or {}).items())
            for key, found in runs[0].about.items()
        },
        curves=curves,
    )
