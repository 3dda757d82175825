"""YAML files as settings: `base:` names the file that a file builds on, `plugins:` the plugins that it needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from seqcl.config.messages import twofold
from seqcl.config.settings import Setting, Settings, full_name, renamed
from seqcl.errors import UserError, brief

MOST_VALUES = 10_000
"""Values that a file may stand for; one with aliases of aliases stands for billions."""


class File(NamedTuple):
    """One file, without the one it builds on."""

    path: Path
    settings: Settings
    base: Path | None
    base_place: str | None  # the file and line that name it
    plugins: list[str]
    notes: list[str]  # a line for each option that has another name now


def chain(path: Path) -> list[File]:
    """A file behind all the files that it builds on, the lowest first.

    Args:
        path: the file.

    Raises:
        UserError: a file that cannot be read, or files that build on each other in a circle.
    """
    found: list[File] = []
    after: Path | None = path
    while after is not None:
        if any(file.path.resolve() == after.resolve() for file in found):
            circle = " -> ".join(str(file.path) for file in [*found, found[0]])
            raise UserError(f"--config {path}: these files build on each other in a circle: {circle}")
        found.append(read(after, named_by=found[-1].base_place if found else None))
        after = found[-1].base
    return found[::-1]


def read(path: Path, *, named_by: str | None = None, stored: bool = False, option: str = "--config") -> File:
    """One file, with `file:line` for every setting.

    Args:
        path: the file.
        named_by: the file and line that name it as their base.
        stored: true where a run wrote it, so that options under their former names are read.
        option: the option that names the file, where no file does.

    Raises:
        UserError: no such file, no YAML, or no `key: value` lines.
    """
    source = f"{option} {path}" if named_by is None else f"{named_by}: base: {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = composed(text)
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: byte {error.start + 1} is not UTF-8 text; save the file as UTF-8") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if root is None:
        return File(path, {}, None, None, [], [])
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{source}: the file must hold `key: value` lines")
    try:
        settings = settings_of(root, text, path)
    except UserError as error:
        raise UserError(f"{path}:{error}") from None
    base, plugins = settings.pop("base", None), settings.pop("plugins", None)
    today, notes = renamed(settings, stored=stored)
    place = base.place if base else None
    return File(path, today, base_of(base, path), place, plugins_of(plugins), [f"{path}: {note}" for note in notes])


def composed(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, none of which is nested too deeply, holds itself, is multiplied by aliases, or a number in base 60 or 8.

    Raises:
        UserError: it is no YAML, or one of these.
    """
    if re.search(r"(?:[\[{]\s*){50}", text):  # the time to parse grows with the square of the depth
        raise UserError("its values are nested too deeply")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is not None and size_of(root, {}) > MOST_VALUES:
            raise UserError(f"its aliases *name stand for more than {MOST_VALUES:,} values")
        if root is not None:
            refuse_twofold(root)
    except yaml.YAMLError as error:
        raise UserError(yaml_problem(error)) from None
    except RecursionError:
        raise UserError("its values are nested too deeply") from None
    return root


def size_of(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of nodes that a node stands for, each alias counted in full."""
    if id(node) in known:
        if not known[id(node)]:
            raise UserError("a value holds itself, through an anchor &name and *name")
        return known[id(node)]
    known[id(node)] = 0  # under way
    children = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
    inner = sum(size_of(one, known) for one in children) if isinstance(children, list) else 0
    known[id(node)] = 1 + inner
    return known[id(node)]


def refuse_twofold(node: yaml.Node) -> None:
    """Refuse a number that YAML 1.1 reads in base 60, as 1:30, or in base 8, as 010.

    Raises:
        UserError: begins with the line.
    """
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and (told := twofold(node.value)):
            raise UserError(f"line {node.start_mark.line + 1}: {told}")
        return
    for one in node.value:
        for child in one if isinstance(one, tuple) else (one,):
            refuse_twofold(child)


def settings_of(node: yaml.MappingNode, text: str, path: Path) -> Settings:
    """The settings of a mapping, each with its file and line.

    Raises:
        UserError: an option stands twice, perhaps as `train.epochs` and below `train`; begins with the line.
    """
    found: dict[str, Setting] = {}
    lines: dict[str, int] = {}
    for key, value, line in leaves(node, text):
        if key in found:
            raise UserError(f"{line}: {key} stands on line {lines[key]} already")
        found[key], lines[key] = Setting(value, f"{path}:{line}"), line
    return found


def leaves(node: yaml.MappingNode, text: str, prefix: str = "") -> Iterator[tuple[str, Any, int]]:
    """Dotted name, value and line of every leaf; `encoder: GRU` is short for `encoder: {name: GRU}`."""
    loader = yaml.SafeLoader(text)
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{line}: a key must be one word")
        name = f"{prefix}{key.value}"
        if name in lines:
            raise UserError(f"{line}: {name} stands on line {lines[name]} already")
        lines[name] = line
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from leaves(value, text, f"{name}.")
        else:
            try:
                made = loader.construct_object(value, deep=True)
            except (yaml.YAMLError, ValueError) as error:
                raise UserError(f"{line}: {name}: {brief(getattr(error, 'problem', None) or error)}") from None
            yield full_name(name), made, line


def yaml_problem(error: yaml.YAMLError) -> str:
    """The problem of a file that is no YAML, and its line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())


def base_of(setting: Setting | None, path: Path) -> Path | None:
    """The file that `base:` names, relative to the file that names it."""
    if setting is None:
        return None
    if not isinstance(setting.value, str) or not setting.value:
        raise UserError(f"{setting.place}: base must name one file, not {setting.value!r}")
    return path.parent / Path(of_locale(setting.value)).expanduser()


def plugins_of(setting: Setting | None) -> list[str]:
    """The plugins that `plugins:` names."""
    if setting is None:
        return []
    names = setting.value if isinstance(setting.value, list) else [setting.value]
    for name in names:
        if not isinstance(name, str) or not name:
            raise UserError(f"{setting.place}: plugins must be a list of files or modules, not {setting.value!r}")
    return [of_locale(name) for name in names]


def of_locale(name: str) -> str:
    """The name of a file in a YAML, which is UTF-8, as the locale's own functions take it."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))
