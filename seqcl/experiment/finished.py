"""Read the folder of a finished run: its figures, its ranks and its configuration; no model is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open

from seqcl import config
from seqcl.disk import read_json
from seqcl.errors import UserError, brief, lacks
from seqcl.experiment import kept
from seqcl.experiment.folder import UNENDED
from seqcl.experiment.keeping import home_of
from seqcl.experiment.versions import begun_from, read_beside

OF_THE_PLACE = ("seed", "runs", "device", "dataset", "keep_gib", "baseline", "test", "track")
"""Options that say which data, seed and machine, not which model; data are told apart by their fingerprint."""

NO_FIGURE = ("train.save_minutes", "eval.batch_size")
"""Options that change no figure."""

FREE = (
    "seed",
    "warm_start",
    "windows",
    "columns",
    "order",
    "dropped",
    "left_out",
    "unreachable_targets",
    "unreachable_share",
    "best_possible",
)
"""Parts of a protocol in which two runs may differ: how they train, and what follows from the rest."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run, or a baseline in one."""

    folder: Path
    model: str
    options: dict[str, Any]  # by dotted name, without those of the place
    beside: dict[str, str]  # hashes of what is read beside them, as far as they are known
    seed: int
    metrics: dict[str, float]  # of test
    valid: dict[str, float]
    protocol: dict[str, Any]
    data: dict[str, Any]
    counted: bool  # not trained, so that every seed gives the same
    seconds: float | None  # of training
    memory: int | None  # peak bytes of the process
    parameters: int | None  # that are trained
    users: np.ndarray | None  # (W,) raw ids; None in a kept file, whose rows are those of the split
    targets: np.ndarray | None  # (W,) raw ids
    ranks: np.ndarray  # (W,); in a kept file, those beyond its deepest are past every list
    deepest: int | None  # the largest rank that a kept file has; None for a run, which has all
    about: dict[str, Any]  # versions and machine
    config: str  # YAML

    @classmethod
    def read(cls, folder: Path) -> Finished:
        """Read the folder of a run, or RUN/baselines/NAME, or a file that `keep` wrote.

        Raises:
            UserError: no run is there, or it is not finished, or a file of it cannot be read.
        """
        import pandas as pd

        from seqcl.data.arrow import opened

        if folder.suffix == ".parquet":
            return read_kept(folder)
        home = home_of(folder)
        for needed in (folder / "config.yaml", home / "metrics.json", folder / "ranks.parquet"):
            if not needed.is_file():
                known = (folder / "config.yaml").is_file()
                test = " --test true" if (home / "metrics.json").is_file() else ""
                raise UserError(
                    f"{folder} is no finished run: {lacks(folder, needed.name)}"
                    + (f"; go on with: --resume {home}{test}" if known else "")
                )
        if (home / UNENDED).exists():
            raise UserError(
                f"{folder} went on under another configuration and has not ended; go on with: --resume {home}"
            )
        figures = read_json(home / "metrics.json", dict)
        try:
            text = (folder / "config.yaml").read_text(encoding="utf-8")
            values = yaml.safe_load(text)
            options = options_of(values)
            found = pd.read_parquet(opened(folder / "ranks.parquet"))
            users, targets, ranks = (found[name].to_numpy() for name in ("user", "target", "rank"))
            main = folder == home or folder.resolve() == home.resolve()
            own = figures if main else figures["baselines"][values["model"]]
            check_figures(figures, own, ranks)
            seconds, parameters = trained(folder)
            return cls(
                folder=folder,
                model=values["model"],
                options=options,
                beside=read_beside(home) | begun_from(figures, options),
                seed=figures["seed"],
                metrics=own["test"],
                valid=own["valid"],
                protocol=figures["protocol"],
                data=figures["data"],
                counted=seconds is None and not (folder / "history.csv").is_file(),
                seconds=seconds,
                memory=figures.get("peak_memory_bytes") if main else None,
                parameters=parameters,
                users=users,
                targets=targets,
                ranks=ranks,
                deepest=None,
                about={key: dict(figures.get(key) or {}) for key in ("versions", "machine")},
                config=text,
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise UserError(
                f"{folder} cannot be read as a finished run: {brief(f'{type(error).__name__}: {error}')}"
            ) from None

    def baselines(self) -> list[Path]:
        """The folders of the baselines in this run."""
        return sorted(path.parent for path in self.folder.glob("baselines/*/ranks.parquet"))


def check_figures(figures: dict[str, Any], own: dict[str, Any], ranks: np.ndarray) -> None:
    """Raise ValueError where a figure is no number, or a rank is no whole number from 1 on.

    Args:
        figures: metrics.json.
        own: the part of it with the metrics of this model.
        ranks: (W,) of ranks.parquet.
    """
    parts = {"protocol": figures["protocol"], "data": figures["data"], "test": own["test"], "valid": own["valid"]}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{name} in metrics.json is {part!r}")
    numbers = {**own["test"], **own["valid"], "peak_memory_bytes": figures.get("peak_memory_bytes") or 0}
    for name, number in numbers.items():
        if not isinstance(number, int | float):
            raise ValueError(f"{name} in metrics.json is {number!r}, no number")
    if ranks.dtype.kind not in "iu" or (ranks < 1).any():
        raise ValueError("a rank in ranks.parquet is no whole number from 1 on")


def read_kept(file: Path) -> Finished:
    """Read a file that `keep` wrote."""
    about, ranks = kept.read(file)
    figures, options = about["metrics"], options_of(about["config"])
    return Finished(
        folder=file,
        model=figures["model"],
        options=options,
        beside=about["beside"] | begun_from(figures, options),
        seed=figures["seed"],
        metrics=figures["test"],
        valid=figures["valid"],
        protocol=figures["protocol"],
        data=figures["data"],
        counted=figures["training"] is None,
        seconds=figures["training"] and figures["training"]["seconds"],
        memory=figures.get("peak_memory_bytes"),
        parameters=about["parameters"],
        users=None,
        targets=None,
        ranks=ranks,
        deepest=about["deepest"],
        about={key: figures[key] for key in ("versions", "machine")},
        config=yaml.safe_dump(about["config"], sort_keys=False, allow_unicode=True),
    )


def options_of(values: dict[str, Any]) -> dict[str, Any]:
    """The options that figures depend on, of a configuration as a run wrote it; those that are newer than it have their defaults."""
    try:
        flat: Mapping[str, Any] = config.experiment(values, stored=True).flat
    except UserError:  # it has parts of a plugin that is not loaded here
        flat = dict(flattened(values))
    return figures_of(flat)


def figures_of(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The options by dotted name that figures depend on, lists as tuples; data and seed are apart from them."""
    kept = {key: value for key, value in flat.items() if key not in (*OF_THE_PLACE, *NO_FIGURE)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}


def trained(folder: Path) -> tuple[float | None, int | None]:
    """The seconds of training and the number of trained parameters; None and None for a model that is counted."""
    import json

    last = folder / "checkpoints" / "last.safetensors"
    if not last.is_file():
        return None, None
    try:
        with safe_open(last, framework="np") as file:
            names = [name for name in file.keys() if name.startswith("optimizer.mean.")]  # noqa: SIM118
            size = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
            return float(json.loads(file.metadata()["state"])["seconds"]), size or None
    except SafetensorError as error:
        raise UserError(f"{last} is not a whole checkpoint: {brief(error)}") from None


def flattened(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested options as pairs of a dotted name and a value."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += (
            flattened(value, f"{before}{key}.") if isinstance(value, dict) and value else [(f"{before}{key}", value)]
        )
    return pairs


def check_same_protocol(runs: list[Finished]) -> None:
    """Refuse runs of different data or protocols.

    Raises:
        UserError: names the first difference, and the two runs.
    """
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = ({**one.protocol, "data": one.data["name"]} for one in (first, run))
        # The fingerprint says it shortest where it is another one; the name of the data may be another of the same log.
        keys = [key for key in {**ours, **theirs} if key not in (*FREE, "data")]
        for key in sorted(keys, key=lambda key: key != "data_fingerprint"):
            if ours.get(key) != theirs.get(key):
                what = f"data ({ours['data']} and {theirs['data']}, {key})" if key == "data_fingerprint" else key
                raise UserError(
                    f"results of two protocols are not compared: {run.folder} has another {what} than {first.folder}: "
                    f"{brief(theirs.get(key))}, not {brief(ours.get(key))}"
                )
        known = next((one for one in runs if one.users is not None), run)
        if run.users is not None and not (same(known.users, run.users) and same(known.targets, run.targets)):
            raise UserError(f"{run.folder} and {known.folder} rank other targets, or in another order")


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """True if two arrays are equal."""
    return one is not None and other is not None and np.array_equal(one, other)
