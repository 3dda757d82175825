"""From words, files and Python values to an `Experiment`: later settings win, and a replaced component loses its options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from seqcl import plugins, processes, registry
from seqcl.config import messages
from seqcl.config.experiment import Experiment, Options, Recipe, Start
from seqcl.config.files import chain, read
from seqcl.config.help import help_page
from seqcl.config.schema import (
    SHARED,
    Section,
    default_name,
    find_model,
    model_of,
    parse,
    recipe_sections,
)
from seqcl.config.settings import HELP, KIND_OF, Setting, Settings, existing, of_mapping, of_words, renamed, take
from seqcl.config.shipped import located
from seqcl.config.unread import refuse_unread
from seqcl.errors import UserError, lacks
from seqcl.evaluation import metric_name
from seqcl.models import MODELS
from seqcl.parts import Part, declared

Notify = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Tell the user one line; of several processes, the first one does."""
    if processes.is_first():
        print(f"seqcl: {line}", file=sys.stderr)


def resolve(words: Sequence[str], *, notify: Notify = to_stderr) -> Experiment:
    """The experiment that the words after `seqcl train` describe.

    Files of other projects come first, then those of --config; later ones win, and options win over files.

    Args:
        words: command-line words.
        notify: takes a line for each file of which options were left out.

    Raises:
        UserError: an unknown name, or a value that does not fit.
        SystemExit: the words ask for help, which is printed.
    """
    words, named = take(words, "--plugin", "a value")
    plugins.load_all(named)
    layers: list[Settings] = []
    for option, reader in registry.CONFIG_FILES.items():
        words, paths = take(words, option)
        if len(paths) > 1:
            raise UserError(f"option {option} is given {len(paths)} times: give one file")
        layers += [of_mapping(reader(path), f"{option} {path}") for path in existing(paths)]
    words, paths = take(words, "--config")
    layers += [layer for path in paths for layer in file_layers(located(path))]
    typed, _ = renamed(of_words(words))
    asks_help = typed.pop(HELP, None) is not None
    settings, left_out = merge([*layers, typed])
    if asks_help:
        print_help(settings)
    found = build(settings)
    refuse_unread(found, settings)
    for line in messages.left_out(left_out):
        notify(line)
    return found


def file_layers(path: Path) -> list[Settings]:
    """The settings of a file behind those of the files that it builds on; their plugins are loaded.

    Raises:
        UserError: a file or a plugin that cannot be read.
    """
    layers = []
    for file in chain(path):
        try:
            plugins.load_all(file.plugins, file.path.parent)
        except UserError as error:
            raise UserError(f"{file.path}: {error}") from None
        layers.append(file.settings)
    return layers


def print_help(settings: Settings) -> NoReturn:
    """Print the options of the recipe that the settings name, and end."""
    sections = recipe_sections(settings)
    parse([*sections, *SHARED], settings)
    print(help_page(model_of(settings), [Section("", Options), *sections, *SHARED]))
    sys.exit(0)


def experiment(values: Mapping[str, Any], *, stored: bool = False) -> Experiment:
    """The experiment of nested or dotted values, as a caller of the library gives them; classes and parts may stand for names.

    Args:
        values: options.
        stored: true where a run wrote them, so that options under their former names are read.

    Raises:
        UserError: an unknown name, or a value that does not fit.
    """
    plugins.load_all([])
    settings, _ = renamed(of_mapping(values), stored=stored)
    found = build(settings)
    if not stored:
        refuse_unread(found, settings)
    return found


def build(settings: Settings) -> Experiment:
    """The experiment of settings that are all there are."""
    monitor = settings.get("train.monitor")
    if monitor is not None and isinstance(monitor.value, str):
        settings = {**settings, "train.monitor": monitor._replace(value=metric_name(monitor.value))}
    sections = recipe_sections(settings)
    values = parse([*sections, *SHARED], settings)
    made: dict[str, Any] = {"options": checked(Section("", Options), values[""], settings)}
    made |= {section.name: checked(section, values[section.name], settings) for section in SHARED}
    try:
        return Experiment(**made, recipe=recipe_of(sections, values, settings), given=frozenset(settings))
    except UserError as error:
        raise messages.of_section(error, "", settings) from None


def checked(section: Section, values: Mapping[str, Any], settings: Settings) -> Any:
    """A section's component made from its values; its error names the place of the option."""
    try:
        return section.component(**values)
    except UserError as error:
        raise messages.of_section(error, section.name, settings) from None


def recipe_of(sections: Sequence[Section], values: Mapping[str, Mapping[str, Any]], settings: Settings) -> Recipe:
    """The recipe of parsed values."""
    return Recipe(
        name=model_of(settings),
        model=find_model(settings),
        parts={section.name: Part(section.component, **values[section.name]) for section in sections},
        chosen={section.name: section.chosen for section in sections if section.names},
    )


def recipe(name: str, values: Mapping[str, Any]) -> tuple[Recipe, Start]:
    """A recipe alone, for a pipeline that is not ours: its parts, and the start of its item embeddings.

    Args:
        name: the recipe.
        values: nested or dotted values of its sections, and `start`.

    Raises:
        UserError: an unknown name, or a value that does not fit.
    """
    plugins.load_all([])
    settings = of_mapping({"model": name, **values})
    sections = recipe_sections(settings)
    parsed = parse(sections, settings, alone=recipe_alone)
    return recipe_of(sections, parsed, settings), parsed[""]["start"]


def recipe_alone(*, model: str = Options.model, start: Start = Options.start) -> None:
    """The options without a section of a recipe in somebody else's pipeline.

    Args:
        model: the recipe.
        start: first values of the item embeddings.
    """


def merge(layers: Sequence[Settings]) -> tuple[Settings, dict[str, str | None]]:
    """Settings of several layers, later ones winning; and the places of those left out, as their component was replaced."""
    merged: Settings = {}
    lost: dict[str, str | None] = {}
    for layer in layers:
        gone = replaced(merged, layer)
        lost |= {key: merged[key].place for key in gone if key not in layer}
        merged = {key: setting for key, setting in merged.items() if key not in gone} | layer
    return merged, lost


def replaced(earlier: Settings, later: Settings) -> list[str]:
    """Options of a component that `earlier` names and `later` replaces by another; an encoder keeps its `dim`.

    Another model replaces the components named before it too: it brings its own.
    """
    before_model = MODELS.get(model_of(earlier))
    other = "model" in earlier and before_model is not MODELS.get(model_of({**earlier, **later}))
    names = {f"{section}.name" for section in KIND_OF}
    stays = {key: one for key, one in earlier.items() if not (other and key in names)}
    before, after = component_names(earlier), component_names({**stays, **later})
    named = {section for section in before if "model" in earlier or f"{section}.name" in earlier}
    lost = {section for section in named if before[section] != after.get(section)}
    kept = {"encoder.dim"} if "encoder" in after else set()
    return [key for key in earlier if key.partition(".")[0] in lost and key not in kept]


def component_names(settings: Settings) -> dict[str, str]:
    """The name of the component of every section; none where there is no such model."""
    model = MODELS.get(model_of(settings))
    found = {}
    for section, part in (declared(model) if model else {}).items():
        chosen = settings.get(f"{section}.name")
        found[section] = str(chosen.value) if chosen else default_name(section, part.component)
    return found


def baseline(of: Experiment, name: str) -> Experiment:
    """The experiment of another model with the values of `of` that it has a place for.

    Where both recipes have one component in a section by default, the baseline takes the component chosen there. So it
    differs from the model in what the recipes differ in, and in nothing else.

    Args:
        of: the experiment of the model.
        name: the baseline's recipe.
    """
    mine, theirs = declared(of.recipe.model), declared(MODELS[name])
    alike = [key for key in theirs if key in mine and key in KIND_OF and theirs[key].component is mine[key].component]
    settings = {"model": Setting(name)} | {f"{key}.name": Setting(of.recipe.chosen[key]) for key in alike}
    own = build(settings)
    for key in own.flat:
        section, _, word = key.rpartition(".")
        other = section in KIND_OF and section not in alike  # two components may mean different things by one word
        if section in ("pretrain", "distil") and repr(mine.get(section)) != repr(theirs[section]):
            continue  # the recipes differ in this stage, or in their teachers
        if key in of.flat and key not in settings and word != "name" and (not other or word == "dim"):
            settings[key] = Setting(of.flat[key])
    if not own.recipe.trained:
        settings |= {"start": Setting("random"), "warm_start": Setting("")}  # a model that is counted has no weights
    return build(settings)


FREE = {
    "train.epochs",
    "train.patience",
    "train.max_minutes",
    "train.save_minutes",
    "device",
    "runs",
    "baseline",
    "test",
    "track",
}
"""The options that may change when a run goes on; any other would make it two experiments under one configuration."""


def of_run(folder: Path, words: Sequence[str] = (), *, notify: Notify = to_stderr) -> Experiment:
    """The experiment of a run's folder, with the options that may change.

    Args:
        folder: the run.
        words: command-line words; of options, those in `FREE` and those that training does not read.
        notify: takes a line for each option of the run that has another name now.

    Raises:
        UserError: no run there, a plugin that it needs is not loaded, or an option that may not change.
    """
    rest, named = take(words, "--plugin", "a value")
    plugins.load_all(named)
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run: {lacks(folder, 'config.yaml, or one that is no regular file')}")
    plugins.check_needs(folder)
    stored = read(path, stored=True)
    if "model" not in stored.settings:
        raise UserError(f"{path} holds no model, so it is not as its run wrote it; take it from a copy of the run")
    for section, kind in KIND_OF.items():
        if chosen := stored.settings.get(f"{section}.name"):
            plugins.check_named(kind, str(chosen.value), folder)
    for note in stored.notes:
        notify(note)
    typed, _ = renamed(of_words(rest))
    if typed.pop(HELP, None) is not None:
        print_help(stored.settings)
    before = build(stored.settings)
    if not typed:
        return before
    now, _ = merge([stored.settings, typed])
    after = build(now)
    later = before.recipe.after_training
    for key in sorted(after.flat, key=lambda one: not one.endswith(("model", ".name"))):
        if key not in FREE and key.partition(".")[0] not in later and before.flat.get(key) != after.flat[key]:
            free = [*sorted(FREE), *(f"{section}.*" for section in later)]
            raise UserError(
                f"--resume {folder}: {key.removesuffix('.name')} was {before.flat.get(key)} and cannot become "
                f"{after.flat[key]}; start a new run, or change only {', '.join(free)}"
            )
    refuse_unread(after, typed)
    return after
