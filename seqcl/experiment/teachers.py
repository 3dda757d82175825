"""Read the runs that a model learns from, and refuse those of other data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from seqcl.data import Sequences, Split
from seqcl.errors import UserError, brief
from seqcl.experiment.finished import FREE
from seqcl.experiment.folder import log
from seqcl.experiment.keys import told_of
from seqcl.experiment.run import Run
from seqcl.models import Blend, Recommender
from seqcl.models.teachers import is_counted, none_of, teacher_of
from seqcl.objectives import Distillation
from seqcl.training import kept_random_states


def hand_teachers(model: Recommender, sequences: Sequences, split: Split, device: torch.device) -> None:
    """Give a model that learns from teachers the teachers that its options name, and note their hashes as its identity.

    Args:
        model: the model; one without teachers is left as it is.
        sequences: the log that it learns.
        split: of the log.
        device: where the teachers go.

    Raises:
        UserError: a teacher is no finished run of the same data and protocol; the first difference is named.
    """
    for learner in learners(model):
        runs = {name: read_teacher(name, sequences, split) for name in learner.names if not is_counted(name)}
        with kept_random_states():
            found = [teacher_of(runs[name].model) if name in runs else learner.make(name) for name in learner.names]
        learner.take(found, device)
        if runs:
            model.identity["teachers"] = told_of(runs)
            log.info("learns from %s", model.identity["teachers"])


def check_teachers(model: Recommender, sequences: Sequences, split: Split) -> None:
    """Refuse what `hand_teachers` would refuse."""
    for learner in learners(model):
        models = [read_teacher(name, sequences, split).model for name in learner.names if not is_counted(name)]
        trained = sum(isinstance(model, Recommender) for model in models)
        learner.check_counted(trained < len(learner.names))


def learners(model: Recommender) -> Iterator[Distillation]:
    """The objectives of a model that learn from teachers."""
    return (one for one in model.modules() if isinstance(one, Distillation))


def read_teacher(name: str, sequences: Sequences, split: Split) -> Run:
    """Read a run as a teacher.

    Raises:
        UserError: there is none, it is not finished, or it is of other data or another protocol.
    """
    folder = Path(name).expanduser()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"teachers: {none_of(name)}; a run that learns from it cannot begin or go on without it")
    if folder.is_symlink():
        raise UserError(f"teachers: {name} is a link, which may lead to another run later: give {folder.resolve()}")
    try:
        run = Run.load(folder)
    except UserError as error:
        raise UserError(f"teachers: {error}") from None
    if isinstance(run.model, Blend):
        raise UserError(
            f"teachers: {name} is a blend, which was weighed on validation: a student of it would learn what is held out; "
            "give runs of its network and SLIST or EASE"
        )
    if run.sequences.fingerprint != sequences.fingerprint:
        raise UserError(
            f"teachers: {name} learned other data ({run.sequences.name}, fingerprint {run.sequences.fingerprint[:12]}..., not "
            f"{sequences.name}, {sequences.fingerprint[:12]}...)"
        )
    theirs, ours = run.split.protocol, split.protocol
    for key in {**ours, **theirs}:
        if key not in FREE and theirs.get(key) != ours.get(key):
            raise UserError(
                f"teachers: {name} was trained under another protocol: its {key} is {brief(theirs.get(key))}, not "
                f"{brief(ours.get(key))}"
            )
    return run
