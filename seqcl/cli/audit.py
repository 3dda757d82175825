"""`seqcl audit RUN`: what was checked against leaks of held-out interactions, line by line."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqcl.experiment.audit import Check

WIDTH = 120


def add_audit(commands: Any, add_plugin: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the command line the command."""
    command = commands.add_parser(
        "audit", help="check by recomputation that nothing held out reached training or a choice"
    )
    command.add_argument("run", metavar="RUN", help="run folder; its baselines are audited too")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the lines as JSON")
    command.add_argument(
        "--batches", type=int, metavar="N", help="train for N batches only (default: the first epoch, twice)"
    )
    command.add_argument("--device", default="cpu", help="where models are trained and ranked (default: cpu)")
    add_plugin(command)


def audit(chosen: argparse.Namespace) -> int:
    """`seqcl audit RUN`: 1 if anything is broken."""
    from seqcl.disk import check_place
    from seqcl.experiment.audit import audit as checks_of
    from seqcl.experiment.folder import write_text

    check_place(chosen.json, "--json")
    lines = Lines()
    found = checks_of(chosen.run, device=chosen.device, plugins=chosen.plugin, batches=chosen.batches, tell=lines.add)
    broken = sum(check.verdict == "broken" for check in found)
    held = sum(check.verdict == "held" for check in found)
    print(f"{held} held, {broken} broken, {len(found) - held - broken} not used by this run")
    if chosen.json is not None:
        write_text(chosen.json, json.dumps([asdict(check) for check in found], indent=2) + "\n")
    return int(broken > 0)


class Lines:
    """Prints the lines of each model below its name, each as soon as it is there."""

    def __init__(self) -> None:
        self.model = ""

    def add(self, check: Check) -> None:
        """Print a line; a long one goes on below itself."""
        if check.model != self.model:
            print(check.model)
            self.model = check.model
        verdict = "BROKEN" if check.verdict == "broken" else check.verdict
        head = f"  {verdict:10}{check.name:25} "
        print(textwrap.fill(head + check.told, WIDTH, subsequent_indent=" " * len(head)), flush=True)
