"""The first weights of a run that goes on from an earlier one, made anew from that one."""

from __future__ import annotations

from pathlib import Path

import torch

from seqcl.config import Experiment
from seqcl.data.sealed import hash_of
from seqcl.errors import UserError
from seqcl.experiment.audit.verdict import Broken
from seqcl.experiment.run import Run
from seqcl.experiment.unseen import check_unseen
from seqcl.experiment.warm import START, start_of
from seqcl.models import Recommender
from seqcl.training import load_checkpoint


def earlier_run(experiment: Experiment, folder: Path) -> Run | None:
    """The run whose weights a run in a folder began with; None where there was none, or it is gone or holds others now."""
    source = Path(experiment.options.warm_start).expanduser()
    weights = source / "checkpoints" / "best.safetensors"
    wanted = start_of(folder).get("warm_start")
    if wanted is None or not weights.is_file() or hash_of(weights) != wanted:
        return None
    try:
        return Run.load(source)
    except UserError:  # such as a log that is gone
        return None


def other_weights(model: Recommender, folder: Path) -> list[str]:
    """The names of the parameters that are others, by more than rounding, than those with which the run in a folder began."""
    stored, _ = load_checkpoint(folder / START, prefix="model.")
    return [
        name
        for name, mine in model.named_parameters()
        if not torch.allclose(mine.detach().cpu(), stored[f"model.{name}"], rtol=1e-3, atol=1e-5)
    ]


def check_start(run: Run, earlier: Run | None, other: list[str]) -> str:
    """Tell what was compared of the weights that an earlier run gave; nothing where the seed made all.

    Args:
        run: is audited.
        earlier: what `earlier_run` gives for it.
        other: what `other_weights` gives for a model that begins with the earlier one's weights again.

    Raises:
        Broken: the run began with other weights, or the earlier one had learned what the run holds out.
    """
    source = run.experiment.options.warm_start
    if not (run.folder / START).exists():
        return ""
    if earlier is None:
        return (
            f"; not compared: the weights of {START.name}, as {source} is not the run that gave them, or is not there"
        )
    if other:
        raise Broken(f"{START.name} has others than {source} gives: {len(other)} tensors, the first is {other[0]}")
    try:
        check_unseen(earlier, run.sequences, run.split)
    except UserError as error:
        raise Broken(f"{source}: {error}") from None
    return f"; so have the weights that {source} gives, which are those of {START.name}"
