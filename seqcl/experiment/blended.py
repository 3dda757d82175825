"""A blend after the training of its network: what stands beside it is counted and chosen, kept in the run and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from seqcl.config import Experiment
from seqcl.data import Split
from seqcl.data.sealed import hash_of
from seqcl.encoders import Memory
from seqcl.errors import refuse_infinite_weights
from seqcl.evaluation import row_metric
from seqcl.evaluation.ranks import Seen
from seqcl.experiment.ranking import queries_of, rank
from seqcl.models import Blend
from seqcl.training import CheckpointError, load_checkpoint, save_checkpoint


def kept_in(folder: Path) -> Path:
    """The file of a run that holds what stands beside its network."""
    return folder / "checkpoints" / "blend.safetensors"


def settle(
    model: Blend, made: Mapping[str, Memory], experiment: Experiment, split: Split, device: torch.device
) -> dict[str, Any]:
    """Put counted memories beside a trained network, as validation chooses; give what was chosen."""
    monitor, evaluator = experiment.train.monitor, experiment.eval
    batches = queries_of(split.valid, evaluator, device)
    moved = model.eval().settle(
        made,
        batches,
        figure=lambda: rank(model, split, "valid", evaluator, device, lists=False).metrics[monitor],
        gain=partial(row_metric, monitor),
        seen=Seen(batches.windows, device).pairs if evaluator.exclude_seen else None,
    )
    memories = model.memories
    rows = [] if memories is None else memories.mixture[-1].T.tolist()  # a weight of each kind of newest item
    names = () if memories is None else memories.parts
    chosen = {"moved": moved} | {name: [round(one, 2) for one in row] for name, row in zip(names, rows, strict=True)}
    return chosen | {"reranked": memories is not None and memories.reranker is not None}


def keep(
    model: Blend, folder: Path, chosen: Mapping[str, Any], identity: Mapping[str, Any], experiment: Experiment
) -> None:
    """Write down what `settle` made, with which options, and beside which network.

    Raises:
        CheckpointError: the file cannot be written.
    """
    state = {**chosen, "identity": dict(identity), "network": network_of(folder), "options": options_of(experiment)}
    save_checkpoint(kept_in(folder), model.settled(), state)


def network_of(folder: Path) -> str:
    """The hash of the best weights of a run."""
    return hash_of(folder / "checkpoints" / "best.safetensors")


def options_of(experiment: Experiment) -> dict[str, Any]:
    """The options by which a blend is made once its network is trained, as JSON."""
    later = experiment.recipe.after_training
    found = {key: value for key, value in experiment.flat.items() if key.partition(".")[0] in later}
    return cast(dict[str, Any], json.loads(json.dumps(found)))


def other_option(before: Mapping[str, Any], experiment: Experiment) -> str | None:
    """The first option that was another one before; None where there is none. Options that are newer do not count."""
    now = options_of(experiment)
    return next((key for key, value in before.items() if key in now and now[key] != value), None)


def up_to_date(folder: Path, experiment: Experiment) -> bool:
    """True if a run holds what stands beside its network, made with these options for the weights that the network has now."""
    file = kept_in(folder)
    if not file.exists():
        return False
    state = load_checkpoint(file, prefix="nothing")[1]
    same = "options" in state and other_option(state["options"], experiment) is None
    return same and state.get("network") == network_of(folder)


def restore(model: Blend, folder: Path, identity: Mapping[str, Any], experiment: Experiment) -> None:
    """Read back what `keep` wrote; a file of before does not say to which network it belongs, or with which options it was made.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it belongs to another log, model, network or configuration.
    """
    file = kept_in(folder)
    tensors, state = load_checkpoint(file, identity=identity)
    if state.get("network") not in (None, network_of(folder)):
        raise CheckpointError(
            f"{file} was made for other weights of the network than best.safetensors has; go on with --resume {folder}, "
            "which makes it anew"
        )
    if key := other_option(state.get("options", {}), experiment):
        raise CheckpointError(
            f"{file} was made with {key} {state['options'][key]}, and config.yaml has {experiment.flat[key]}; go on with "
            f"--resume {folder}, which makes it anew"
        )
    refuse_infinite_weights(tensors, file)
    with torch.no_grad():
        model.begin(reranked="memories.reranker.last" in tensors)
        places = model.settled()
        if {name: one.shape for name, one in places.items()} != {name: one.shape for name, one in tensors.items()}:
            raise CheckpointError(f"{file} belongs to another blend: its memories have other names or sizes")
        for name, one in places.items():
            one.copy_(tensors[name])
