"""The schema of a configuration: sections, each with the component whose signature has its options, and their parser."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from seqcl import registry
from seqcl.config.experiment import Options
from seqcl.config.messages import at, located, no_section, of_parser, twofold, unknown_option
from seqcl.config.settings import HELP, KIND_OF, Settings, nest
from seqcl.data import Preparation
from seqcl.errors import UserError, unknown
from seqcl.evaluation import Evaluator
from seqcl.models import MODELS
from seqcl.parts import Component, declared, handed_in, options_of, parameters_of
from seqcl.training import Trainer

DEFAULT_MODEL = Options.model


class Section(NamedTuple):
    """A group of options: those of one component."""

    name: str  # empty for the options without a section
    component: Component
    values: Mapping[str, Any] = {}  # the recipe's own values, where they differ from the component's defaults
    names: Sequence[str] = ()  # the components that can be chosen here, the recipe's own first; empty without a choice
    chosen: str = ""


SHARED = (Section("data", Preparation), Section("train", Trainer), Section("eval", Evaluator))
"""The sections of every model."""


class Parser(ArgumentParser):
    """A parser that raises an error instead of printing a usage page."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(str(ex or message))


def model_of(settings: Settings) -> str:
    """The recipe that the settings name, else the default one."""
    return str(settings["model"].value) if "model" in settings else DEFAULT_MODEL


def find_model(settings: Settings) -> Any:
    """The class of the recipe that the settings name.

    Raises:
        UserError: there is no such recipe.
    """
    name = model_of(settings)
    if name not in MODELS:
        raise located(unknown("model", name, MODELS), at(settings, "model"))
    return MODELS[name]


def recipe_sections(settings: Settings) -> list[Section]:
    """The sections of the recipe that the settings name, with the components that they choose.

    Raises:
        UserError: no such recipe or component, or a component that does not fit the recipe.
    """
    recipe = find_model(settings)
    return [section_of(recipe, name, settings) for name in declared(recipe)]


def section_of(recipe: Any, name: str, settings: Settings) -> Section:
    """One section of a recipe, with the component that the settings choose."""
    part = declared(recipe)[name]
    if name not in KIND_OF:
        return Section(name, part.component, part.options)
    table = registry.TABLES[KIND_OF[name]]
    fitting = choices(name, part.component)
    default = default_name(name, part.component)
    choice = str(settings[f"{name}.name"].value) if f"{name}.name" in settings else default
    names = [default, *(one for one in fitting if one != default), *table.patterns()]
    place = at(settings, f"{name}.name")
    if choice == default:
        return Section(name, part.component, part.options, names, default)
    if choice in fitting:
        return Section(name, fitting[choice], {}, names, choice)
    if choice in table:
        text = f"{name} {choice} does not fit {recipe.__name__}, which takes: {', '.join(fitting)}"
        raise located(UserError(f"{text}{misfit(table[choice], part.component)}"), place)
    if choice.partition(":")[0] + ":" in table.families:
        try:
            return Section(name, table.find(choice), {}, names, choice)
        except UserError as error:
            raise located(error, place) from None
    raise located(unknown(name, choice, names), place)


def choices(section: str, default: Component) -> dict[str, Component]:
    """The components of a section by name: those of the table that take what the recipe hands in, and the recipe's own."""
    handed = handed_in(default)
    fitting = {
        name: component
        for name, component in registry.TABLES[KIND_OF[section]].items()
        if handed_in(component) <= handed <= set(parameters_of(component))
    }
    return fitting if default in fitting.values() else {default.__name__: default, **fitting}


def misfit(component: Component, default: Component) -> str:
    """The parameters by which a component does not fit in the place of a recipe's own."""
    handed, taken = handed_in(default), set(parameters_of(component))
    missing, foreign = sorted(handed_in(component) - handed), sorted(handed - taken)
    needs = f"; it needs {', '.join(missing)}, which the recipe does not hand in" if missing else ""
    return needs + (f"; it has no parameter {', '.join(foreign)}, which the recipe hands in" if foreign else "")


def default_name(section: str, component: Component) -> str:
    """The name of a recipe's own component in its section.

    Where no component can be chosen, the options are the name: two components with the same options take the same settings.
    """
    if section not in KIND_OF:
        return ",".join(sorted(options_of(component)))
    return next(name for name, choice in choices(section, component).items() if choice is component)


def parse(sections: Sequence[Section], settings: Settings, *, alone: Component = Options) -> dict[str, dict[str, Any]]:
    """Every option of the sections with its value, by section; "" holds the options without one.

    Args:
        sections: the groups of options.
        settings: what was given; everything else has its default.
        alone: the component whose signature has the options without a section.

    Raises:
        UserError: an unknown option, or a value that does not fit.
    """
    check_known(sections, settings, alone)
    parser = parser_of(sections, alone)
    given = {key: as_word(sections, key, one.value) for key, one in settings.items() if not one.typed}
    words = [f"--{key}={one.value}" for key, one in settings.items() if one.typed and key != HELP]
    try:
        found = parser.parse_object(nest(given)) if given else None
        if words or found is None:  # a pass goes over all options, so none is made for nothing
            found = parser.parse_args(words, namespace=found)
        config = found.as_dict()
    except (UserError, ValueError, TypeError) as error:
        raise of_parser(error, settings) from None
    values = {section.name: config.pop(section.name, {}) for section in sections}
    for section in sections:
        values[section.name].pop("name", None)
        check_names(section, values[section.name], settings)
        check_values(section, values[section.name], settings)
    check_values(Section("", alone), config, settings)
    return {"": config, **values}


def as_word(sections: Sequence[Section], key: str, value: Any) -> Any:
    """A value as its option has it: a whole number is the word of these digits where that is a choice, as in `precision: 32`."""
    name, _, option = key.rpartition(".")
    if type(value) is int:
        hints = next((hints_of(one.component) for one in sections if one.name == name), {})
        if str(value) in literals(hints.get(option)):
            return str(value)
    return value


def literals(hint: Any) -> tuple[Any, ...]:
    """The values that a type lists."""
    inside = get_args(hint)
    return inside if get_origin(hint) is Literal else tuple(one for part in inside for one in literals(part))


MOST_PARSERS = 32
"""Parsers that are kept."""

_parsers: dict[Any, Parser] = {}
"""The parsers made last, by what they are made of: to make one takes longer than to parse with it."""


def parser_of(sections: Sequence[Section], alone: Component) -> Parser:
    """A parser of every option of the sections."""
    made_of = (alone, *((one.name, one.component, bool(one.names), one.chosen, repr(one.values)) for one in sections))
    if (parser := _parsers.get(made_of)) is not None:
        return parser
    parser = Parser(prog="run.py", exit_on_error=False, default_env=False)
    parser.add_function_arguments(alone, as_group=True, sub_configs=False)
    for section in sections:
        if section.names:
            parser.add_argument(f"--{section.name}.name", type=str, default=section.chosen)
        add = parser.add_class_arguments if inspect.isclass(section.component) else parser.add_function_arguments
        add(section.component, section.name, skip=handed_in(section.component), sub_configs=False)  # type: ignore[arg-type]
        parser.set_defaults({f"{section.name}.{key}": value for key, value in section.values.items()})
    while len(_parsers) >= MOST_PARSERS:
        del _parsers[next(iter(_parsers))]
    _parsers[made_of] = parser
    return parser


def check_values(section: Section, values: Mapping[str, Any], settings: Settings) -> None:
    """Refuse what the parser lets through: null where there is no such value, whole numbers past 64 bits, and those in base 60 or 8."""
    hints = hints_of(section.component)
    for option, value in values.items():
        key = f"{section.name}.{option}" if section.name else option
        numbers = value if isinstance(value, list | tuple) else [value]
        typed = key in settings and settings[key].typed and any(isinstance(one, int | float) for one in numbers)
        if typed and (told := twofold(str(settings[key].value))):
            raise UserError(f"option {key}: {told}")
        if any(isinstance(one, int) and abs(one) >= 2**63 for one in numbers):
            raise located(UserError(f"option {key}: the number is too large, at most {2**63 - 1}"), at(settings, key))
        if value is None and key in settings and not allows_none(hints.get(option, Any)):
            raise located(UserError(f"option {key}: expected a value, not null"), at(settings, key))


def allows_none(hint: Any) -> bool:
    """True if a type has None among its values."""
    return hint in (Any, None, type(None)) or any(
        allows_none(one) for one in get_args(hint) if not isinstance(one, str)
    )


def check_known(sections: Sequence[Section], settings: Settings, alone: Component) -> None:
    """Refuse an option that none of the sections has."""
    names = [section.name for section in sections]
    known = {*options_of(alone), HELP}
    for section in sections:
        known |= {f"{section.name}.{option}" for option in options_of(section.component)}
        known |= {f"{section.name}.name"} if section.names else set()
    elsewhere = {name: having for name, having in models_by_section().items() if name not in names}
    for key, setting in settings.items():
        section_name = key.partition(".")[0]
        if key in names:
            text = f"option {key}: expected its options by name, not {setting.value!r}"
            raise located(UserError(text), setting.place)
        if section_name in elsewhere:
            raise no_section(model_of(settings), key, names, elsewhere[section_name], settings)
        if key not in known:
            raise unknown_option(key, known - {HELP}, settings)


def models_by_section() -> dict[str, list[str]]:
    """The models that have each section."""
    found: dict[str, list[str]] = {}
    for name, recipe in MODELS.items():
        for section in declared(recipe):
            found.setdefault(section, []).append(name)
    return found


def check_names(section: Section, values: Mapping[str, Any], settings: Settings) -> None:
    """Refuse a value that is not in the table which its option is annotated with."""
    for option, kind in named_options(section.component):
        if values[option] not in registry.TABLES[kind]:
            key = f"{section.name}.{option}"
            error = unknown(kind, str(values[option]), registry.TABLES[kind])
            raise located(UserError(f"option {key}: {error}"), at(settings, key))


def named_options(component: Component) -> Iterator[tuple[str, str]]:
    """Option and kind of every option that takes a name from a table: `loss: Annotated[str, "loss"]`."""
    for option, hint in hints_of(component).items():
        if get_origin(hint) is Annotated:
            for kind in get_args(hint)[1:]:
                if kind in registry.KINDS:
                    yield option, kind


def hints_of(component: Component) -> dict[str, Any]:
    """The types of a component's parameters."""
    function: Any = component.__init__ if inspect.isclass(component) else component
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UserError(f"{component.__name__}: a type of its parameters cannot be read: {error}") from None
