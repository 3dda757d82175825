"""The help page of a recipe, made from constructor signatures and their documentation."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from docstring_parser import parse as parse_docstring

from seqcl import registry
from seqcl.config.schema import Section, hints_of, named_options
from seqcl.models import MODELS
from seqcl.parts import Component, options_of

HEAD = {
    "--config FILE": "YAML with the keys below, or the name of one that comes with seqcl, such as beauty-cl4rec; several may be "
    "given: later ones win, options win over files; another model or class leaves out what a file said of the one it replaces; "
    "`base: FILE` in it names the file it builds on, `plugins: [...]` what it needs",
    "--plugin NAME": "a .py file or a module with parts of your own; several may be given",
    "--resume RUN": "go on with a run that was stopped or killed",
    "--print_config": "print the resolved configuration and stop",
    "--precision 32|bf16": "short for --train.precision",
}
"""Words of the command line that are no option of a section, with their meaning."""


def help_page(model: str, sections: Sequence[Section]) -> str:
    """Every option of a model's sections with its default, choices and meaning, below the list of all models."""
    width = min(max(shutil.get_terminal_size().columns, 72), 120)
    lines = ["usage: seqcl train [--model NAME] [--config FILE ...] [--OPTION VALUE ...]", "", "models:"]
    for name, recipe in MODELS.items():
        lines += textwrap.wrap(f"{name:<15} {summary(recipe)}", width, initial_indent="  ", subsequent_indent=" " * 18)
    files = {f"{word} FILE": str(reader.__doc__) for word, reader in registry.CONFIG_FILES.items()}
    lines += ["", *(line for word, text in {**HEAD, **files}.items() for line in option(word, None, text, width)), ""]
    lines += textwrap.wrap(
        f"options of {model}, defaults in brackets; for those of another model: --model NAME --help", width
    )
    return "\n".join([*lines, *(line for section in sections for line in described(section, width))])


def summary(component: Component) -> str:
    """The first line of a component's documentation."""
    return (inspect.getdoc(component) or "").partition("\n")[0]


def described(section: Section, width: int) -> list[str]:
    """The lines of one section."""
    texts, hints = texts_of(section.component), hints_of(section.component)
    tables = dict(named_options(section.component))
    lines = ["", *textwrap.wrap(f"{section.name or 'run'}: {first_sentence(section.component)}", width)]
    if section.names:
        others = f"{', '.join(section.names)}; another one brings its own options"
        lines += option(f"--{section.name} NAME", section.chosen, others, width)
    for name, parameter in options_of(section.component).items():
        key = f"--{section.name}.{name}" if section.name else f"--{name}"
        text = texts.get(name, "")
        if get_origin(hints.get(name)) is Literal:
            key += f" {'|'.join(map(str, get_args(hints[name])))}"
        elif name in tables:
            key += " NAME"
            text = f"{', '.join(registry.TABLES[tables[name]])}: {text}"
        lines += option(key, section.values.get(name, parameter.default), text, width)
    return lines


def texts_of(component: Component) -> dict[str, str]:
    """Read the text on each parameter from the documentation of a component."""
    sources = [component, component.__init__] if inspect.isclass(component) else [component]
    documents = [parse_docstring(inspect.getdoc(source) or "") for source in sources]
    found = {one.arg_name: " ".join((one.description or "").split()) for each in documents for one in each.params}
    for base in inspect.getmro(component)[1:] if inspect.isclass(component) else ():
        for name, text in texts_of(base).items() if base is not object else ():
            found.setdefault(name, text)
    return found


def first_sentence(component: Component) -> str:
    """The short description of a component, in one line."""
    return " ".join((parse_docstring(inspect.getdoc(component) or "").short_description or "").split())


def option(key: str, default: Any, text: str, width: int) -> list[str]:
    """An option on its own line or beside its text, with the default in brackets."""
    shown = "" if default in (None, "") else f" [{str(default).lower() if isinstance(default, bool) else default}]"
    body = textwrap.wrap(text + shown, width - 34) or [""]
    head = f"  {key}"
    lines = [f"{head:<33} {body[0]}"] if len(head) < 33 else [head, " " * 34 + body[0]]
    return lines + [" " * 34 + line for line in body[1:]]
