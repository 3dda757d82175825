"""`seqcl diagnose RUN`: figures and pictures of what the vectors of a run look like."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAPS = ("auto", "tsne", "none")


def add_diagnose(commands: Any, add_plugin: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the command line the command."""
    command = commands.add_parser("diagnose", help="figures and pictures of the vectors, views and negatives of a run")
    command.add_argument("run", metavar="RUN", help="run folder, or RUN/baselines/NAME")
    command.add_argument("--out", type=Path, metavar="DIR", help="where they are written (default: RUN/diagnose)")
    command.add_argument(
        "--rows", type=int, default=1024, help="training rows whose views are compared (default: 1024)"
    )
    command.add_argument(
        "--map", choices=MAPS, default="auto", help="map of the items (default: tsne where scikit-learn is there)"
    )
    command.add_argument(
        "--colour", metavar="COLUMN", help="column of the item table, or .json of item -> [attributes]; else popularity"
    )
    command.add_argument("--device", default="cpu", help="where the model is (default: cpu)")
    add_plugin(command)


def diagnose(chosen: argparse.Namespace) -> int:
    """`seqcl diagnose RUN`: a line for each topic, and the files."""
    from seqcl.errors import UserError
    from seqcl.experiment import load
    from seqcl.experiment.diagnose import diagnose as measured
    from seqcl.experiment.diagnose import told, write
    from seqcl.experiment.maps import check_maps

    wanted = chosen.map != "none"
    try:
        if wanted:
            check_maps()
    except UserError as error:
        if chosen.map == "tsne" or chosen.colour is not None:
            raise
        print(f"no map: {error}")
        wanted = False
    if chosen.colour is not None and not wanted:
        raise UserError("--colour is for the map, which --map none leaves out")
    run = load(chosen.run, device=chosen.device, plugins=chosen.plugin)
    found = measured(run, rows=chosen.rows, map=wanted, colour=chosen.colour)
    files = write(found, chosen.out or Path(chosen.run) / "diagnose")
    for line in told(found):
        print(line)
    print(f"{', '.join(file.name for file in files)} in {files[0].parent}")
    return 0
