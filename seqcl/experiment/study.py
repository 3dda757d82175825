"""A study: trials of one recipe in a folder of their own, chosen on validation alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from seqcl import config, plugins
from seqcl.config import Experiment
from seqcl.config.settings import take
from seqcl.data import Sequences
from seqcl.errors import UserError, brief
from seqcl.experiment.folder import runs_with, write_text
from seqcl.experiment.spaces import Space, coded, decoded, entries, variant

if TYPE_CHECKING:
    from optuna.study import Study as Trials
    from optuna.trial import FrozenTrial

DATABASE, SPACE, CONFIG = "study.db", "space.yaml", "config.yaml"
"""The files of a study: its trials, what is searched, and the configuration of the first trial."""

FIRST = 5
"""Trials that are finished before any is pruned, and epochs before a trial is."""

ENOUGH = 10
"""Finished trials from which on the importance of options is told."""


def optuna() -> Any:
    """Import optuna, silenced but for warnings.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("seqcl tune needs optuna: pip install 'seqcl[tune]'") from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Inside, a database that cannot be read or written is the user's to hear of in one line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna().exceptions.OptunaError, SQLAlchemyError, KeyError) as error:
        raise UserError(f"{folder / DATABASE} cannot be read or written: {brief(error)}") from None


@dataclass(frozen=True, kw_only=True)
class Study:
    """The trials of one configuration over one space.

    Args:
        folder: of the study.
        base: the configuration of the first trial.
        space: what is searched.
        pruning: false lets every trial train to its end.
    """

    BEFORE: ClassVar[set[str]] = {SPACE, DATABASE, f"{DATABASE}-journal", plugins.NEEDS}
    """The files that are there before CONFIG."""

    folder: Path
    base: Experiment
    space: Space
    pruning: bool = True

    @classmethod
    def begin(cls, folder: Path, base: Experiment, space: Space, log: Sequences, *, pruning: bool) -> Study:
        """Make a study of a log in an empty folder: the first trial will be `base` itself."""
        made = cls(folder=folder, base=base, space=space, pruning=pruning)
        write_text(folder / SPACE, yaml.safe_dump(space, sort_keys=False, allow_unicode=True))
        plugins.write_needs(folder, base.needs())
        trials = optuna().create_study(study_name="seqcl", storage=made.storage(), direction="maximize")
        trials.set_user_attr("data", {"name": log.name, "fingerprint": log.fingerprint})
        trials.set_user_attr("pruning", pruning)
        trials.enqueue_trial({option: coded(base.flat[option]) for option in space})
        write_text(folder / CONFIG, base.to_yaml())  # last: with it the study is whole
        return made

    @classmethod
    def read(cls, folder: Path, words: list[str]) -> Study:
        """Read a study to go on with.

        Args:
            folder: of the study.
            words: options of training; they must say what the study's own configuration says.

        Raises:
            UserError: no study, another configuration, or other data than those of its trials.
        """
        if not (folder / CONFIG).is_file() or not (folder / DATABASE).is_file():
            raise UserError(f"--study {folder}: it holds no whole study; give a new folder")
        others, named = take(words, "--plugin", "a value")
        base = config.of_run(folder, [f"--plugin={name}" for name in named])
        if others:
            typed = {word.lstrip("-").partition("=")[0] for word in others if word.startswith("--")}
            for key, value in config.resolve(words).flat.items():
                asked = "config" in typed or key in typed or any(key.startswith(f"{one}.") for one in typed)
                if asked and base.flat.get(key) != value:
                    raise UserError(
                        f"--study {folder}: {key} is {base.flat.get(key)} in this study, not {value}; "
                        "give another folder, or --study alone to go on"
                    )
        space = {option: setting.value for option, setting in entries(folder / SPACE, base.recipe.name)}
        made = cls(folder=folder, base=base, space=space)
        with readable(folder):
            attrs = made.trials().user_attrs
            learned, pruning = attrs["data"]["fingerprint"], attrs["pruning"]
        if base.data.sequences(base.options.dataset).fingerprint != learned:
            raise UserError(f"--study {folder}: its trials learned from another log than {base.options.dataset} is now")
        return replace(made, pruning=pruning)

    def storage(self) -> Any:
        """The database of the trials."""
        address = f"sqlite:///{(self.folder / DATABASE).resolve()}"
        return optuna().storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 100}})

    def trials(self) -> Trials:
        """The trials, with how they are pruned."""
        pruners = optuna().pruners
        pruner = pruners.MedianPruner(FIRST, FIRST) if self.pruning else pruners.NopPruner()
        return optuna().load_study(study_name="seqcl", storage=self.storage(), pruner=pruner)

    def place(self, number: int) -> Path:
        """The folder of a trial, in which its run is."""
        return self.folder / "trials" / f"{number:04d}"

    def run_of(self, number: int) -> Path | None:
        """The run folder of a trial; None if it has none yet."""
        return next((file.parent for file in runs_with(self.place(number), "*/config.yaml")), None)

    def experiment(self, stored: dict[str, Any], **options: Any) -> Experiment:
        """The configuration of a trial with these values, and with other options if any are given."""
        return variant(self.base, {**decoded(self.space, stored), **options})

    def ended(self) -> list[FrozenTrial]:
        """The trials that are over."""
        return [trial for trial in self.trials().trials if trial.state.is_finished()]

    def best(self, trials: Trials) -> FrozenTrial | None:
        """The finished trial with the best validation; None if none is finished."""
        done = [trial for trial in trials.trials if trial.state.name == "COMPLETE"]
        return max(done, key=lambda trial: (trial.value, -trial.number)) if done else None

    def best_of(self, trials: Trials) -> FrozenTrial:
        """The same, where there must be one.

        Raises:
            UserError: no trial was finished.
        """
        if (best := self.best(trials)) is None:
            raise UserError(f"{self.folder}: no trial was finished")
        return best

    def line(self, trial: FrozenTrial) -> str:
        """A trial in one line."""
        told = {"PRUNED": "pruned", "FAIL": f"failed: {trial.user_attrs.get('error')}"}
        value = told.get(trial.state.name) or f"{self.base.train.monitor} {trial.value:.4f}"
        values = " ".join(f"{key}={one:.3g}" if isinstance(one, float) else f"{key}={one}" for key, one in trial.params.items())  # fmt: skip
        return f"trial {trial.number}: {value}  {values}"

    def finish(self) -> FrozenTrial:
        """Write best.yaml and study.html; give the best trial.

        Raises:
            UserError: no trial was finished.
        """
        from seqcl.report import write_study

        trials = self.trials()
        best = self.best_of(trials)
        monitor, ended = self.base.train.monitor, self.ended()
        text = self.experiment(best.params).to_yaml()
        write_text(
            self.folder / "best.yaml",
            f"# Trial {best.number} of {len(ended)}: validation {monitor} {best.value:.6f} with seed {self.base.options.seed}. "
            f"Chosen on validation alone.\n# seqcl train --config best.yaml{plugins.words_for(self.base.needs())}\n{text}",
        )
        write_study(
            self.folder / "study.html",
            [self.record(trial) for trial in ended],
            best=best.number,
            metric=monitor,
            heading={
                "model": self.base.recipe.name,
                "data": trials.user_attrs["data"]["name"],
                "seed": self.base.options.seed,
            },
            space=self.space,
            importance=self.importance(trials),
            config=text,
        )
        return best

    def record(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial as the page shows it."""
        told = list(trial.intermediate_values.values())
        return {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state.name == "COMPLETE" else max(told, default=None),
            "epochs": max(trial.intermediate_values, default=0),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "options": decoded(self.space, trial.params),
            "error": trial.user_attrs.get("error", ""),
        }

    def importance(self, trials: Trials) -> dict[str, float]:
        """The share of each option in what parts good trials from the others; none where too few are finished or all are alike."""
        values = [trial.value for trial in trials.trials if trial.state.name == "COMPLETE"]
        if len(values) < ENOUGH or len(set(values)) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of few trials, which the page says itself
            return dict(optuna().importance.get_param_importances(trials))
