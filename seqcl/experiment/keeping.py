"""Make a run whole: it keeps its packed log, the files that its options name, and the fingerprint of the log."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from seqcl import disk
from seqcl.config import Experiment
from seqcl.config.schema import hints_of
from seqcl.data import Interactions, Sequences
from seqcl.disk import read_json
from seqcl.errors import UserError
from seqcl.experiment.folder import UNENDED, log, write_text
from seqcl.experiment.ranking import identity
from seqcl.parts import FileName, Part

PACKED = "sequences"
"""The folder in a run that holds the packed log."""

TABLES = "tables"
"""The folder in a run that holds copies of the files which its options name."""

COUNTED = "counted.json"
"""The file beside a model that is counted: the log on which it was; a trained model has that in its checkpoints."""


def home_of(folder: Path) -> Path:
    """The folder of the whole run: that of a baseline lies in it, at baselines/NAME."""
    own = folder.resolve()
    inside = own.parent.name == "baselines" and (own.parents[1] / "config.yaml").is_file()
    return own.parents[1] if inside and not (folder / PACKED).exists() else folder


def packed_log(experiment: Experiment, folder: Path | None, source: Interactions | None = None) -> Sequences:
    """The packed log of an experiment: the one that its run keeps, else the log given, else its data set.

    Raises:
        UserError: the run's log is damaged; or it keeps none, as in version 0.1.0, and its data set cannot be read.
    """
    dataset = experiment.options.dataset
    if folder is None:
        return experiment.data.sequences(source or dataset)
    place = home_of(folder) / PACKED
    if place.exists():
        try:
            return Sequences.load(place)
        except UserError as error:
            raise UserError(f"{error}; delete this folder to read {dataset} instead") from None
    try:
        return experiment.data.sequences(source or dataset)
    except UserError as error:
        raise UserError(
            f"{folder} keeps no packed log and needs its data set: {error}; put that back, or go where the run was started"
        ) from None


def keep_log(sequences: Sequences, folder: Path, *, most_gib: float, times_read: bool) -> None:
    """Put the packed log into a run folder: linked to the cache where the disk allows it, else written.

    Args:
        sequences: the packed log.
        folder: the run.
        most_gib: a larger log is written without its times, unless they are read.
        times_read: the split or a model of the run reads the times.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    place = folder / PACKED
    if place.exists():  # the run goes on with it
        return
    size = f"{sequences.nbytes / 2**20:,.1f} MiB"
    if sequences.place is not None and disk.link_folder(sequences.place, place):
        log.info("%s/ holds the packed log (%s), linked to the cache", PACKED, size)
        return
    if sequences.nbytes > most_gib * 2**30 and sequences.times is not None and not times_read:
        sequences = replace(sequences, times=None)
        log.info("%s/ holds the packed log without its times, which this run does not read: with them it has %s, more than --keep_gib %g", PACKED, size, most_gib)  # fmt: skip
    else:
        log.info("%s/ holds the packed log (%s)", PACKED, size)
    sequences.save(place)


def named_files(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Section, option and value of every option that names a file."""
    for section, part in experiment.recipe.parts.items():
        for option, hint in hints_of(part.component).items():
            marks = [mark for mark in get_args(hint)[1:] if isinstance(mark, FileName)]
            value = part.options.get(option)
            if marks and isinstance(value, str) and value.lower().endswith(marks[0].suffix):
                yield section, option, value


def kept_file(folder: Path, value: str) -> Path:
    """The place in a run of the file that an option names; two files of one name have two places."""
    return folder / TABLES / f"{hashlib.sha256(value.encode()).hexdigest()[:8]}-{Path(value).name}"


def keep_files(experiments: Sequence[Experiment], folder: Path) -> None:
    """Copy the files that options name into the run.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    for experiment in experiments:
        for _, _, value in named_files(experiment):
            target = kept_file(folder, value)
            if target.exists():
                continue
            try:
                with disk.whole_file(target) as beside:
                    shutil.copyfile(Path(value).expanduser(), beside)
            except OSError as error:
                raise UserError(f"{target}: {value} cannot be copied: {error.strerror}") from None


def with_kept_files(experiment: Experiment, folder: Path | None) -> Experiment:
    """The experiment that reads the run's copies in the place of the files that its options name."""
    if folder is None:
        return experiment
    parts = dict(experiment.recipe.parts)
    for section, option, value in named_files(experiment):
        copy = kept_file(home_of(folder), value)
        if copy.exists():  # version 0.1.0 kept none
            parts[section] = Part(parts[section].component, **{**parts[section].options, option: str(copy)})
    return replace(experiment, recipe=replace(experiment.recipe, parts=parts))


def stored_metrics(path: Path) -> dict[str, Any]:
    """The figures of a run; none if it has none yet, or if they are damaged, which is said: the model is whole without them."""
    if (path.parent / UNENDED).exists():
        log.warning(
            "%s is of the configuration before the run went on, and is left out; --resume %s ends it", path, path.parent
        )
        return {}
    try:
        return dict(read_json(path, dict)) if os.path.lexists(path) else {}
    except UserError as error:
        log.warning("%s; the figures of the run are left out, `seqcl evaluate` gives them again", error)
        return {}


def state_log(folder: Path, sequences: Sequences) -> None:
    """Write down the log on which a model was counted."""
    write_text(folder / COUNTED, json.dumps(identity(sequences)) + "\n")


def check_counted(folder: Path, sequences: Sequences) -> None:
    """Refuse another log than the one on which a model was counted: it would give other figures in silence.

    Raises:
        UserError: the fingerprint is another one, or the file that has it cannot be read.
    """
    file, keys = folder / COUNTED, ["data_fingerprint"]
    if not file.exists():  # version 0.1.0 has the fingerprint among the results alone
        file, keys = home_of(folder) / "metrics.json", ["data", "fingerprint"]
    if not file.exists():
        return  # nothing was counted yet
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        for key in keys:
            found = found[key]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        raise UserError(f"{file} cannot be read, so nobody knows on which log the model was counted") from None
    if found != sequences.fingerprint:
        raise UserError(
            f"{file}: the model was counted on other data: the fingerprint is {str(found)[:12]}... there, "
            f"{sequences.fingerprint[:12]}... now; give that log back"
        )
