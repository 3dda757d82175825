"""From words to a configuration: constructor signatures are the schema, YAML files and dotted options fill it in.

A recipe's parts are those parameters of its constructor whose default is a `functools.partial`; each is a section, and
the keywords of the class behind it are its options. Parameters without a default are handed in by the recipe, never set here.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from seqcl.augment import VIEWS
from seqcl.encoders import ENCODERS
from seqcl.errors import UserError, unknown
from seqcl.extensions import CONFIG_FILES, foreign
from seqcl.extensions import ENCODERS as FOREIGN_ENCODERS
from seqcl.help import Section, page
from seqcl.models import MODELS
from seqcl.objectives import OBJECTIVES

Component = Callable[..., Any]

SHORT = {"--precision": "--train.precision"}
"""Options that may be written without their section."""

CHOICES: dict[str, Mapping[str, Component]] = {"encoder": ENCODERS, "objective": OBJECTIVES, "views": VIEWS}
"""The sections whose class can be changed by name: `--encoder GRU`."""

Origin = dict[str, str]
Flat = dict[str, Any]


class Parser(ArgumentParser):
    """Turns a user's mistake into one UserError instead of a usage page."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(str(ex or message))


def parts(recipe: Component) -> dict[str, partial[Any]]:
    """The parts a recipe is composed of, by section name."""
    parameters = inspect.signature(recipe).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if isinstance(parameter.default, partial)}


def given(component: Component) -> set[str]:
    """Parameters without a default: the recipe or the experiment hands them in."""
    parameters = inspect.signature(component).parameters.values()
    return {parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty}


def from_arguments(
    arguments: Sequence[str],
    shared: Mapping[str, Component],
    run: Component,
    notify: Callable[[str], None] = lambda line: print(f"seqcl: {line}", file=sys.stderr),
) -> Namespace:
    """The resolved configuration of `arguments`; other projects' files come first, then those named by --config; later ones
    win, options win over files. What a file says of a class that a later one replaces is left out.

    Args:
        arguments: the words after the command.
        shared: sections that every model has, by name.
        run: the function whose keywords are the options without a section.
        notify: gets a line for each file of which something was left out.

    Raises:
        UserError: an unknown name, or a value that does not fit.
    """
    words = list(arguments)
    sources: list[tuple[Flat, Origin]] = []
    for option, read in CONFIG_FILES.items():
        words, files = split_files(words, option)
        if len(files) > 1:
            raise UserError(f"option {option} is given {len(files)} times: give one file")
        for file in files:
            values = read(file)
            sources.append((values, dict.fromkeys(values, f"{option} {file}")))
    words, files = split_files(words, "--config")
    for file in files:
        lines = list(read_yaml(file))
        sources.append(({key: value for key, value, _ in lines}, {key: place for key, _, place in lines}))
    typed = {key[2:]: value for key, value in options(words)}
    asks_help = typed.pop("help", None) is HELP
    flat: Flat = {}
    origin: Origin = {}
    left_out: dict[str, str] = {}
    for values, places in [*sources, (typed, {})]:
        gone = replaced(flat, values, run)
        left_out |= {key: origin[key] for key in gone if key not in values}
        flat = {key: value for key, value in flat.items() if key not in gone}
        if values is not typed:
            flat |= values
            origin |= places
    chosen = flat | {key: value for key, value in typed.items() if key == "model" or key in name_keys()}
    places = {key: place for key, place in origin.items() if key not in typed}
    parser = make_parser(chosen, shared, run, places)
    check_keys(parser, model_of(chosen, run), [*flat, *typed], flat, places)
    if asks_help:
        print(help_page(chosen, shared, run))
        sys.exit(0)
    base = parse(lambda: parser.parse_object(nest(flat)), origin)
    config = parse(lambda: parser.parse_args([f"--{key}={value}" for key, value in typed.items()], namespace=base), {})
    say_left_out(left_out, notify)
    return config


def replaced(earlier: Flat, later: Mapping[str, Any], run: Component) -> list[str]:
    """Keys of `earlier` about a class that it names and `later` replaces by another; an encoder keeps its `dim`.

    Another model replaces the classes named before it too: it brings its own.
    """
    other = "model" in earlier and MODELS.get(str(earlier["model"])) is not MODELS.get(
        model_of({**earlier, **later}, run)
    )
    stays = {key: value for key, value in earlier.items() if not (other and key in name_keys())}
    before, after = class_names(earlier, run), class_names({**stays, **later}, run)
    named = {section for section in before if "model" in earlier or f"{section}.name" in earlier}
    lost = {section for section in named if before[section] != after.get(section)}
    return [
        key for key in earlier if key.partition(".")[0] in lost and not (key == "encoder.dim" and "encoder" in after)
    ]


def class_names(flat: Flat, run: Component) -> dict[str, str]:
    """The class of every section under `flat`; none if there is no such model."""
    recipe = MODELS.get(model_of(flat, run))
    sections = {} if recipe is None else parts(recipe)
    return {name: str(flat.get(f"{name}.name", default_name(name, part.func))) for name, part in sections.items()}


def default_name(section: str, component: Component) -> str:
    """What the recipe's own component is called in its section."""
    table = choices(section, component) if section in CHOICES else {component.__name__: component}
    return next(name for name, choice in table.items() if choice is component)


def say_left_out(places: Origin, notify: Callable[[str], None]) -> None:
    """Say, in a line for each file, which of its keys do not count."""
    files = {key: place.rpartition(":")[0] or place for key, place in places.items()}
    for file in dict.fromkeys(files.values()):
        names = ", ".join(key.removesuffix(".name") for key in places if files[key] == file)
        notify(f"{file}: left out, as the class that they are about is replaced: {names}")


def from_mapping(values: Mapping[str, Any], shared: Mapping[str, Component], run: Component) -> Namespace:
    """The resolved configuration of nested or dotted `values`, as YAML or a caller of the library gives them."""
    flat = dict(flatten(values))
    parser = make_parser(flat, shared, run, {})
    check_keys(parser, model_of(flat, run), list(flat), flat, {})
    return parse(lambda: parser.parse_object(nest(flat)), {})


def model_of(chosen: Mapping[str, Any], run: Component) -> str:
    """The recipe that `chosen` names, else the default one."""
    return str(chosen.get("model", inspect.signature(run).parameters["model"].default))


def make_parser(chosen: Mapping[str, Any], shared: Mapping[str, Component], run: Component, origin: Origin) -> Parser:
    """The parser of one recipe with the classes that `chosen` names in its sections."""
    name = model_of(chosen, run)
    if name not in MODELS:
        raise located(unknown("model", name, MODELS), origin.get("model"))
    parser = Parser(prog="run.py", exit_on_error=False, default_env=False)
    parser.add_function_arguments(run, as_group=True, sub_configs=False)
    for section, component, values, names in sections_of(MODELS[name], chosen, origin):
        if names:
            parser.add_argument(f"--{section}.name", type=str, default=chosen.get(f"{section}.name", names[0]))
        add_section(parser, component, section)
        parser.set_defaults({f"{section}.{key}": value for key, value in values.items()})
    for section, component in shared.items():
        add_section(parser, component, section)
    return parser


def sections_of(recipe: Component, chosen: Mapping[str, Any], origin: Origin) -> Iterator[Section]:
    """The sections of a recipe with the classes that `chosen` names; the recipe's own choice is the first of its names."""
    for section, part in parts(recipe).items():
        component, values, names = part.func, dict(part.keywords), []
        if section in CHOICES:
            table = choices(section, component)
            default = default_name(section, component)
            names = [default, *(name for name in table if name != default)]
            choice = str(chosen.get(f"{section}.name", default))
            table |= brought(section, choice)
            if choice not in table and choice in CHOICES[section]:
                fits = f"{section} {choice} does not fit {recipe.__name__}, which takes: {', '.join(table)}"
                raise located(UserError(fits), origin.get(f"{section}.name"))
            elsewhere = [f"{prefix}:NAME" for prefix in FOREIGN_ENCODERS] if section == "encoder" else []
            if choice not in table:
                raise located(unknown(section, choice, [*table, *elsewhere]), origin.get(f"{section}.name"))
            if choice != default:
                component, values = table[choice], {}
            names += elsewhere
        yield Section(section, component, values, names)


def choices(section: str, default: Component) -> dict[str, Component]:
    """What a section can be: the recipe's own component, and those of the table that take what the recipe hands in."""
    handed = given(default)
    table = CHOICES[section].items()
    fitting = {
        name: component
        for name, component in table
        if given(component) <= handed <= set(inspect.signature(component).parameters)
    }
    return fitting if default in fitting.values() else {default.__name__: default, **fitting}


def brought(section: str, name: str) -> dict[str, Component]:
    """The encoder that another project has by this name, if the name is of that kind."""
    found = foreign(name) if section == "encoder" else None
    return {} if found is None else {name: found}


def add_section(parser: Parser, component: Component, section: str) -> None:
    add = parser.add_class_arguments if inspect.isclass(component) else parser.add_function_arguments
    add(component, section, skip=given(component), sub_configs=False)  # type: ignore[arg-type]


def build_parts(recipe: Component, config: Namespace) -> dict[str, partial[Any]]:
    """The recipe's parts with the values of a resolved configuration."""
    built = {}
    for section, part in parts(recipe).items():
        values = config[section].as_dict()
        name = values.pop("name", None)
        component = {**choices(section, part.func), **brought(section, name)}[name] if name else part.func
        built[section] = partial(component, **values)
    return built


def help_page(chosen: Mapping[str, Any], shared: Mapping[str, Component], run: Component) -> str:
    """Every option of the chosen recipe, below every model with the first line of its documentation."""
    model = model_of(chosen, run)
    lines = ["usage: python run.py [--model NAME] [--config FILE ...] [--OPTION VALUE ...]   (or: seqcl train ...)", ""]
    lines += ["models:"]
    lines += [f"  {name:<12}{(inspect.getdoc(recipe) or '').splitlines()[0]}" for name, recipe in MODELS.items()]
    lines += [
        "",
        "  --config FILE      YAML with the keys below; several may be given, later ones win, options win over files;",
        "                     another model or class leaves out what a file said of the one it names",
    ]
    lines += [
        "  --recbole-config FILE  a YAML of RecBole's with its keys for data and evaluation; --config and options win"
    ]
    lines += ["  --resume RUN       go on with a run that was stopped or killed"]
    lines += [
        "  --print_config     print the resolved configuration and stop",
        "  --precision 32|bf16  short for --train.precision",
    ]
    lines += ["", f"options of {model}, defaults in brackets; for those of another model: --model NAME --help"]
    common = [Section(name, component, {}, []) for name, component in shared.items()]
    return page("\n".join(lines), [Section("", run, {}, []), *sections_of(MODELS[model], chosen, {}), *common])


HELP = "<help>"


def options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--key value` and `--key=value` as pairs; `--encoder GRU` becomes `--encoder.name GRU`."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            yield "--help", HELP
            continue
        if not word.startswith("--"):
            raise UserError(f"{word!r} is not an option: options are written --name value, see --help")
        key, equals, value = word.partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"option {key} needs a value")
            value = rest.pop(0)
        key = SHORT.get(key, key)
        yield (f"{key}.name" if key[2:] in CHOICES else key), value


def name_keys() -> set[str]:
    return {f"{section}.name" for section in CHOICES}


def split_files(words: Sequence[str], option: str) -> tuple[list[str], list[Path]]:
    """The words without an option that names a file, and the files it names."""
    rest: list[str] = []
    files: list[Path] = []
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
                raise UserError(f"option {option} needs a file, not {value}")
        if not value:
            raise UserError(f"option {option} needs a file")
        files.append(Path(value))
    return rest, files


def read_yaml(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Dotted key, value and `file:line` of every leaf of a YAML file; `encoder: GRU` is short for `encoder.name`."""
    try:
        text = path.read_text()
        root = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {path}: not a text file") from None
    except yaml.YAMLError as error:
        raise UserError(f"--config {error}".replace("<unicode string>", str(path))) from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"--config {path}: the file must hold `key: value` lines")
    loader = yaml.SafeLoader(text)

    def walk(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Any, str]]:
        for key, value in node.value:
            name = prefix + str(key.value)
            if isinstance(value, yaml.MappingNode) and value.value:
                yield from walk(value, name + ".")
            else:
                full = f"{name}.name" if name in CHOICES else name
                yield full, loader.construct_object(value, deep=True), f"{path}:{key.start_mark.line + 1}"

    yield from walk(root, "")


def check_keys(parser: Parser, model: str, keys: Sequence[str], flat: Flat, origin: Origin) -> None:
    """Every key must be one that the parser of `model` knows; `flat` holds the values of those not typed as options."""
    known = {str(action.dest) for action in parser._actions if action.dest not in ("help", "==SUPPRESS==")}
    sections = {key.partition(".")[0] for key in known if "." in key}
    for key in flat:
        if key in sections:
            raise located(UserError(f"option {key}: expected its options by name, not {flat[key]!r}"), origin.get(key))
    elsewhere = {section for recipe in MODELS.values() for section in parts(recipe)} - sections
    for key in keys:
        section = key.partition(".")[0]
        if section in elsewhere:
            having = [name for name, recipe in MODELS.items() if section in parts(recipe)]
            has = (
                f"{model} has no section {section}; its sections: {', '.join(sorted(sections))}; "
                f"models with it: {', '.join(having[:4])}{' and others' * (len(having) > 4)}"
            )
            raise located(UserError(f"option {key.removesuffix('.name')}: {has}"), origin.get(key))
        if key not in known and key != "help":
            visible = {name.removesuffix(".name") for name in known}
            raise located(unknown("option", key, nearest_keys(key, visible)), origin.get(key))


def nearest_keys(key: str, known: set[str]) -> list[str]:
    """The options of the same section if there is such a section, else those of the same last word, else all without one."""
    section, _, word = key.rpartition(".")
    same = [name for name in known if section and name.startswith(section + ".")]
    return same or [name for name in known if name.endswith("." + word)] or [name for name in known if "." not in name]


def parse(call: Callable[[], Namespace], origin: Origin) -> Namespace:
    """Run a parser call; its error becomes one line that names the option and, for a file, the line."""
    try:
        return call()
    except (UserError, ValueError, TypeError) as error:
        match = re.search(r'[Pp]arser key "([^"]+)":\s*(.*)', str(error), re.DOTALL)
        if match is None:
            raise UserError(str(error)) from None
        key, reason = match.group(1), " ".join(match.group(2).split())
        raise located(UserError(f"option {key}: {plainly(key, reason)}"), origin.get(key)) from None


def plainly(key: str, reason: str) -> str:
    """A parser's complaint about a type in a user's words."""
    if choice := re.search(r"Literal\[([^]]*)\].*Got value: (.*)", reason):
        names = [name.strip(" '") for name in choice.group(1).split(",")]
        return str(unknown("value", choice.group(2).strip(" '"), names))
    if "tuple" in reason:
        return f"expected numbers in brackets such as [5,10]; {reason[reason.find('Got') :]}"
    return re.sub(r"<class '(\w+)'>", r"\1", reason)


def located(error: UserError, place: str | None) -> UserError:
    return UserError(f"{place}: {error}") if place else error


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield (f"{name}.name" if name in CHOICES else name), value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, leaf = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree


def like(config: Namespace, model: str, shared: Mapping[str, Component], run: Component) -> Namespace:
    """The configuration of another model with the values of `config` that it has a place for.

    Where both recipes have the same class in a section by default, the other one takes the class chosen there too, so that
    a baseline differs from the model in what the recipes differ in, and in nothing else.
    """
    mine, theirs = parts(MODELS[config.model]), parts(MODELS[model])
    alike = [name for name in theirs if name in mine and name in CHOICES and theirs[name].func is mine[name].func]
    chosen = {"model": model, **{f"{name}.name": config[name]["name"] for name in alike}}
    parser = make_parser(chosen, shared, run, {})
    values = dict(flatten(parser.get_defaults().as_dict()))
    known = dict(flatten(config.as_dict()))
    for key in values:
        section, _, word = key.rpartition(".")
        other = section in CHOICES and section not in alike  # two classes may mean different things by one word
        if key in known and word != "name" and (not other or word == "dim"):
            values[key] = known[key]
    values |= chosen
    return parse(lambda: parser.parse_object(nest(values)), {})
