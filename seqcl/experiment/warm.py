"""Begin with the weights of an earlier run: rows of the item table by raw id, new items from neighbours, the mean or their features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from seqcl.config import Experiment, Model
from seqcl.data import Sequences, Split
from seqcl.data.raw_ids import same_ids
from seqcl.data.sealed import hash_of
from seqcl.encoders import Scoring, TwoTower
from seqcl.encoders.features import Words
from seqcl.encoders.table import ItemTable
from seqcl.errors import UserError
from seqcl.experiment.folder import log
from seqcl.experiment.unseen import check_unseen
from seqcl.models import Recommender
from seqcl.objectives.follower import Follower
from seqcl.training import load_checkpoint
from seqcl.training.checkpoint import save_checkpoint, with_prefix
from seqcl.types import PAD, Windows

if TYPE_CHECKING:
    from seqcl.experiment.run import Run

START = Path("checkpoints", "start.safetensors")
"""The file in a run that has the weights with which it began, where these were not made from its seed alone."""

Weights = dict[str, tuple[nn.Module, nn.Parameter]]
"""Owner and value of each parameter, by name."""


def settled(experiment: Experiment) -> Experiment:
    """The same experiment, with the folder that it goes on from in the place of a link, which may lead elsewhere later."""
    source = Path(experiment.options.warm_start).expanduser()
    if not experiment.options.warm_start or not source.is_dir():
        return experiment
    return replace(experiment, options=replace(experiment.options, warm_start=str(source.resolve())))


def begun_model(experiment: Experiment, sequences: Sequences, split: Split, folder: Path | None = None) -> Model:
    """Make the model of an experiment with the weights that it begins with.

    Args:
        experiment: the configuration.
        sequences: the log.
        split: of the log.
        folder: the folder of the model, if it has begun before.

    Raises:
        UserError: the earlier run cannot be read, is another model, or learned from what this run holds out.
    """
    model = experiment.build(split.train)
    if not experiment.options.warm_start or not isinstance(model, Recommender):
        return model
    if folder is not None and (folder / START).exists():
        put_start(model, folder)
        return model
    from seqcl.experiment.run import Run

    source = experiment.options.warm_start
    try:
        earlier = Run.load(Path(source).expanduser())
        check_unseen(earlier, sequences, split)
        check_options(earlier.experiment, experiment)
        left = carry(earlier, model, experiment, sequences, split.train, how=experiment.options.new_items)
    except UserError as error:
        raise UserError(f"--warm_start {source}: {error}") from None
    new = int((rows_of(earlier.sequences, sequences) < 0).sum())
    log.info("begun with the weights of %s: %d of %d items are new, begun from %s; %d weights are not there and begin anew", source, new, sequences.num_items, experiment.options.new_items, len(left))  # fmt: skip
    return model


def keep_start(experiment: Experiment, model: Model, folder: Path) -> None:
    """Keep the weights with which a model begins in its folder, and from which run they are."""
    if not experiment.options.warm_start or not isinstance(model, Recommender) or (folder / START).exists():
        return
    (folder / START).parent.mkdir(exist_ok=True)
    weights = Path(experiment.options.warm_start).expanduser() / "checkpoints" / "best.safetensors"
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    about = {"warm_start": hash_of(weights)}
    save_checkpoint(folder / START, with_prefix(tensors, "model."), about)


def start_of(folder: Path) -> dict[str, str]:
    """The part of a protocol that says from which weights a run began; nothing where its seed alone made them."""
    if not (folder / START).exists():
        return {}
    return {"warm_start": str(load_checkpoint(folder / START, prefix="nothing")[1]["warm_start"])}


@torch.no_grad()
def put_start(model: nn.Module, folder: Path) -> None:
    """Put the weights with which a run began into its model; its buffers stay as they were made."""
    if not (folder / START).exists():
        return
    tensors, _ = load_checkpoint(folder / START)
    for name, parameter in model.named_parameters():
        parameter.copy_(tensors[f"model.{name}"])
    if isinstance(model, Recommender):
        lead(model)


def rows_of(earlier: Sequences, now: Sequences) -> np.ndarray:
    """The id in an earlier log of each item 1..N, 0 for a new one: (N,)."""
    return same_ids(np.asarray(now.item_ids), np.asarray(earlier.item_ids)) + 1


def check_options(earlier: Experiment, now: Experiment) -> None:
    """Refuse another encoder, another number of them, or towers around one alone.

    Raises:
        UserError: names both.
    """
    if ("towers" in earlier.recipe.parts) != ("towers" in now.recipe.parts):
        both = f"its model is {earlier.recipe.name}, and this run's is {now.recipe.name}"
        raise UserError(f"{both}: one of them alone has two towers; give --model {earlier.recipe.name}")
    theirs, ours = (one.recipe.chosen.get("encoder") for one in (earlier, now))
    if theirs != ours:
        raise UserError(f"its encoder is {theirs}, and this run's is {ours}; give --encoder {theirs}")
    theirs, ours = (one.flat.get("ensemble.networks", 1) for one in (earlier, now))
    if theirs != ours:
        model = "" if "ensemble.networks" in now.flat else "--model Ensemble "
        have = "1 network" if theirs == 1 else f"{theirs} networks"
        raise UserError(f"it has {have}, and this run {ours}; give {model}--ensemble.networks {theirs}")


@torch.no_grad()
def carry(
    earlier: Run, model: Recommender, now: Experiment, sequences: Sequences, train: Windows, *, how: str
) -> list[str]:
    """Put the weights of an earlier run into a model for another log; give the names of those that it does not have.

    Rows of items, and of words of features, are found by their names. All else must have the shape that it had.

    Args:
        earlier: the run.
        model: the model, with new weights.
        now: its configuration.
        sequences: the log of the model.
        train: its training windows.
        how: first vectors of items that the run does not know: neighbours, mean or features.

    Raises:
        UserError: the run is counted, or a weight of the encoder has another shape, or is in one of both alone.
    """
    source = earlier.model
    if not isinstance(source, Recommender):
        raise UserError(f"{earlier.experiment.options.model} is counted and has no weights to begin with")
    check_columns(source, model)
    if how == "features" and not (isinstance(model.encoder, TwoTower) and model.encoder.items_known.columns):
        raise UserError("--new_items features: the encoder reads no features of items; take neighbours or mean")
    mine = rows_of(earlier.sequences, sequences)
    rows = np.concatenate(([PAD], np.where(mine > 0, mine, -1), [earlier.sequences.num_items + 1]))  # (N + 2,)
    near = None if how != "neighbours" else neighbours(train, rows)
    there, here = weights_of(source), weights_of(model)
    for name in sorted(there.keys() ^ here.keys()):
        if name.startswith("encoder."):
            raise UserError(different(name, there, here, earlier.experiment, now))
    left = [name for name in here if name not in there]
    for name in [name for name in here if name in there]:
        (module, weight), (other, old) = here[name], there[name]
        rows_fit = old.shape[1:] == weight.shape[1:]
        if rows_fit and isinstance(module, ItemTable):
            put_rows(weight, old, rows)
            begin(weight, rows, near, zero=how == "features")
        elif rows_fit and isinstance(module, Words) and isinstance(other, Words):
            put_rows(weight, old, np.array([other.place.get(word, -1) for word in module.place], np.int64))
        elif rows_fit and isinstance(module, Scoring) and module.bias is weight:
            put_rows(weight, old, rows[1:-1] - 1)
        elif old.shape == weight.shape:
            weight.copy_(old)
        elif name.startswith("encoder."):
            raise UserError(different(name, there, here, earlier.experiment, now))
        else:
            left.append(name)
    copies = {f"{name}.": module for name, module in model.named_modules() if isinstance(module, Follower)}
    for prefix, copy in copies.items():
        if any(name.startswith(prefix) for name in left):
            copy.follow(model.encoder, 0.0)  # a slow copy begins as what it follows
            left = [name for name in left if not name.startswith(prefix)]
    lead(model)
    return left


def lead(model: Recommender) -> None:
    """Let the slow copies of terms that pre-train alone, and are no part of the model, begin as what they follow."""
    own = set(model.modules())
    for term in model.contrastive.values():
        for module in term.modules():
            if isinstance(module, Follower) and module not in own:
                module.follow(model.encoder, 0.0)


def weights_of(model: nn.Module) -> Weights:
    """Every parameter, with its owner."""
    return {
        f"{prefix}.{name}" if prefix else name: (module, weight)
        for prefix, module in model.named_modules()
        for name, weight in module.named_parameters(recurse=False)
    }


def check_columns(earlier: Recommender, now: Recommender) -> None:
    """Refuse towers over other columns of features.

    Raises:
        UserError: names the columns of both.
    """
    if isinstance(earlier.encoder, TwoTower) and isinstance(now.encoder, TwoTower):
        for which in ("items_known", "users_known"):
            theirs, ours = (getattr(one.encoder, which).columns for one in (earlier, now))
            if theirs != ours:
                what = f"features of {which.removesuffix('_known')}"
                raise UserError(f"its {what} are {', '.join(theirs) or 'none'}, here {', '.join(ours) or 'none'}")


def different(name: str, there: Weights, here: Weights, earlier: Experiment, now: Experiment) -> str:
    """The message for a weight of the encoder that both runs do not have in one shape, and the options that differ."""
    theirs, ours = earlier.flat, now.flat
    others = [
        f"{key} is {theirs.get(key, 'not there')}, not {ours.get(key, 'there')}"
        for key in sorted(theirs | ours)
        if key.startswith(("encoder.", "towers.", "data.max_len")) and theirs.get(key) != ours.get(key)
    ]
    old, new = (tuple(one[name][1].shape) if name in one else "missing" for one in (there, here))
    told = ", ".join(others) or "all options of the encoder are the same"
    return f"the run is of other dimensions: {told}; {name} is {old} there and {new} here"


def put_rows(weight: Tensor, old: Tensor, rows: np.ndarray) -> None:
    """Take rows (R,) of another table; -1 leaves a row as it is."""
    there = torch.from_numpy(np.flatnonzero(rows >= 0))
    weight[there] = old[torch.from_numpy(rows[rows >= 0])].to(weight)


def neighbours(train: Windows, rows: np.ndarray) -> Any:
    """Count how often each new item stands beside each known one in training: sparse (N + 2, N + 2), each row's sum 1, or 0."""
    from scipy.sparse import csr_array

    users, items = train.known()
    one, other = items[:-1][users[:-1] == users[1:]], items[1:][users[:-1] == users[1:]]
    first, second = np.concatenate((one, other)), np.concatenate((other, one))
    wanted = (rows[first] < 0) & (rows[second] >= 0)
    pairs = first[wanted].astype(np.int64), second[wanted].astype(np.int64)
    found = csr_array((np.ones(len(pairs[0]), np.float32), pairs), shape=(len(rows), len(rows)))
    total = found.sum(1)
    found.data /= np.repeat(total, np.diff(found.indptr))
    return found


def begin(table: Tensor, rows: np.ndarray, near: Any, *, zero: bool) -> None:
    """Begin the rows of new items: with zeros, their neighbours' mean, or, without neighbours, the mean of all known items.

    A mean is shorter than what it is made of, so it gets their mean length.

    Args:
        table: (N + 2, D), in which the rows of known items are.
        rows: (N + 2,), -1 for new items.
        near: as `neighbours` gives it; None: no neighbours are looked at.
        zero: begin with zeros.
    """
    new = np.flatnonzero(rows < 0)
    if zero or not len(new):
        table[torch.from_numpy(new)] = 0
        return
    known = table[torch.from_numpy(np.flatnonzero(rows[1:-1] >= 0) + 1)]  # (K, D)
    if not len(known):
        raise UserError("it knows none of the items of this log")
    made = known.mean(0).expand(len(new), -1).clone()  # (n, D)
    if near is not None:
        of_near = torch.from_numpy(near[new] @ table.detach().cpu().numpy()).to(table)
        beside = torch.from_numpy(np.diff(near[new].indptr) > 0).to(table.device)
        made[beside] = of_near[beside]
    length = known.norm(dim=1).mean()
    table[torch.from_numpy(new)] = made * (length / made.norm(dim=1, keepdim=True).clamp(min=1e-12))
