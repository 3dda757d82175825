"""Facts about models, parts and options for the generated tables, all read from the code.

What depends on how recipes declare their parts stands in the first four functions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from seqcl import registry
from seqcl.config import Options
from seqcl.config.help import texts_of
from seqcl.config.schema import SHARED
from seqcl.config.settings import KIND_OF
from seqcl.models import MODELS
from seqcl.parts import declared, handed_in, options_of

Component = Callable[..., Any]


def parts_of(recipe: Component) -> dict[str, tuple[Component, Mapping[str, Any]]]:
    """The parts of a recipe by section: the component, and the options that the recipe sets."""
    return {name: (part.component, part.options) for name, part in declared(recipe).items()}


def contrasts(recipe: Component) -> bool:
    """True for a recipe with a contrastive term beside what it ranks by."""
    return getattr(recipe, "contrast_off", None) is not None


def choices() -> dict[str, Mapping[str, Component]]:
    """The sections whose component is chosen by name, each with its table."""
    return {section: registry.TABLES[kind].ours for section, kind in KIND_OF.items()}


def shared() -> dict[str, Component]:
    """The components whose options every run has, by section; the empty name is that of the options without a section."""
    return {"": Options, **{section.name: section.component for section in SHARED}}


def tables() -> dict[str, Mapping[str, Component]]:
    """The tables of parts that pages list, by kind."""
    return {kind: registry.TABLES[kind].ours for kind in ("encoder", "view", "objective", "loss", "metric")}


class Option(NamedTuple):
    """One option of a component."""

    name: str
    default: str
    meaning: str
    choices: tuple[str, ...]


def options(component: Component) -> list[Option]:
    """The options of a component, in the order of its signature."""
    made_by = component.__init__ if inspect.isclass(component) else component
    hints, texts = get_type_hints(made_by), texts_of(component)
    made = []
    for name, parameter in options_of(component).items():
        hint = hints.get(name)
        values = tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
        made.append(Option(name, shown(parameter.default), texts.get(name, ""), values))
    return made


def shown(value: Any) -> str:
    """A default as a user would write it; empty for none."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


def components() -> dict[str, dict[str, Component]]:
    """All components that can stand in a section of some recipe, by section and name, the recipes' own ones first."""
    found: dict[str, dict[str, Component]] = {}
    for recipe in recipes().values():
        for section, (component, _) in parts_of(recipe).items():
            found.setdefault(section, {})[component.__name__] = component
    for section, table in choices().items():
        own = list(found[section].values())
        found[section] |= {name: one for name, one in table.items() if any(fits(one, place) for place in own)}
    return found


def fits(component: Component, place: Component) -> bool:
    """True if a component can stand where another one does: it needs no more than is handed in there, and takes all of it."""
    return handed_in(component) <= handed_in(place) <= set(inspect.signature(component).parameters)


def recipes() -> dict[str, type]:
    """Every recipe by the name of its class, without aliases."""
    return {recipe.__name__: recipe for recipe in MODELS.ours.values()}


def aliases(recipe: type) -> list[str]:
    """The other names of a recipe."""
    return [name for name, one in MODELS.ours.items() if one is recipe and name != recipe.__name__]


def first_sentence(component: Component) -> str:
    """The first paragraph of a docstring, as one line; empty for a lambda."""
    return " ".join((inspect.getdoc(component) or "").partition("\n\n")[0].split())


def paper(component: Component) -> tuple[str, str]:
    """Split the first sentence of a docstring into text and source; without a source there, take the papers named before `Args:`."""
    text = first_sentence(component)
    match = re.fullmatch(r"(.*?)\s*\(([^()]*(?:arXiv|\d{4})[^()]*)\)\.?", text)
    if match:
        return match.group(1) + ".", match.group(2)
    described = (inspect.getdoc(component) or "").partition("Args:")[0]
    return text, ", ".join(dict.fromkeys(re.findall(r"arXiv \d{4}\.\d{4,5}|doi 10\.[\w./]*\w", described)))


def linked(source: str) -> str:
    """A source with a link behind every arXiv id and every doi."""
    source = re.sub(r"(?<=doi )(10\.[\w./]*\w)", r"[\1](https://doi.org/\1)", source)
    return re.sub(r"(?<!/)\b(\d{4}\.\d{4,5})\b(?!/)", r"[\1](https://arxiv.org/abs/\1)", source)


def differences(recipe: type) -> str:
    """The paragraph of a docstring that says how it differs from its paper."""
    paragraphs = (inspect.getdoc(recipe) or "").split("\n\n")
    return next((" ".join(one.split()) for one in paragraphs if one.startswith("Differs from")), "")
