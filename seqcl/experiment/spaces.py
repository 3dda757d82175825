"""Spaces of a study: options, each with a range or with choices, read from YAML."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqcl import config
from seqcl.config import Experiment
from seqcl.config.files import read
from seqcl.config.messages import located, unknown_option
from seqcl.config.settings import Setting, Settings, shown
from seqcl.errors import UserError, unknown
from seqcl.registry import TABLES

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DEFAULT = Path(__file__).with_name("space.yaml")
"""The file of `--space default`."""

BOUNDS = ("low", "high", "log", "step")
"""The words of a range."""

Space = dict[str, Any]
"""By dotted option a list of choices, or a range: a dictionary with `low`, `high` and perhaps `log` or `step`."""


def read_space(base: Experiment, names: Sequence[str]) -> tuple[Space, list[str]]:
    """The space that files describe, later ones winning; and the options of the default one that are left out.

    An option of the default space is left out where its value in `base` is outside its range, as that of a term that is
    switched off: the first trial is `base`, so every range must hold its value.

    Args:
        base: the configuration of the first trial.
        names: files, or `default`.

    Raises:
        UserError: names file, line and option: no such option, one that may not be searched, a range or a choice that the
            option does not take, or one without the value of `base`; or nothing is left to search.
    """
    space: Space = {}
    left_out: list[str] = []
    for name in names:
        own = name != "default"
        for option, setting in entries(Path(name).expanduser() if own else DEFAULT, base.recipe.name):
            setting = setting._replace(value=numeral(setting.value, base.flat.get(option)))
            if own:
                check(base, option, setting)
            elif option not in base.flat or (option.startswith("train.") and not base.recipe.trained):
                continue
            elif not holds(setting.value, base.flat[option]):
                left_out.append(option)
                continue
            space[option] = setting.value
    if not space:
        raise UserError(
            f"--space {' '.join(names)}: {base.recipe.name} has none of its options, so nothing is searched"
        )
    return space, [option for option in left_out if option not in space]


def entries(path: Path, model: str) -> Iterator[tuple[str, Setting]]:
    """The options of a file with their choices or ranges; `MODEL.option` is an option of one model alone."""
    found: Settings = {}
    file = read(path, option="--space")
    if file.base is not None or file.plugins:
        raise UserError(f"{path}: a space names options alone, no base and no plugins; give --space several times")
    for key, setting in file.settings.items():
        option, _, word = key.rpartition(".")
        if option and word in BOUNDS:
            before = found.get(option, Setting({}, setting.place))
            if not isinstance(before.value, dict):
                raise located(UserError(f"option {option} has a range and a value"), setting.place)
            found[option] = Setting({**before.value, word: setting.value}, before.place)
        else:
            found[key] = setting
    for key, setting in found.items():
        owner, _, option = key.partition(".")
        if owner not in TABLES["model"]:
            yield key, setting
        elif owner == model:
            yield option, setting


def check(base: Experiment, option: str, setting: Setting) -> None:
    """Refuse an entry that cannot be searched.

    Raises:
        UserError: names its file and line, and the nearest option.
    """
    known = searchable(base)
    above, _, word = option.rpartition(".")
    if option not in base.flat and above in base.flat:
        raise located(UserError(f"option {shown(above)}: {unknown('word', word, BOUNDS)}"), setting.place)
    if option not in base.flat:
        raise unknown_option(option, known, {option: setting})
    try:
        if option not in known:
            raise UserError(
                f"option {shown(option)} is not searched: trials share data, protocol, seed, machine and components"
            )
        refuse_form(shown(option), setting.value, base.flat[option])
        for value in ends(setting.value):
            variant(base, {option: value})
        if not holds(setting.value, base.flat[option]):
            raise UserError(
                f"option {shown(option)}: its value {plain(base.flat[option])} is not in {setting.value}, and the first trial "
                f"has it; widen that, or begin elsewhere with --{shown(option)} VALUE"
            )
    except UserError as error:
        raise located(error, setting.place) from None


def searchable(base: Experiment) -> set[str]:
    """The options that may differ between trials: those of the recipe's parts and of training, windows and start."""
    sections, fixed = {*base.recipe.parts, "train"}, {"train.monitor", *(f"{name}.name" for name in base.recipe.parts)}
    return {key for key in base.flat if key.partition(".")[0] in sections} - fixed | {"data.windows", "start"}


def refuse_form(option: str, entry: Any, value: Any) -> None:
    """Refuse what is neither a list of choices nor a range that the type of the option allows."""
    if isinstance(entry, list) and entry:
        return
    if not isinstance(entry, dict) or not {"low", "high"} <= entry.keys():
        raise UserError(
            f"option {option}: expected choices in brackets, or {{low: NUMBER, high: NUMBER}}, not {entry!r}"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(
            f"option {option}: its value {value!r} is no number, so it takes choices in brackets, not a range"
        )
    kind = int if isinstance(value, int) else float
    for word in ("low", "high", "step"):
        number = entry.get(word, 1)
        if isinstance(number, bool) or not isinstance(number, int if kind is int else int | float):
            raise UserError(f"option {option}: {word} must be a {'whole ' * (kind is int)}number, not {number!r}")
    if not isinstance(entry.get("log", False), bool):
        raise UserError(f"option {option}: log must be true or false, not {entry['log']!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a range that its step does not divide
            distribution(entry, value)
    except (ValueError, UserWarning) as error:
        raise UserError(f"option {option}: {error}") from None


def holds(entry: Any, value: Any) -> bool:
    """True if choices or a range hold a value."""
    if isinstance(entry, list):
        return plain(value) in entry
    if not entry["low"] <= value <= entry["high"]:
        return False
    steps = (value - entry["low"]) / entry.get("step", 1)
    return "step" not in entry or abs(steps - round(steps)) < 1e-6


def numeral(entry: Any, value: Any) -> Any:
    """An entry with text such as 1e-4, which YAML 1.1 takes for no number, as a number where the value of the option is one."""
    if isinstance(entry, list):
        return [numeral(one, value) for one in entry]
    if isinstance(entry, dict):
        return {word: numeral(one, value) for word, one in entry.items()}
    if not isinstance(entry, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return entry
    try:
        number = float(entry)
    except ValueError:
        return entry
    return number if math.isfinite(number) else entry


def ends(entry: Any) -> list[Any]:
    """The choices, or the two ends of a range."""
    return entry if isinstance(entry, list) else [entry["low"], entry["high"]]


def variant(base: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """The experiment with other values of some options; what the user has decided stays known.

    Raises:
        UserError: a value does not fit.
    """
    return replace(config.experiment({**base.flat, **changes}), given=base.given)


def plain(value: Any) -> Any:
    """A value as YAML has it."""
    return list(value) if isinstance(value, tuple) else value


def coded(value: Any) -> Any:
    """A value as a study stores it: lists as text."""
    return json.dumps(plain(value)) if isinstance(value, list | tuple) else value


def decoded(space: Space, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a study stores, by option."""
    choices = {key: {coded(one): one for one in entry} for key, entry in space.items() if isinstance(entry, list)}
    return {key: choices[key][value] if key in choices else value for key, value in stored.items()}


def distributions(space: Space, base: Experiment) -> dict[str, BaseDistribution]:
    """The space as optuna takes it."""
    return {option: distribution(entry, base.flat[option]) for option, entry in space.items()}


def distribution(entry: Any, value: Any) -> BaseDistribution:
    """The choices or the range of an option with this value, as optuna takes them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(entry, list):
        return CategoricalDistribution([coded(one) for one in entry])
    return IntDistribution(**entry) if isinstance(value, int) else FloatDistribution(**entry)
