"""`seqcl evaluate RUN`, or `--checkpoint FILE`: rank a run again, or weights that others have published."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqcl.cli.data import PACK_OPTIONS, READ_OPTIONS
from seqcl.errors import UserError, unknown

DATA = "data."
OF_RUNS = ("index", "recall", "plugin")
OF_CHECKPOINTS = ("format", "dataset", "heads", "activation")
SEEN = {"exclude": True, "keep": False}


def add_evaluate(commands: Any, add_plugin: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the command line the command."""
    command = commands.add_parser("evaluate", help="rank again with a run's best weights, or with published ones")
    command.add_argument("run", nargs="?", help="run folder")
    add_plugin(command)
    command.add_argument("--part", choices=("valid", "test"), default="test", help="split to rank (default: test)")
    command.add_argument("--slices", action="store_true", help="also by history length and target popularity")
    command.add_argument("--seen", help="a user's earlier items: exclude; keep; or zero, with published weights alone, ranked as coserec, iclrec and icsrec do (default: as in the run, or exclude)")  # fmt: skip
    command.add_argument("--index", help="also through flat, ivf, hnsw or ivfpq, or all, each at several widths of search, with a plot")  # fmt: skip
    command.add_argument("--recall", type=float, help="share of the exact lists that the index finds")
    public = command.add_argument_group("published weights")
    public.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of somebody's SASRec, in place of a run; no pickle is executed")  # fmt: skip
    public.add_argument("--format", help="whose code wrote them: coserec, iclrec, icsrec or recbole")
    public.add_argument("--dataset", help="data that they were learned from, a name or a path; leave-one-out")
    public.add_argument("--heads", type=int, help="attention heads (default: 2)")
    public.add_argument("--activation", help="of the feed-forward part: gelu or relu (default: gelu)")
    for option, about in READ_OPTIONS.items():
        public.add_argument(f"--{DATA}{option}", type=float if option == "min_rating" else str, help=about)
    for option, (kind, _, about) in PACK_OPTIONS.items():
        public.add_argument(f"--{DATA}{option}", type=kind, help=about)


def evaluate(chosen: argparse.Namespace) -> int:
    """`seqcl evaluate RUN`: one JSON object."""
    given = {
        name: value for name, value in vars(chosen).items() if not (value is None or value is False or value == [])
    }
    if chosen.checkpoint is None:
        if chosen.run is None:
            raise UserError("evaluate needs a run folder, or --checkpoint FILE with published weights")
        refuse([name for name in given if name in OF_CHECKPOINTS or name.startswith(DATA)], "--checkpoint")
        found = of_run(chosen)
    else:
        if chosen.run is not None:
            raise UserError(f"evaluate ranks a run or published weights, not both {chosen.run} and {chosen.checkpoint}")
        refuse([name for name in given if name in OF_RUNS], "a run")
        found = of_checkpoint(chosen, given)
    print(json.dumps(found, indent=2))
    return 0


def refuse(names: list[str], what: str) -> None:
    """Refuse options that belong to the other form of the command."""
    if names:
        raise UserError(f"--{names[0]} goes with {what}")


def of_run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Rank a run again."""
    from seqcl.experiment import load
    from seqcl.retrieval import KINDS

    if chosen.index not in (None, "all", *KINDS):
        raise unknown("index", chosen.index, (*KINDS, "all"))
    if chosen.recall is not None and chosen.index not in KINDS:
        raise UserError(f"--recall goes with one index: --index {', '.join(KINDS)}")
    if chosen.seen == "zero":
        raise UserError("--seen zero goes with --checkpoint; a run is ranked with --seen exclude or keep")
    if chosen.seen not in (None, *SEEN):
        raise unknown("--seen of a run", chosen.seen, SEEN)
    if chosen.seen and chosen.index:
        raise UserError("--seen does not go with --index: an index is compared under the run's own protocol")
    run = load(chosen.run, plugins=chosen.plugin)
    result = run.evaluate(chosen.part, exclude_seen=SEEN.get(chosen.seen))
    found = {"part": chosen.part, "protocol": result.protocol, "metrics": result.metrics}
    if chosen.slices:
        found["slices"] = run.slices(result, chosen.part)
    if chosen.index:
        one = chosen.index != "all"
        found["index"] = run.evaluate_index(chosen.index, chosen.part, recall=chosen.recall) if one else run.compare_indexes(chosen.part)  # fmt: skip
    return found


def of_checkpoint(chosen: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """Rank published weights."""
    from seqcl.experiment.public_weights import evaluate_public

    for name in ("format", "dataset"):
        if name not in given:
            raise UserError(f"--checkpoint {chosen.checkpoint} needs --{name}: {'whose code wrote it' if name == 'format' else 'the data that it was learned from'}")  # fmt: skip
    options = {name: given[name] for name in ("part", "seen", "heads", "activation", "slices") if name in given}
    data = {name.removeprefix(DATA): value for name, value in given.items() if name.startswith(DATA)}
    return evaluate_public(chosen.checkpoint, chosen.format, chosen.dataset, **options, **data)
