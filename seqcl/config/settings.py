"""Settings: options by dotted name with their values, and the file and line they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from seqcl import registry
from seqcl.errors import UserError
from seqcl.parts import Part, declared
from seqcl.registry import KIND_OF

SHORT = {"--precision": "--train.precision", "--warm-start": "--warm_start", "--new-items": "--new_items"}
"""Other ways to write options: without their section, or as other programs spell them."""

RENAMED = {"eval.cold_items": ("data.cold_items", "0.1.0")}
"""Options with another name today: the new name, and the last version that had the old one."""

FORMER = ("BSARec", "encoder.taps", "TapRec", "0.1.0")
"""A former name of a recipe and its encoder, the option by which it is known, today's name, and the last version that had it."""

ADDED = {"blend.rerank": ("blend.folds", 0)}
"""Options that came later: an option by which an older run is known to have their section, and the value that it was made with."""

MOVED = ("Distil", "objective", "distil")
"""A recipe, the section of its options in earlier versions, and that of today."""

HELP = "help"


class Setting(NamedTuple):
    """The value of one option."""

    value: Any
    place: str | None = None  # `file:line`; None for what was typed or given from Python
    typed: bool = False  # text of the command line, still to be read by the type of its option


Settings = dict[str, Setting]
"""Options by dotted name, such as `encoder.dim`; the name of a section's component is `encoder.name`."""


def full_name(key: str) -> str:
    """The dotted name of an option as it may be written: `encoder` is short for `encoder.name`."""
    return f"{key}.name" if key in KIND_OF else key


def shown(key: str) -> str:
    """An option's name as users write it: the inverse of `full_name`."""
    return key.removesuffix(".name")


def of_words(words: Sequence[str], hint: str = "") -> Settings:
    """The settings of `--name value` and `--name=value`.

    Args:
        words: the words.
        hint: what a word that is no option may be meant for, for the message.

    Raises:
        UserError: a word that is no option, or an option without a value.
    """
    found: Settings = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            found[HELP] = Setting(True, typed=True)
            continue
        if not word.startswith("--"):
            raise UserError(f"{word!r} is not an option: {hint}options are written --name value, see --help")
        key, equals, value = word.partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                near = get_close_matches(key.replace("-", "_"), ("__print_config", "__help"), n=1, cutoff=0.7)
                hint = f"; did you mean --{near[0][2:]}?" if near else ""
                raise UserError(f"option {key} needs a value{hint}")
            value = rest.pop(0)
        found[full_name(SHORT.get(key, key)[2:])] = Setting(value, typed=True)
    return found


def take(words: Sequence[str], option: str, what: str = "a file") -> tuple[list[str], list[str]]:
    """The words without an option that may be given several times, and its values.

    Args:
        words: the words of a command.
        option: its name, with `--`.
        what: what the option needs, for the message.

    Raises:
        UserError: the option has no value.
    """
    rest: list[str] = []
    values: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        name, equals, value = word.partition("=")
        if name != option:
            rest.append(word)
            continue
        if not equals:
            value = remaining.pop(0) if remaining else ""
            if value.startswith("--"):
                raise UserError(f"option {option} needs {what}, not {value}")
        if not value:
            raise UserError(f"option {option} needs {what}")
        values.append(value)
    return rest, values


def of_mapping(values: Mapping[str, Any], place: str | None = None) -> Settings:
    """The settings of nested or dotted values, as a caller of the library gives them.

    A class, a function or a `part(...)` may stand where a name can: it is registered under its own name if it has none yet.

    Raises:
        UserError: the name of a class is taken by another one.
    """
    return {key: Setting(value, place) for key, value in flatten(values)}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf of nested values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        kind = kind_of(name)
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, Part):
            if kind is None:
                raise UserError(
                    f"option {name}: a part can stand for {', '.join(KIND_OF)}; give {name} its options by name"
                )
            yield full_name(name), named(kind, value.component)
            yield from flatten(value.options, f"{name.removesuffix('.name')}.")
        elif name == "baseline" and isinstance(value, list | tuple):
            yield name, ",".join(one if isinstance(one, str) else named("model", one) for one in value)
        elif kind and callable(value):
            yield full_name(name), named(kind, value)
        else:
            yield full_name(name), value


def kind_of(name: str) -> str | None:
    """The kind of part that an option names; None where it names none."""
    if name in ("model", "baseline"):
        return "model"
    return "loss" if name.endswith(".loss") else KIND_OF.get(name.removesuffix(".name"))


def named(kind: str, component: Any) -> str:
    """The name of a component, which is registered if it has none; a recipe's own default goes by its own name."""
    table = registry.TABLES[kind]
    name = table.name_of(component)
    if name is None and not is_default(kind, component):
        registry.register(kind, component)
    return name or str(component.__name__)


def is_default(kind: str, component: Any) -> bool:
    """True if a component stands in no table because it is the default of a recipe."""
    sections = [section for section, one in KIND_OF.items() if one == kind]
    parts = [declared(recipe) for recipe in registry.TABLES["model"].values()]
    return any(own[section].component is component for own in parts for section in sections if section in own)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted values as nested ones: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, leaf = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree


def renamed(settings: Settings, *, stored: bool = False) -> tuple[Settings, list[str]]:
    """The settings under today's names, and a line for each that had another.

    Args:
        settings: what was read.
        stored: true where a run wrote them; a user must write today's names.

    Raises:
        UserError: a user wrote a name that is no more.
    """
    found: Settings = {}
    lines = []

    def note(line: str, setting: Setting) -> None:
        if not stored:
            raise UserError(f"{setting.place}: {line}" if setting.place else line)
        lines.append(f"{line}; it is read as that")

    former, sign, today, before = FORMER
    (recipe, section, now), model = MOVED, settings.get("model")
    for key, setting in settings.items():
        new, last = RENAMED.get(key, (key, ""))
        if new != key:
            note(f"option {key} of version {last} is called {new} now", setting)
        elif key.startswith(f"{section}.") and model is not None and model.value == recipe:
            new = f"{now}.{key.removeprefix(f'{section}.')}"
            note(f"option {key} of {recipe} is called {new} now", setting)
            if key.endswith(".name"):
                continue
        if key in ("model", "encoder.name") and setting.value == former and sign in settings:
            note(f"{shown(key)} {former} of version {before} is called {today} now", setting)
            setting = setting._replace(value=today)
        found[new] = setting
    for key, (sign, value) in ADDED.items() if stored else ():
        if sign in found and key not in found:
            found[key] = Setting(value)
    return found, lines


def existing(paths: Iterable[str]) -> list[Path]:
    """Words as paths, `~` expanded."""
    return [Path(path).expanduser() for path in paths]
