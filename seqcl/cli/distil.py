"""`seqcl distill RUN [RUN ...] --model NAME ...`: train a model that learns from finished runs; the run is an ordinary one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from seqcl import config, plugins
from seqcl.config.settings import take
from seqcl.data import DATASETS
from seqcl.data.files import archive_of
from seqcl.errors import UserError, lacks
from seqcl.models.teachers import is_counted, none_of

USAGE = """usage: seqcl distill RUN [RUN ...] [--model NAME] [--OPTION VALUE ...]

Train NAME (default: Distil) so that its softmax over items matches the mean of
those of finished runs. Data and ranking are those of the first RUN. All options
of seqcl train go; those of distillation are --distil.alpha, .temperature,
.kept, .counted and .groups."""


def words_of(words: list[str]) -> list[str]:
    """The words of `seqcl train` that say what those of `seqcl distill` say.

    Raises:
        UserError: there is no run, or a model that learns from nobody.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    split = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    runs, rest = words[:split], words[split:]
    if not runs:
        raise UserError(
            "distill needs the folder of a finished run before its options: seqcl distill RUN [RUN ...] --model NAME"
        )
    plugins.load_all(take(rest, "--plugin", "a value")[1])  # a teacher may be made of them
    if any("," in run for run in runs):
        raise UserError("distill: the folder of a teacher cannot have a comma in its name")
    for run in runs:
        if not (Path(run) / "config.yaml").is_file() and not is_counted(run):
            why = f"; {lacks(Path(run), 'config.yaml')}" if Path(run).is_dir() else ""
            raise UserError(f"distill: {none_of(run)}{why}")
    given = [word.partition("=")[0] for word in rest]
    if not (Path(runs[0]) / "config.yaml").is_file() and not {"--dataset", "--config"} & {*given}:
        raise UserError(
            f"distill {runs[0]}: it is no run, so it does not say which data: give --dataset, or a run first"
        )
    if (Path(runs[0]) / "config.yaml").is_file() and "--dataset" not in given:
        check_data(Path(runs[0]))
    named = bool({"--model", "--config"} & {*given})
    rest = [*data_of(Path(runs[0])), *([] if named else ["--model", "Distil"]), *rest]
    recipe = config.resolve(rest, notify=lambda line: None).recipe
    if "distil" not in recipe.parts:
        raise UserError(f"{recipe.name} is counted, so it learns from nobody: give a model that is trained")
    teachers = ",".join(os.path.realpath(run) if (Path(run) / "config.yaml").exists() else run for run in runs)
    return [*rest, f"--distil.teachers={teachers}"]


def data_of(folder: Path) -> list[str]:
    """The words that name a run's data and how it was ranked; how training rows are cut is the student's own."""
    if not (folder / "config.yaml").is_file():
        return []
    flat = config.of_run(folder, notify=lambda line: None).flat
    plain = config.experiment({"dataset": flat["dataset"]}).flat
    kept = ["dataset", *(key for key in flat if key.startswith(("data.", "eval.")) and key != "data.windows")]
    return [f"--{key}={written(flat[key])}" for key in kept if key == "dataset" or flat[key] != plain.get(key)]


def check_data(folder: Path) -> None:
    """Refuse a run whose data are named by a path that leads nowhere from here."""
    name = config.of_run(folder, notify=lambda line: None).options.dataset
    path = Path(name).expanduser()
    if name.lower() not in {known.lower() for known in DATASETS} and not path.exists() and not archive_of(path):
        raise UserError(
            f"distill {folder}: its data set is {name}, which is not there; go where the run was started, or give --dataset FILE"
        )


def written(value: Any) -> str:
    """A value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)
