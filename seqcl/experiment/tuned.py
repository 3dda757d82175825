"""The budget of a benchmark in trials: every row is tuned with as many, before its seeds are run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from seqcl import config, plugins
from seqcl.config import Experiment
from seqcl.errors import UserError
from seqcl.experiment.grid import Row
from seqcl.experiment.spaces import read_space
from seqcl.experiment.study import CONFIG, Study
from seqcl.experiment.tasks import ASKED, Task, tasks_of


@dataclass(eq=False, kw_only=True)
class Tuning(Task):
    """The study of a row, run as `seqcl tune`; its result is the best configuration."""

    trials: int

    @property
    def study(self) -> Path:
        """The folder of the study."""
        return self.folder / "study"

    @property
    def title(self) -> str:
        """Model and data set."""
        return f"{self.trials} trials of {self.row.name} on {self.row.data}"

    def progress(self) -> str:
        """How many trials were begun."""
        return f"trial {len(list(self.study.glob('trials/*')))}"

    def command(self) -> list[str]:
        """The words that begin the study, or go on with it."""
        begun = (self.study / CONFIG).exists()
        return ["tune", *([] if begun else ["--config", str(self.folder / ASKED)]),
                "--study", str(self.study), "--trials", str(self.trials), *self.needed()]  # fmt: skip

    def look(self) -> bool:
        """True if the study has its trials and its best configuration."""
        if not (self.study / "best.yaml").exists():
            return False
        study = Study.read(self.study, plugins.words_for(self.experiment.needs()).split())
        ended = study.ended()
        if len(ended) < self.trials:
            return False
        spent = sum(trial.duration.total_seconds() for trial in ended if trial.duration)
        best = study.best_of(study.trials())
        self.take(self.study, {"seconds": spent, "valid": {study.base.train.monitor: best.value}})
        return True

    def best(self) -> Experiment:
        """The best configuration of the study that is done."""
        values = yaml.safe_load((self.study / "best.yaml").read_text(encoding="utf-8"))
        return config.experiment(values, stored=True)


def tunings_of(rows: Sequence[Row], runs: Path, trials: int) -> list[Tuning]:
    """The studies of all rows that have something to tune, each with the first seed."""
    found = []
    for task in tasks_of([replace(row, seeds=row.seeds[:1]) for row in rows], runs):
        if not has_space(task.experiment):
            continue
        made = Tuning(
            row=task.row,
            seed=task.seed,
            experiment=task.experiment,
            key=task.key,
            folder=runs / f"tune-{task.folder.name}",
            log=task.log,
            fingerprint=task.fingerprint,
            trials=trials,
        )
        made.look()
        found.append(made)
    return found


def has_space(experiment: Experiment) -> bool:
    """True if the default space has an option of the recipe."""
    try:
        read_space(experiment, ["default"])
    except UserError:
        return False
    return True


def tuned(rows: Sequence[Row], tunings: Sequence[Tuning]) -> list[Row]:
    """The rows with the best configuration of their studies, each beside its plain form as tuned."""

    def best_of(row: Row) -> Experiment:
        return next((one.best() for one in tunings if one.row.same(row)), row.experiment)

    return [
        replace(row, experiment=best_of(row), plain=row.plain and replace(row.plain, experiment=best_of(row.plain)))
        for row in rows
    ]
