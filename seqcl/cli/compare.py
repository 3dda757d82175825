"""`seqcl compare RUN RUN ...`: finished runs of one protocol in one table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_compare(commands: Any) -> None:
    """Give the command line the command."""
    command = commands.add_parser("compare", help="finished runs of one protocol in one table, with intervals")
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, or RUN/baselines/NAME; seeds of one configuration are pooled",
    )
    command.add_argument(
        "--baseline", metavar="RUN", help="the run that others are compared with (default: the last one)"
    )
    command.add_argument("--metric", default="ndcg@10", help="metric of a target (default: ndcg@10)")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write the rows, with all slices, as CSV")
    command.add_argument("--json", action="store_true", help="print JSON in the place of the table")


def compare(chosen: argparse.Namespace) -> int:
    """`seqcl compare RUN RUN ...`: a table, or JSON."""
    from seqcl.disk import whole_file
    from seqcl.experiment.compare import compare_runs
    from seqcl.report import print_comparison

    found = compare_runs(chosen.runs, baseline=chosen.baseline, metric=chosen.metric)
    records = found.records()
    if chosen.csv is not None:
        import pandas as pd

        with whole_file(chosen.csv) as beside:
            beside.write_bytes(pd.DataFrame(records).to_csv(index=False).encode())
    if chosen.json:
        about = {"metric": found.metric, "baseline": found.baseline, "protocol": found.protocol, "data": found.data}
        print(json.dumps({**about, "rows": records}, indent=2, default=float))
    else:
        print_comparison(records, found.metric, data=found.data, protocol=found.protocol)
    return 0
