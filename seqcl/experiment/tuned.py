"""The budget of a benchmark in trials: every row is tuned with as many, before its seeds are run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seqcl.config import Experiment
from seqcl.errors import UserError
from seqcl.experiment.folder import log
from seqcl.experiment.grid import Row
from seqcl.experiment.spaces import Space, read_space
from seqcl.experiment.study import CONFIG, Study
from seqcl.experiment.tasks import ASKED, Task, tasks_of

PRUNER = "median"
"""The rule by which the studies of a benchmark end trials early."""


@dataclass(eq=False, kw_only=True)
class Tuning(Task):
    """The study of a row, run as `seqcl tune`; its result is the best configuration."""

    trials: int
    best: Experiment | None = None  # the best configuration of the study that is done

    @property
    def study(self) -> Path:
        """The folder of the study."""
        return self.folder / "study"

    @property
    def title(self) -> str:
        """Model and data set."""
        return f"{self.trials} trials of {self.row.name} on {self.row.data}"

    def progress(self) -> str:
        """The number of trials that were begun, in words."""
        return f"trial {len(list(self.study.glob('trials/*')))}"

    def command(self) -> list[str]:
        """The words that begin the study, or go on with it."""
        begun = (self.study / CONFIG).exists()
        return ["tune", *([] if begun else ["--config", str(self.folder / ASKED)]), "--study", str(self.study),
                "--trials", str(self.trials), "--pruner", PRUNER, *self.needed()]  # fmt: skip

    def look(self) -> bool:
        """True if the study has its trials; the best of them is noted."""
        if not (self.study / CONFIG).exists():
            return False
        study = Study.read(self.study, self.needed())
        first = [trial for trial in study.ended() if trial.number < self.trials]  # a study may have more
        done = [trial for trial in first if trial.state.name == "COMPLETE"]
        if len(first) < self.trials or not done:
            return False
        spent = sum(trial.duration.total_seconds() for trial in first if trial.duration)
        best = max(done, key=lambda trial: (trial.value, -trial.number))
        self.take(self.study, {"seconds": spent, "valid": {study.base.train.monitor: best.value}})
        self.best = study.experiment(best.params)
        return True


def tunings_of(rows: Sequence[Row], runs: Path, trials: int) -> list[Tuning]:
    """The studies of all rows that have something to tune, each with the first seed."""
    found = []
    for task in tasks_of([replace(row, seeds=row.seeds[:1]) for row in rows], runs):
        space = space_of(task.experiment)
        if not space:
            continue
        key = key_of_study(task.key, space)
        made = Tuning(
            row=task.row,
            seed=task.seed,
            experiment=task.experiment,
            key=key,
            folder=runs / f"tune-{task.folder.name.removesuffix(task.key)}{key}",
            log=task.log,
            fingerprint=task.fingerprint,
            trials=trials,
        )
        made.look()
        found.append(made)
    return found


def space_of(experiment: Experiment) -> Space:
    """The options of the default space that the recipe has; none for one that has nothing to tune."""
    try:
        return read_space(experiment, ["default"])[0]
    except UserError:
        return {}


def key_of_study(key: str, space: Space) -> str:
    """The key of a study: that of its first trial, what is searched, and how trials are ended early."""
    return hashlib.sha256(json.dumps([key, space, PRUNER], sort_keys=True).encode()).hexdigest()[:12]


def tuned(rows: Sequence[Row], tunings: Sequence[Tuning]) -> list[Row]:
    """The rows with the best configuration of their studies, each beside its plain form as tuned; not those whose study failed.

    Rows that were tuned to one configuration are one row, which is said.
    """

    def as_tuned(row: Row | None) -> Row | None:
        own = next((one for one in tunings if row is not None and one.row.same(row)), None)
        if row is None or (own is not None and own.best is None):
            return None
        return row if own is None or own.best is None else replace(row, experiment=own.best)

    made = [(as_tuned(row), as_tuned(row.plain)) for row in rows]
    return merged([replace(row, plain=plain) for row, plain in made if row is not None])


def merged(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of one configuration as one: it has all their names, and is the baseline if one of them is."""
    found: list[Row] = []
    for row in rows:
        place = next((place for place, other in enumerate(found) if other.same(row)), None)
        if place is None:
            found.append(row)
            continue
        twin = found[place]
        log.warning("%s and %s were tuned to one configuration on %s: they are one row", twin.name, row.name, row.data)
        names, plain, baseline = f"{twin.name} = {row.name}", twin.plain or row.plain, twin.baseline or row.baseline
        found[place] = replace(twin, name=names, plain=plain, baseline=baseline)
    # A plain form that is a row itself stays that very row, under the name which it has now.
    known = {id(row.plain): other for row in found for other in found if row.plain and row.plain.same(other)}
    return [replace(row, plain=known.get(id(row.plain), row.plain)) for row in found]
