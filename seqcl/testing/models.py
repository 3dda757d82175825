"""The conformance check of recipes."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from seqcl import config
from seqcl.config import Experiment
from seqcl.data import Interactions, Split, leave_one_out, markov
from seqcl.experiment import training_batches
from seqcl.training import Interrupted, Loader
from seqcl.types import SeqBatch

USERS, ITEMS = 60, 20
TINY: dict[str, Any] = {
    "encoder": {"dim": 8},
    "data": {"windows": "last"},
    "train": {"epochs": 3, "batch_size": 16, "patience": 0},
    "eval": {"exclude_seen": False},  # a chain comes back to its items
}


def check_model(recipe: Any, **options: Any) -> None:
    """Check a recipe: its scores, its terms, that it learns from training items alone, and that it resumes to the same bits.

    Args:
        recipe: the class, or its name.
        options: sections of options, such as `views={"crop": 0.5}`.

    Raises:
        AssertionError: names the rule that is broken.
    """
    with torch.random.fork_rng(devices=[]):
        experiment = tiny(recipe, **options)
        check_face(experiment)
        if experiment.recipe.trained:
            check_gradients(experiment)
            check_training_items_alone(experiment)
            check_resumption(experiment)


def tiny(recipe: Any, **options: Any) -> Experiment:
    """A small experiment of a recipe, for checks."""
    merged = {name: {**TINY.get(name, {}), **options.get(name, {})} for name in {**TINY, **options}}
    if "encoder" not in config.experiment({"model": recipe, "dataset": "x"}).recipe.parts:
        del merged["encoder"]
    return config.experiment({"model": recipe, "dataset": "x", **merged})


def small_log() -> Interactions:
    """A small log of a Markov chain with times, and a word for every item."""
    words = pd.DataFrame({"kind": [f"k{item % 7}" for item in range(500)]}, index=range(500))
    chain = markov(users=USERS, items=ITEMS, length=8, branching=2, seed=1)
    return replace(chain.interactions, item_features=words)


def small_split(experiment: Experiment, *, held_out: int | None = None) -> Split:
    """The split of the small log; `held_out` overwrites every item that training may not know."""
    split = leave_one_out(experiment.data.sequences(small_log()), windows=experiment.data.windows, max_len=50)
    if held_out is None:
        return split
    items = np.array(split.train.items)
    for begin, end in zip(split.train.ends, split.train.offsets[1:], strict=True):
        items[begin:end] = held_out
    return replace(split, **{name: replace(getattr(split, name), items=items) for name in ("train", "valid", "test")})


def begun(experiment: Experiment, *, held_out: int | None = None) -> tuple[Any, Loader]:
    """The model with new weights, and its batches."""
    split = small_split(experiment, held_out=held_out)
    model: Any = experiment.build(split.train)
    times = model.objective.times_needed if experiment.recipe.trained else False
    torch.manual_seed(0)
    return model, training_batches(split, experiment.train, seed=0, device=torch.device("cpu"), times=times)


@torch.no_grad()
def check_face(experiment: Experiment) -> None:
    """Check scores, queries and vectors of a model in eval()."""
    model, batches = begun(experiment)
    model.eval()
    batch = next(iter(batches))._replace(targets=None)
    scores, vectors, rows = model.scores(batch), model.vectors(), len(batch.lengths)
    assert scores.shape == (rows, ITEMS), f"scores() must be (B, N), here {(rows, ITEMS)}, not {tuple(scores.shape)}"
    assert bool(scores.isfinite().all()), "scores() must be finite"
    if vectors is not None:
        assert len(vectors) == ITEMS, f"vectors() must have a row for each of {ITEMS} items, not {len(vectors)}"
        product = model.queries(batch) @ vectors.T
        assert torch.allclose(product, scores, atol=1e-5), (
            "scores() must be the inner products of queries() and vectors()"
        )


def check_gradients(experiment: Experiment) -> None:
    """Check that the terms are finite, and that together they reach every parameter of the encoder."""
    model, batches = begun(experiment)
    model.objective.before_epoch(model.encoder, batches, epoch=9, epochs=10)  # past every warm-up
    batch = next(iter(batches))
    model(batch)  # fills queues and banks
    terms = model(batch)
    for name, term in terms.items():
        assert term.dim() == 0 and bool(term.isfinite()), f"the term {name!r} must be a finite scalar"
    torch.stack(list(terms.values())).sum().backward()
    missed = [name for name, one in model.encoder.named_parameters() if one.grad is None or not bool(one.grad.any())]
    assert not missed, f"no term reaches these parameters of the encoder: {', '.join(missed)}"


def check_training_items_alone(experiment: Experiment) -> None:
    """Check that items of validation and test change no weight."""
    weights = []
    for held_out in (1, 7):
        model, batches = begun(experiment, held_out=held_out)
        experiment.train.fit(model, batches, progress=False)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), f"{name} depends on items that training may not know"


class Stopping:
    """Batches that send SIGTERM to this process before one of them.

    Args:
        batches: the batches.
        at: epoch and batch, from 0 on.
    """

    def __init__(self, batches: Loader, at: tuple[int, int]) -> None:
        self.batches, self.at = batches, at

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SeqBatch]:
        return iter(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[SeqBatch]:
        """The batches of an epoch, and the signal on the way."""
        for place, batch in enumerate(self.batches.epoch(number, start)):
            if (number, place + start) == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def check_resumption(experiment: Experiment) -> None:
    """Check that a stopped run goes on to the bits of one that was not stopped."""
    whole, batches = begun(experiment)
    experiment.train.fit(whole, batches, progress=False)
    stopped, batches = begun(experiment)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            experiment.train.fit(stopped, Stopping(batches, (1, 1)), folder=folder, progress=False)
            raise AssertionError("the run was not stopped")
        except Interrupted:
            pass
        resumed, batches = begun(experiment)
        torch.manual_seed(99)
        experiment.train.fit(resumed, batches, folder=folder, resume=True, progress=False)
    expected: Mapping[str, torch.Tensor] = whole.state_dict()
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, expected[key]), (
            f"{key} differs after a resumption: keep all state in buffers or parameters"
        )
