"""The twin of a log: the same to training, other in all that is held out. What training makes of both must have the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcl.config import Experiment, Model
from seqcl.data import Sequences, Split
from seqcl.experiment.audit.begun import other_weights
from seqcl.experiment.audit.plain import Plain
from seqcl.experiment.audit.verdict import Broken
from seqcl.experiment.job import training_batches
from seqcl.experiment.run import Run
from seqcl.experiment.teachers import hand_teachers
from seqcl.experiment.warm import carry, put_start
from seqcl.models import Pretraining, Recommender
from seqcl.training import Trainer, last_checkpoint, load_checkpoint
from seqcl.training.compiled import compiled
from seqcl.training.learner import Learner
from seqcl.training.optimizer import clip_gradient
from seqcl.training.schedule import learning_rate
from seqcl.types import SeqBatch

DAY = 86400


def twin_of(sequences: Sequences, plain: Plain) -> Sequences:
    """A log in which every held-out interaction has another item, of those that training knows, and a later time.

    Interactions that training loses to cold items have other cold items.
    """
    random = np.random.default_rng(0)
    items = np.array(sequences.items)
    times = None if sequences.times is None else np.array(sequences.times)
    known, cold = sorted(plain.counts), sorted(plain.cold)
    for user, begin in enumerate(sequences.offsets[:-1].tolist()):
        first, end = begin + plain.known[user], int(sequences.offsets[user + 1])
        for place in range(first, end):
            items[place] = another(int(items[place]), known, random)
        if len(cold) > 1:
            for place in range(begin, first):
                if items[place] in plain.cold:
                    items[place] = another(int(items[place]), cold, random)
        if times is not None:
            later = times[first:end] > (plain.cuts[0] if plain.cuts else -np.inf)  # the cut stays where it is
            times[first:end] += later * np.cumsum(random.integers(1, DAY, end - first))
    return replace(sequences, items=items, times=times, place=None)


def another(item: int, among: list[int], random: np.random.Generator) -> int:
    """An item drawn from several, other than this one where there is one."""
    found = item
    while found == item:
        found = among[random.integers(len(among))]
        if len(among) == 1:
            break
    return found


@dataclass(kw_only=True)
class Trace:
    """Hashes of everything that training makes of a log, by stage and name, in the order in which it is made."""

    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    losses: dict[str, dict[str, float]] = field(default_factory=dict)  # the means over an epoch's batches, by stage
    batches: dict[str, int] = field(default_factory=dict)  # how many these are
    other: list[str] = field(default_factory=list)  # weights that are not those with which the run began

    def put(self, stage: str, tensors: Mapping[str, Tensor]) -> None:
        """Note the hashes of tensors."""
        self.stages.setdefault(stage, {}).update({name: hash_of(one) for name, one in tensors.items()})


def hash_of(tensor: Tensor) -> str:
    """The hash of the values of a tensor."""
    return hashlib.sha256(
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    ).hexdigest()


def trace_of(
    experiment: Experiment,
    split: Split,
    device: torch.device,
    *,
    folder: Path,
    batches: int | None,
    taught: tuple[Sequences, Split],
    earlier: Run | None = None,
) -> Trace:
    """Make a model as its run did and train it for an epoch, with a loop of its own.

    Args:
        experiment: the model and how it is trained.
        split: the log, split.
        device: where the model is trained.
        folder: of the run, which keeps the weights that it began with, where its seed did not make them.
        batches: stop after so many; None: after the epoch.
        taught: the run's own log and its split, to which its teachers belong.
        earlier: the run whose weights it began with, if that is still there.
    """
    trace, seed = Trace(), experiment.options.seed
    model = experiment.build(split.train)
    if earlier is not None and isinstance(model, Recommender):
        carry(earlier, model, experiment, taught[0], split.train, how=experiment.options.new_items)
        trace.other = other_weights(model, folder)
    trace.put("made", state_of(model))
    if not isinstance(model, Recommender):
        return trace
    put_start(model.to(device), folder)
    hand_teachers(model, *taught, device)
    torch.manual_seed(seed)
    stage = model.pretraining()
    if stage is not None:
        trainer = replace(experiment.train, epochs=stage.epochs, lr=stage.lr)
        trainer = replace(trainer, batch_size=stage.batch_size(trainer.batch_size))
        walk(trace, "pretraining", stage.to(device), trainer, split, seed, device, batches)
    walk(trace, "training", model, experiment.train, split, seed, device, batches)
    return trace


def walk(
    trace: Trace,
    name: str,
    model: Recommender | Pretraining,
    trainer: Trainer,
    split: Split,
    seed: int,
    device: torch.device,
    batches: int | None,
) -> None:
    """Train for an epoch, and note what was there before it, every batch, what has come of it, and what a later epoch begins with."""
    loader = training_batches(split, trainer, seed=seed, device=device, times=model.objective.times_needed)
    learner = Learner(
        model,
        device=device,
        precision=trainer.precision,
        weight_decay=trainer.weight_decay,
        ema=0.0,
        fixed=trainer.fixed_on(device),
    )
    torch.manual_seed(seed)
    model.objective.before_epoch(learner.encoder, loader, epoch=0, epochs=trainer.epochs)
    trace.put(f"{name} begins", state_of(model))
    model.train()
    total, sums = trainer.epochs * len(loader), dict[str, list[float]]()
    with compiled(model.encoder) if trainer.compile else nullcontext():
        for step, batch in enumerate(loader.epoch(0)):
            if step == batches:
                break
            _, losses = learner.backward(learner.forward(batch))
            if trainer.clip:
                clip_gradient(learner.optimizer.parameters, trainer.clip)
            learner.optimizer.step(
                learning_rate(step, peak=trainer.lr, warmup=trainer.warmup, total=total, schedule=trainer.schedule)
            )
            model.objective.after_step(learner.encoder)
            for term, value in losses.items():
                sums.setdefault(term, []).append(float(value.float()))
            trace.put(f"{name} batches", {f"batch {step} {part}": value for part, value in parts_of(batch)})
            trace.batches[name] = step + 1
    trace.losses[name] = {term: sum(values) / len(values) for term, values in sums.items()}
    trace.put(f"{name} ends", state_of(model))
    last = trainer.epochs - 1  # behind every warm-up, so that clusters and learned correlations are made
    model.objective.before_epoch(learner.encoder, loader, epoch=last, epochs=trainer.epochs)
    trace.put(f"{name} goes on", state_of(model))


def parts_of(batch: SeqBatch) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch, by name."""
    for name, value in batch._asdict().items():
        if value is not None:
            yield name, value


def state_of(model: Model | Pretraining) -> dict[str, Tensor]:
    """The weights and buffers of a model, also those that no checkpoint holds but for copies of the log."""
    own = dict(model.state_dict())
    for name, module in model.named_modules():
        counted: Any = getattr(module, "counted", None)  # of `Pair`
        if counted is not None:
            own |= {f"{name}.counted.{part}": tensor for part, tensor in zip(("ids", "scores"), counted, strict=True)}
    return own


def compare_traces(real: Trace, twin: Trace, stage: str) -> int:
    """Compare one stage of two traces; the number of tensors.

    Raises:
        Broken: names the first tensor that differs.
    """
    ours, theirs = real.stages.get(stage, {}), twin.stages.get(stage, {})
    if ours.keys() != theirs.keys():
        raise Broken("with other held-out interactions training makes other batches")
    other = [name for name in ours if ours[name] != theirs[name]]
    if other:
        raise Broken(
            f"with other held-out interactions {len(other)} of {len(ours)} tensors differ, the first is {other[0]}"
        )
    return len(ours)


def first_epochs(folder: Path, trainer: Trainer) -> int:
    """The largest number of epochs when a run in a folder trained its first one; 0 where that is not known.

    A run that goes on may have another one. One of an older version has not noted it, and is taken for one that kept it.
    """
    last = last_checkpoint(folder)
    if not last.exists():
        return trainer.epochs
    return int(load_checkpoint(last, prefix="nothing")[1].get("first_epochs", trainer.epochs))


def stored_losses(file: Path) -> tuple[int, dict[str, float]] | None:
    """The step and the loss terms of the first epoch in a history.csv; None where there is none."""
    from seqcl.report import read_history

    rows = read_history(file) if file.is_file() else []
    if not rows:
        return None
    prefix = "loss_"
    first = [row for row in rows if row["epoch"] == rows[0]["epoch"]][-1]  # one that was cut short and finished has two
    return int(first["step"]), {
        key.removeprefix(prefix): value for key, value in first.items() if key.startswith(prefix)
    }
