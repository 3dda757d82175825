"""The grid of a benchmark: models, data sets, options and seeds, and the rows that they make."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from seqcl.config import Experiment, without_contrast
from seqcl.config.settings import Setting, Settings
from seqcl.config.unread import refuse_unread_by_all
from seqcl.config.variants import fitting, layered
from seqcl.errors import UserError, unknown
from seqcl.experiment.finished import NO_FIGURE, figures_of

MANY = 1_000_000
"""Epochs that no budget of minutes reaches."""

MAY_DIFFER = {"data.windows", *NO_FIGURE}
"""Options of data and evaluation in which the rows of one table may differ."""

ELSEWHERE = {
    "seed": "seeds: [4], or --seeds",
    "runs": "--runs",
    "baseline": "the key baseline, which is a model of the file",
    "dataset": "the key data",
    "model": "the key models",
}
"""Options that a benchmark has places of its own for, and these places."""


class Entry(NamedTuple):
    """A model, a data set or a set of options, as the file names it."""

    name: str
    place: str  # file:line
    settings: Settings
    files: Sequence[Settings] = ()  # of a model: its configuration file and those that it builds on


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The content of a benchmark's file."""

    models: Sequence[Entry]
    data: Sequence[Entry]
    options: Sequence[Entry]
    seeds: Sequence[int]
    budget: Settings
    trials: int  # of tuning, for every row; 0 for none
    baseline: str
    metric: str
    contrast: str

    def rows(self, only: Sequence[str] = (), typed: Settings | None = None) -> list[Row]:
        """The rows of the benchmark, data set by data set: every model with every set of options, and its plain forms.

        Args:
            only: names of models: the others are left out, but for the baseline and for their plain forms.
            typed: options of the command line, which win over those of the file.

        Raises:
            UserError: an unknown name, a value that does not fit, or rows that cannot be compared.
        """
        for name in only:
            if name not in [one.name for one in self.models]:
                raise unknown("model in --only", name, [one.name for one in self.models])
        shared = [*self.options, Entry("", "", typed or {})]
        for entries, about in ((shared, ""), (self.data, "dataset"), (self.models, "model")):
            for entry in entries:
                refuse_elsewhere(entry.settings, about)
        self.check_shared([*shared, *self.data])
        found: list[Row] = []
        for data in self.data:
            rows: list[Row] = []
            for model in self.models:
                rows += [self.row(model, options, data, typed or {}) for options in self.options]
            check_rows(rows)
            for model in self.models:
                own = [row.experiment for row in rows if row.model == model.name]
                refuse_unread_by_all(own, model.settings)
            everywhere = [one.settings for one in (data, *self.options)]
            for settings in (*everywhere, typed or {}):
                refuse_unread_by_all([row.experiment for row in rows], settings)
            if self.contrast == "both":
                rows = with_plain_forms(rows)
            found += reduced(rows, {*only, self.baseline}) if only else rows
        return found

    def row(self, model: Entry, options: Entry, data: Entry, typed: Settings) -> Row:
        """One row: later of file, options, data, the model's own, the budget and the command line win."""
        shared = {**options.settings, **data.settings}
        fixed = {"dataset": data.settings["dataset"], "baseline": Setting("")}
        own = [*model.files, model.settings]
        layers = [*model.files, fitting(shared, own), model.settings, self.budget, fitting(typed, own), fixed]
        experiment = layered(layers)
        if not experiment.options.test:
            place = next((one["test"].place for one in reversed(layers) if "test" in one), None)
            raise UserError(
                f"{place or '--test'}: a benchmark compares ranks of test, so test cannot be false: leave it out"
            )
        if experiment.train.epochs == MANY and experiment.train.schedule != "constant":
            raise UserError(
                f"{self.budget['train.epochs'].place}: budget minutes has no last epoch, to which train.schedule "
                f"{experiment.train.schedule} of {model.name} falls: give it train.schedule constant, or a budget of epochs"
            )
        return Row(
            data=data.name,
            place=data.place,
            model=model.name,
            name=f"{model.name} ({options.name})" if options.name else model.name,
            experiment=experiment,
            seeds=self.seeds if experiment.recipe.trained else self.seeds[:1],
            baseline=model.name == self.baseline and options is self.options[0],
        )

    def check_shared(self, entries: Sequence[Entry]) -> None:
        """Refuse an option for all models that none of them has."""
        for shared in entries:
            owns = [[*one.files, one.settings] for one in self.models]
            used = {key for own in owns for key in fitting(shared.settings, own)}
            for key in shared.settings.keys() - used:
                layered([*owns[0], {key: shared.settings[key]}])  # says what is wrong with it


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration on one data set, run with every seed."""

    data: str
    place: str  # the line of the data set
    model: str  # as the file names it
    name: str
    experiment: Experiment  # with any seed
    seeds: Sequence[int]  # the first alone for a model that is counted
    plain: Row | None = None  # the same without its contrastive term
    baseline: bool = False  # others are compared with it: the baseline of the file, with the first options

    def same(self, other: Row) -> bool:
        """True if both are one configuration on one data set."""
        return self.data == other.data and figures_of(self.experiment.flat) == figures_of(other.experiment.flat)


def refuse_elsewhere(settings: Settings, about: str) -> None:
    """Refuse options that a benchmark takes from another place, but for the one that an entry is about."""
    for key, instead in ELSEWHERE.items():
        if key in settings and key != about:
            where = settings[key].place or f"--{key}"
            raise UserError(f"{where}: {key} does nothing here: a benchmark has {instead} for it")


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows of one table that are one configuration, or that have other data or another evaluation."""
    for place, row in enumerate(rows):
        twin = next((other for other in rows[:place] if other.same(row)), None)
        if twin is not None:
            raise UserError(f"{row.name} and {twin.name} are one configuration on {row.data}: leave one out")
        first, own = rows[0].experiment.flat, row.experiment.flat
        for key in own:
            if key.startswith(("data.", "eval.")) and key not in MAY_DIFFER and own[key] != first[key]:
                raise UserError(
                    f"results of two protocols are not compared: on {row.data}, {row.name} has {key} {own[key]} and "
                    f"{rows[0].name} has {first[key]}; put {key} into options, or beside the data set"
                )


def reduced(rows: Sequence[Row], models: Collection[str]) -> list[Row]:
    """The rows of some models, and their plain forms."""
    own = [row for row in rows if row.model in models]
    plain = [row.plain for row in own if row.plain is not None]
    return [row for row in rows if row.model in models or any(row.same(other) for other in plain)]


def with_plain_forms(rows: Sequence[Row]) -> list[Row]:
    """The rows and, behind them, those of each without its contrastive term that are not there yet."""
    found: list[Row] = []
    added: list[Row] = []
    for row in rows:
        made = without_contrast(row.experiment)
        if made is None:
            found.append(row)
            continue
        plain = replace(row, name=made.options.model, experiment=made, baseline=False)
        known = next((other for other in (*rows, *added) if other.same(plain)), None)
        if plain.name in [row.experiment.options.model, *(other.name for other in (*rows, *added))]:
            plain = replace(plain, name=f"{row.name} without contrast")
        if known is None:
            added.append(plain)
        found.append(replace(row, plain=known or plain))
    return [*found, *added]
