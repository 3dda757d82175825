"""The runs of a benchmark: what each is, and whether it is done already."""

from __future__ import annotations

import glob
import re
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from seqcl import config, plugins
from seqcl.config import Experiment
from seqcl.data import Sequences
from seqcl.disk import read_json
from seqcl.errors import UserError
from seqcl.experiment import kept
from seqcl.experiment.compare import too_deep
from seqcl.experiment.finished import Finished, figures_of
from seqcl.experiment.folder import runs_with
from seqcl.experiment.grid import Row
from seqcl.experiment.keeping import PACKED, kept_file, named_files
from seqcl.experiment.keys import code_version, first_weights, key_of, teachers_of, told_of
from seqcl.experiment.versions import ALL_TABLES, data_version, hash_of, version_of
from seqcl.experiment.warm import settled

ASKED = "asked.yaml"
"""The file beside a run that holds the configuration that it was begun with."""


@dataclass(eq=False, kw_only=True)
class Task:
    """One run of a row, and how far it is."""

    row: Row
    seed: int
    experiment: Experiment
    key: str
    folder: Path  # of the key: the run lies in it
    log: str  # the version of its data
    fingerprint: str  # of its log alone
    state: str = "waiting"  # then running, or elsewhere: another benchmark runs it; at last done or failed
    run: Path | None = None  # once it is done: a run, or a file of kept results
    figures: dict[str, Any] = field(default_factory=dict)  # its metrics.json
    older: bool = False  # the run, or the one that is there and is not taken, was made by older code
    unsaid: bool = False  # the kept results that are taken do not say which tables and files they were made with
    problem: str = ""  # the last line of a failed run
    prefix: str = ""  # of the name of its kept file: the data set, where there are several
    began: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def title(self) -> str:
        """Model, data set and seed."""
        return f"{self.row.name} on {self.row.data}, seed {self.seed}"

    def progress(self) -> str:
        """The number of epochs that the run has ended, in words; nothing for a model that is counted."""
        if not self.experiment.recipe.trained:
            return ""
        found, ended = newest(self.folder, "*/history.csv"), 0
        with suppress(OSError):
            ended = max(found.read_bytes().count(b"\n") - 1, 0) if found else 0
        return f"epoch {ended}"

    def command(self) -> list[str]:
        """The words that begin the run, or go on with what was begun."""
        begun = newest(self.folder, "*/config.yaml")
        words = ["--resume", str(begun.parent)] if begun else ["--config", str(self.folder / ASKED)]
        words += [] if begun else ["--runs", str(self.folder)]
        return ["train", *words, *self.needed()]

    def needed(self) -> list[str]:
        """The words that name the plugins that it needs."""
        return plugins.list_of_words(self.experiment.needs())

    def look(self) -> bool:
        """True if a finished run is there, which is noted."""
        found = newest(self.folder, "*/metrics.json")
        if found is not None:
            self.take(found.parent, read_json(found, dict))
        return found is not None

    def take(self, run: Path, figures: dict[str, Any], *, older: bool = False) -> None:
        """Take a finished run as the result."""
        self.run, self.state, self.figures, self.older = run, "done", figures, older

    def file_in(self, folder: Path) -> Path:
        """The file of its kept results in a folder."""
        return folder / f"{plain(self.prefix + self.row.name)}-{self.seed}.parquet"


def tasks_of(
    rows: Sequence[Row], runs: Path, *, kept_in: Path | None = None, accept_older: bool = False, metric: str = "ndcg@10"
) -> list[Task]:
    """The runs of all rows, those that are done already being marked; all rows of a seed before those of the next.

    Args:
        rows: of the grid.
        runs: folder of all runs.
        kept_in: folder of kept results, which count as runs.
        accept_older: also take runs of the same configuration and data that other code made.
        metric: of a target, by which they are to be compared; kept ranks must reach as deep.

    Raises:
        UserError: a data set that cannot be read, kept results of another configuration, or two rows of one kept file.
    """
    logs: dict[Any, Sequences] = {}
    versions: dict[Any, str] = {}
    found, several = [], len({row.data for row in rows}) > 1
    if kept_in is not None:
        check_kept_names(rows, several)
    for seed in dict.fromkeys(seed for row in rows for seed in row.seeds):
        for row in [row for row in rows if seed in row.seeds]:
            experiment = settled(replace(row.experiment, options=replace(row.experiment.options, seed=seed)))
            place = (experiment.options.dataset, experiment.data)
            if place not in logs:
                try:
                    logs[place] = experiment.data.sequences(experiment.options.dataset)
                except UserError as error:
                    raise UserError(f"{row.place}: {error}") from None
                versions[place] = data_version(logs[place])
            key = key_of(experiment, versions[place], code_version())
            name = plain(f"{experiment.options.model}-{logs[place].name}-seed{seed}")
            task = Task(
                row=row,
                seed=seed,
                experiment=experiment,
                key=key,
                folder=runs / f"{name}-{key}",
                log=versions[place],
                fingerprint=logs[place].fingerprint,
                prefix=prefix_of(row, several),
            )
            if not task.look():
                look_elsewhere(task, kept_in, accept_older=accept_older, metric=metric)
            found.append(task)
    return found


def prefix_of(row: Row, several: bool) -> str:
    """The beginning of the name of a row's kept files: its data set, where there are several."""
    return f"{row.data}-" if several else ""


def check_kept_names(rows: Sequence[Row], several: bool) -> None:
    """Refuse two rows whose kept files would have one name: one would be written over the other."""
    found: dict[str, Row] = {}
    for row in rows:
        name = plain(prefix_of(row, several) + row.name)
        other = found.setdefault(name, row)
        if other is not row:
            raise UserError(
                f"--keep: {other.name} on {other.data} and {row.name} on {row.data} would both be kept as {name}-SEED.parquet: "
                "give one another name, with name: ..."
            )


def look_elsewhere(task: Task, kept_in: Path | None, *, accept_older: bool, metric: str) -> None:
    """Take the kept results of a task, or the newest run that other code made; what is not accepted is noted."""
    file = task.file_in(kept_in) if kept_in is not None else None
    if file is not None and file.exists():
        about, _ = kept.read(file)
        check_same(task, about, file)
        if int(metric.partition("@")[2]) > about["deepest"]:
            raise UserError(f"{too_deep(file, about['deepest'], metric)}: choose another --keep")
        task.older = about["key"] != task.key
        if accept_older or not task.older:
            task.take(file, about["metrics"], older=task.older)
            there = read_now(task).keys() - (set() if has_tables(task) else {ALL_TABLES})
            task.unsaid = task.older and not there <= about["beside"].keys()
            return
    run = older_run(task)
    task.older = task.older or run is not None
    if run is not None and accept_older:
        task.take(run, read_json(run / "metrics.json", dict), older=True)


def check_same(task: Task, about: dict[str, Any], file: Path) -> None:
    """Refuse kept results of another configuration, log, seed, start, teachers, tables or files; newer options count with their defaults."""
    try:
        before = config.experiment(about["config"], stored=True)
    except UserError as error:
        raise UserError(f"{file} was kept with options that are no more: {error}") from None
    ours, theirs = (figures_of(one.flat) for one in (task.experiment, before))
    figures, weights = about["metrics"], "hash of the weights of warm_start"
    ours |= {"seed": task.seed, "data_fingerprint": task.fingerprint, weights: first_weights(task.experiment)}
    theirs |= {"seed": before.options.seed, "data_fingerprint": figures["data"]["fingerprint"]}
    theirs |= {weights: figures["protocol"].get("warm_start", "")}
    ours["teachers"] = told_of(teachers_of(task.experiment))
    theirs["teachers"] = (figures["training"] or {}).get("teachers", "")
    beside = read_now(task)
    ours |= {f"hash of {key}": beside[key] for key in beside}
    theirs |= {f"hash of {key}": about["beside"].get(key, beside[key]) for key in beside}
    for key in ours:
        if ours[key] != theirs.get(key):
            raise UserError(
                f"{file} was kept with another {key} ({theirs.get(key)}, now {ours[key]}): remove it, or choose another --keep"
            )


def read_now(task: Task) -> dict[str, str]:
    """The hashes of the tables of a task and of the files that its options name, as a run of it would keep them."""
    files = {kept_file(Path(), value).name: hash_of(Path(value).expanduser()) for _, _, value in named_files(task.experiment)}  # fmt: skip
    return {ALL_TABLES: task.log, **files}


def has_tables(task: Task) -> bool:
    """True if the log of a task has a table of users or items."""
    return task.log != version_of(task.fingerprint, None, None)


def older_run(task: Task) -> Path | None:
    """The newest finished run of the same configuration, data and files that other code made."""
    pattern = f"{glob.escape(task.folder.name.removesuffix(task.key))}*/*/metrics.json"
    for file in sorted(runs_with(task.folder.parent, pattern), key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(UserError, OSError, ValueError, LookupError, yaml.YAMLError):  # one that cannot be read is none
            if same_but_for_code(task, file.parent):
                return file.parent
    return None


def same_but_for_code(task: Task, run: Path) -> bool:
    """True if a finished run has the configuration, the log, the first weights and the files of a task; newer options count with their defaults."""
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    if figures_of(config.experiment(values, stored=True).flat) != figures_of(task.experiment.flat):
        return False
    figures = read_json(run / "metrics.json")
    if figures["protocol"].get("warm_start", "") != first_weights(task.experiment):
        return False
    if (figures["training"] or {}).get("teachers", "") != told_of(teachers_of(task.experiment)):
        return False
    files = [value for _, _, value in named_files(task.experiment)]
    return data_version(Sequences.load(run / PACKED)) == task.log and all(
        hash_of(kept_file(run, value)) == hash_of(Path(value).expanduser()) for value in files
    )


def keep(task: Task, folder: Path) -> None:
    """Write the results of a finished run to a folder; those that came from there stay.

    Raises:
        OSError: the file cannot be written.
    """
    if task.run is not None and task.run.is_dir():
        kept.keep(Finished.read(task.run), task.file_in(folder), key="" if task.older else task.key)


def plain(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name)


def newest(folder: Path, pattern: str) -> Path | None:
    """The file of the newest run in a folder."""
    return max(runs_with(folder, pattern), key=lambda file: file.parent.name, default=None)
