"""The key of a run: what its figures depend on, so that no run is made twice and none is taken for another."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import seqcl
from seqcl import plugins
from seqcl.config import Experiment
from seqcl.experiment.finished import figures_of
from seqcl.experiment.keeping import COUNTED, named_files
from seqcl.experiment.versions import hash_of
from seqcl.models.teachers import is_counted
from seqcl.parts import options_of

ROOMS = ("augment", "data", "encoders", "evaluation", "losses", "models", "objectives", "processes", "training")
"""The rooms that decide a figure. The others read options, which a key holds resolved, or show what was found."""

FILES = (
    "blocks.py",
    "mapped.py",
    "parts.py",
    "shapes.py",
    "types.py",
    *(f"experiment/{name}.py" for name in ("blended", "job", "pipeline", "ranking", "teachers", "warm")),
)
"""The files beside the rooms that decide a figure, those that train and rank among them."""


def key_of(experiment: Experiment, data: str, code: str) -> str:
    """The key of a run: 12 letters that another option, seed, log, file that an option names, or code changes."""
    files = {value: hash_of(Path(value).expanduser()) for _, _, value in named_files(experiment)}
    if experiment.options.warm_start:
        files["warm_start"] = first_weights(experiment)
    if taught := told_of(teachers_of(experiment)):
        files["teachers"] = taught
    told = [figures_of(experiment.flat), experiment.options.seed, data, files, code, own_code(experiment)]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]


def first_weights(experiment: Experiment) -> str:
    """The hash of the weights of the run that an experiment goes on from; nothing where it begins anew."""
    start = experiment.options.warm_start
    return hash_of(Path(start).expanduser() / "checkpoints" / "best.safetensors") if start else ""


def teachers_of(experiment: Experiment) -> list[str]:
    """The folders of runs that an experiment learns from."""
    found = []
    for part in experiment.recipe.parts.values():
        names = part.options.get("teachers") if "teachers" in options_of(part.component) else None
        found += [name.strip() for name in (names or "").split(",") if name.strip()]
    return [name for name in found if not is_counted(name)]


def told_of(teachers: Iterable[str]) -> str:
    """Teachers with the beginnings of the hashes of what decides their answers, as a run tells of them."""
    return ", ".join(f"{name} ({version_of(Path(name).expanduser())})" for name in teachers)


def version_of(run: Path) -> str:
    """The beginning of the hash of what decides a run's answers: its weights, or what it was counted on and how."""
    weights = run / "checkpoints" / "best.safetensors"
    files = [weights] if weights.is_file() else [run / "config.yaml", run / COUNTED]
    return "-".join(hash_of(file)[:16] for file in files if file.is_file())


@cache
def code_version(root: Path = Path(seqcl.__file__).parent) -> str:
    """The hash of what the files of `ROOMS` do: comments, docstrings and layout do not count."""
    files = sorted(
        [*(file for room in ROOMS for file in (root / room).rglob("*.py")), *(root / name for name in FILES)]
    )
    found = hashlib.sha256()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [one for one in node.body if not is_text(one)]
        found.update(f"{file.relative_to(root).as_posix()}\n{ast.dump(tree)}\n".encode())
    return found.hexdigest()


def is_text(node: ast.stmt) -> bool:
    """True for a docstring, also one of an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def own_code(experiment: Experiment) -> dict[str, str]:
    """The hash of the file of every plugin that an experiment needs."""
    found = {}
    for _, _, source in experiment.needs():
        file = Path(source) if source.endswith(".py") else plugins.module_file(source)
        found[Path(source).name] = hash_of(file) if isinstance(file, Path) else ""
    return found
