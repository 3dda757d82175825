"""The help page of a recipe, made from constructor signatures and their documentation."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring


class Section(NamedTuple):
    """Options that belong together: those of one component."""

    name: str  # empty for the options without a section
    component: Callable[..., Any]
    values: Mapping[str, Any]  # what the recipe sets otherwise than the component's own defaults
    choices: Sequence[str]  # other components that can stand here, by name; empty where there is no choice


def page(head: str, sections: Sequence[Section]) -> str:
    """All options with default, choices and meaning, as wide as the terminal."""
    width = min(max(shutil.get_terminal_size().columns, 72), 120)
    return "\n".join([head, *(line for section in sections for line in described(section, width))])


def described(section: Section, width: int) -> list[str]:
    document = parse_docstring(inspect.getdoc(section.component) or "")
    texts = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in document.params}
    if inspect.isclass(section.component):
        hints = get_type_hints(section.component.__init__)
        own = parse_docstring(inspect.getdoc(section.component.__init__) or "")
        texts |= {p.arg_name: " ".join((p.description or "").split()) for p in own.params}
    else:
        hints = get_type_hints(section.component)
    first = " ".join((document.short_description or "").split())
    lines = ["", *textwrap.wrap(f"{section.name or 'run'}: {first}", width)]
    if section.choices:
        default = section.component.__name__
        what = f"{', '.join(section.choices)}; another one brings its own options"
        lines += option(f"--{section.name} NAME", default, what, width)
    for name, parameter in inspect.signature(section.component).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            continue
        key = f"--{section.name}.{name}" if section.name else f"--{name}"
        default = section.values.get(name, parameter.default)
        hint = hints.get(name)
        if get_origin(hint) is Literal:
            key += f" {'|'.join(map(str, get_args(hint)))}"
        lines += option(key, default, texts.get(name, ""), width)
    return lines


def option(key: str, default: Any, text: str, width: int) -> list[str]:
    """The option on its own line or beside its text, with the default in brackets."""
    shown = "" if default in (None, "") else f" [{str(default).lower() if isinstance(default, bool) else default}]"
    body = textwrap.wrap(text + shown, width - 34) or [""]
    head = f"  {key}"
    lines = [f"{head:<33} {body[0]}"] if len(head) < 33 else [head, " " * 34 + body[0]]
    return lines + [" " * 34 + line for line in body[1:]]
