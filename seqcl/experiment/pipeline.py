"""From an experiment to a filled run folder."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqcl import config, plugins, processes
from seqcl.config import Experiment, Model
from seqcl.data import Interactions, Sequences, Split
from seqcl.data.tables import check_storable
from seqcl.errors import UserError
from seqcl.experiment.folder import (
    early_log,
    link_latest,
    log,
    log_file,
    new_folder,
    only_one,
    unchanged_if_refused,
    write_config,
    write_figures,
)
from seqcl.experiment.job import Job, Outcome
from seqcl.experiment.keeping import check_counted, keep_files, keep_log, packed_log, with_kept_files
from seqcl.experiment.ranking import full_protocol
from seqcl.experiment.run import Run
from seqcl.experiment.spoken import speak, warnings_shown
from seqcl.experiment.teachers import check_teachers
from seqcl.experiment.warm import begun_model, keep_start, settled, start_of
from seqcl.machine import about_machine, enough_memory, library_versions, peak_memory_bytes, pick_device
from seqcl.models import Recommender
from seqcl.training import (
    Callback,
    Clock,
    Interrupted,
    check_clip,
    check_compile,
    kept_random_states,
    last_checkpoint,
    make_trackers,
)


@kept_random_states()
def train(dataset: Any = "ml-100k", *, progress: bool = True, callbacks: Sequence[Callback] = (), **values: Any) -> Run:
    """Train and evaluate a model; the keywords are the options of the command line, sections as dictionaries.

    `train(frame, model="CL4Rec", encoder={"dim": 32}, train={"epochs": 5})` learns from a data frame with the columns
    user_id, item_id and, unless its rows are in time order already, timestamp (or other names: data={"user": ...}).
    A class or a `part(...)` may stand where a name can: `objective=part(MyObjective, weight=0.2)`. The random states of
    torch, numpy and Python are afterwards where they were.

    Args:
        dataset: a name, a path, a data frame, or `Interactions`.
        progress: false shows no line of progress.
        callbacks: are told of the run of the model, as it goes; see `seqcl.Callback`.
        values: options.

    Raises:
        UserError: an unknown option, a value that does not fit, a log that cannot be read.
    """
    if isinstance(dataset, str | Path):
        return execute(config.experiment({"dataset": str(dataset), **values}), progress=progress, callbacks=callbacks)
    if not isinstance(dataset, Interactions) and not hasattr(dataset, "columns"):
        raise UserError(f"train needs a name, a path, a data frame or Interactions, not a {type(dataset).__name__}")
    name = dataset.name if isinstance(dataset, Interactions) else "frame"
    experiment = config.experiment({"dataset": name, **values})
    source = dataset if isinstance(dataset, Interactions) else experiment.data.from_frame(dataset)
    return execute(experiment, source, progress=progress, callbacks=callbacks)


def execute(
    experiment: Experiment,
    source: Interactions | None = None,
    *,
    resume: Path | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Run an experiment: log, split, models, training and ranking, and the folder that holds it all.

    Args:
        experiment: the resolved configuration.
        source: the log, where it is no file; None: the experiment's data set.
        resume: the folder of a run to go on with.
        progress: true shows a line of progress.
        callbacks: are told of the run of the model, not of its baselines or its pre-training.

    Raises:
        UserError: a mistake in the data or the options; of what cannot be built, no folder is left behind.
        Interrupted: SIGINT or SIGTERM came; the run can go on.
    """
    clock, started = Clock(), time.monotonic()
    experiment = settled(experiment)
    processes.start()
    processes.check_same("configuration", f"{experiment.to_yaml()}--resume {resume}")
    plugins.named.update(source for _, _, source in experiment.needs())  # the user's words, or checked by `of_run`
    device = pick_device(experiment.options.device)
    make_trackers(experiment.options.trackers)  # what is not installed is said before anything is read
    progress = progress and processes.is_first()
    sequences, split = read(experiment, source, resume)
    experiments = [experiment, *(config.baseline(experiment, name) for name in experiment.options.baselines)]
    if progress and sequences.reading:
        print(sequences.told, file=sys.stderr, flush=True)
    with early_log() as early, warnings_shown(), enough_memory():
        if sequences.reading:
            log.info("%s", sequences.told)
        speak(experiment, sequences, split)
        model, times_read = first_model([with_kept_files(one, resume) for one in experiments], sequences, split, resume)
    name = f"{experiment.options.model}-{sequences.name}"
    folder = processes.by_first(lambda: resume or new_folder(Path(experiment.options.runs), name))
    with held(folder, early), enough_memory(), resumable(folder), unchanged_if_refused(folder), warnings_shown():
        log.info("%s on %s, in %s", experiment.options.model, sequences, folder)
        processes.by_first(partial(fill, folder, experiments, sequences, times_read=times_read))
        outcomes: dict[str, Outcome] = {}
        counted, peak, earlier = None, None, 0.0
        for one in experiments:
            name = one.options.model
            main = one is experiment
            where = folder if main else folder / "baselines" / name
            processes.by_first(partial(begun, where, one))
            told = make_trackers(one.options.trackers) if main or one.recipe.trained else []
            told += callbacks if main else []  # last: what they raise ends the run
            job = Job(
                experiment=with_kept_files(one, folder),
                sequences=sequences,
                split=split,
                folder=where,
                device=device,
                clock=clock if main else Clock(),
                resume=resume is not None,
                progress=progress,
                callbacks=told if processes.is_first() else (),
            )
            made = model if main else begun_model(job.experiment, sequences, split, where)
            processes.by_first(partial(keep_start, one, made, where))
            outcomes[name] = job.run(made)
            del made
            earlier += job.clock.earlier
            if main:
                counted = None if experiment.recipe.trained else model
                del model
                peak = peak_memory_bytes()  # before any baseline adds to it
        seconds = earlier + time.monotonic() - started
        metrics = summary(experiment, sequences, split, outcomes, device)
        metrics["protocol"] |= start_of(folder)
        metrics |= {"seconds": seconds, "peak_memory_bytes": peak}
        processes.by_first(partial(write_figures, folder, json.dumps(metrics, indent=2) + "\n"))
        processes.by_first(partial(link_latest, folder))
        log.info("done in %.1f s", seconds)
    return Run.load(folder, counted=counted)


def read(experiment: Experiment, source: Interactions | None, resume: Path | None) -> tuple[Sequences, Split]:
    """The log of an experiment, packed and the same in every process, and its split; what must not go on is refused."""
    with enough_memory():
        sequences = processes.first_before_others(lambda: packed_log(experiment, resume, source))
        processes.check_same("log (fingerprint)", sequences.fingerprint)
        if source is not None:
            check_storable(sequences.user_table, "users")
            check_storable(sequences.item_table, "items")
        if resume is not None and not experiment.recipe.trained:
            check_counted(resume, sequences)
        split = experiment.data.split_windows(sequences)
        return sequences, split if experiment.options.test else split.without_test()


def first_model(
    experiments: list[Experiment], sequences: Sequences, split: Split, resume: Path | None
) -> tuple[Model, bool]:
    """The model of the first experiment, after every model was built once: what cannot be built leaves no folder behind.

    Baselines are not kept, or the peak of memory of the first model would hold them. Also true if any of them reads times.
    """
    first, *rest = experiments
    begun_before = resume is not None and last_checkpoint(resume).exists()
    model, times_read = (
        (first.build(split.train, fresh=False), False) if begun_before else buildable(first, sequences, split, resume)
    )
    for one in rest:
        if one.recipe.trained:  # counting cannot fail
            where = resume and resume / "baselines" / one.options.model
            times_read |= buildable(one, sequences, split, where)[1]
    return model, times_read or first.data.split != "leave_one_out"


def buildable(experiment: Experiment, sequences: Sequences, split: Split, folder: Path | None) -> tuple[Model, bool]:
    """The model of an experiment, and true if it reads times; its stage of pre-training is made once too, to fail now if it must."""
    model = begun_model(experiment, sequences, split, folder)
    if not isinstance(model, Recommender):
        return model, False
    check_clip(model, experiment.train.clip)
    check_teachers(model, sequences, split)
    if experiment.train.compile:
        check_compile(model.encoder)
    stage = model.pretraining()
    return model, model.objective.times_needed or (stage is not None and stage.objective.times_needed)


@contextmanager
def held(folder: Path, early: Sequence[logging.LogRecord]) -> Iterator[None]:
    """Inside, no other run can go on in the folder, and its log grows; the first process does both for all."""
    with ExitStack() as held:
        if processes.is_first():
            held.enter_context(only_one(folder))
            held.enter_context(log_file(folder / "log.txt", early))
        yield


def fill(folder: Path, experiments: list[Experiment], sequences: Sequences, *, times_read: bool) -> None:
    """Put the configuration, the packed log and the files that options name into the folder of a run."""
    first = experiments[0]
    begun(folder, first)
    if not any(folder.rglob("*.safetensors")):  # a run of version 0.1.0 that learned goes on with what it is given
        keep_log(sequences, folder, most_gib=first.options.keep_gib, times_read=times_read)
        keep_files(experiments, folder)


def begun(folder: Path, experiment: Experiment) -> None:
    """Put into the folder of one model its configuration and the list of parts that are not ours."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, experiment.to_yaml())
    plugins.write_needs(folder, experiment.needs())


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Inside, an interruption names the folder of the whole run, with which it goes on; a baseline is a part of that."""
    try:
        yield
    except Interrupted as stop:
        stop.folder = folder
        raise
    except KeyboardInterrupt:
        raise Interrupted(signal="SIGINT", folder=folder) from None
    except processes.Gone as error:
        raise processes.Gone(f"{error}; go on with the same command and --resume {folder}") from None


def summary(
    experiment: Experiment, sequences: Sequences, split: Split, outcomes: Mapping[str, Outcome], device: torch.device
) -> dict[str, Any]:
    """The content of metrics.json, without seconds and memory."""
    model, seed = experiment.options.model, experiment.options.seed
    main, fit = outcomes[model], outcomes[model].fit
    return {
        "model": model,
        "protocol": full_protocol(main.test or main.valid, sequences, split, seed),
        "data": {
            "name": sequences.name,
            "fingerprint": sequences.fingerprint,
            "users": sequences.num_users,
            "items": sequences.num_items,
            "interactions": sequences.num_interactions,
        },
        **figures(main),
        "baselines": {name: figures(one) for name, one in outcomes.items() if name != model},
        "training": None
        if fit is None
        else {
            "best_epoch": fit.best_epoch,
            "epochs": fit.epochs,
            "steps": fit.steps,
            "seconds": fit.seconds,
            "stopped": fit.stopped,
            "pretraining": main.pretraining,
            **({"teachers": main.teachers} if main.teachers else {}),
        },
        "seed": seed,
        "versions": library_versions(),
        "machine": about_machine(device),
    }


def figures(outcome: Outcome) -> dict[str, Any]:
    """Metrics of one model."""
    test = {} if outcome.test is None else {"test": outcome.test.metrics}
    return {**test, "valid": outcome.valid.metrics, "slices": outcome.slices}
