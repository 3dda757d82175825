"""Checkpoints: one safetensors file each, its state as JSON in the file's own metadata, never a pickle.

A checkpoint is one file, because renaming a file is atomic and filling a folder is not. After a crash, a full disk or
`kill -9` the name stands for a whole checkpoint: the new one or the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seqcl.disk import whole_file
from seqcl.errors import UserError, brief, refuse_infinite_weights

FORMAT = "seqcl-checkpoint-1"
FORMER_BIAS = re.compile(r"^(next_item)(?:\.next_item)?\.bias$")
"""The name, within the joint objective, of the learned biases of items in version 0.1.0."""


STATE = ""
"""The name under which the hash of the state stands among those of the tensors."""
PREVIOUS = "previous.safetensors"
"""The name of the checkpoint before the last one."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read, or used with this data or model."""


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], previous: Path | None = None
) -> None:
    """Write tensors and a JSON-able state to `path`; at any time the old file or the new one is there, whole.

    Args:
        path: the file.
        tensors: by name.
        state: everything else.
        previous: where the checkpoint that stood at `path` is kept.

    Raises:
        CheckpointError: the file could not be written; the one before it is untouched.
    """
    text = json.dumps(state)
    separate = _separate(tensors)
    hashes = {STATE: hashlib.sha256(text.encode()).hexdigest()} | {name: _hash(one) for name, one in separate.items()}
    try:
        with whole_file(path, previous=previous) as beside:
            save_file(separate, beside, {"format": FORMAT, "state": text, "hashes": json.dumps(hashes)})
    except (OSError, SafetensorError) as error:
        kept = "; the checkpoint before it is whole" if path.exists() else ""
        raise CheckpointError(f"could not write {path}: {brief(error)}{kept}. Is the disk full?") from error


def load_checkpoint(
    path: Path, *, identity: Mapping[str, Any] | None = None, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors whose names begin with `prefix`, on the CPU, and the state; each is compared with its hash.

    Checkpoints of version 0.1.0 have no hashes and are read as they are.

    Raises:
        CheckpointError: there is no such file, it is not a whole checkpoint, or its `identity` is another one.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {brief(error)}") from error
    found = metadata.get("format", "unknown")
    if found != FORMAT:
        raise CheckpointError(f"{path} has the format {brief(repr(found), 60)}; this version reads {FORMAT!r}")
    try:
        state = json.loads(metadata["state"])
        hashes = json.loads(metadata["hashes"]) if "hashes" in metadata else None
    except (KeyError, ValueError, RecursionError) as error:
        raise not_as_written(path, brief(error)) from None
    if not isinstance(state, dict) or not isinstance(state.get("identity", {}), dict):
        raise not_as_written(path, "its state is of another shape")
    if hashes is not None:
        _compare(path, hashes, names, tensors, metadata["state"])
    _check_identity(path, state.get("identity", {}), identity or {})
    return tensors, state


def not_as_written(path: Path, reason: str) -> CheckpointError:
    """The error for a checkpoint whose content changed; it offers the one before it."""
    before = path.with_name(PREVIOUS)
    if path.name.startswith("blend"):
        way = "delete it and go on with --resume RUN, which makes it anew"
    elif path.name != PREVIOUS and before.is_file():
        way = f"the checkpoint before it is {PREVIOUS}: rename that to {path.name} and go on"
    elif path.name.startswith("best") and path.with_name("last.safetensors").is_file():
        way = "no other file holds these weights: train again"
    else:
        way = "there is none before it"
    return CheckpointError(f"{path} is not as it was written ({reason}); {way}")


def _compare(
    path: Path, hashes: Mapping[str, str], names: Collection[str], tensors: Mapping[str, Tensor], state: str
) -> None:
    """Compare what was read with its hashes."""
    if not isinstance(hashes, dict) or hashes.keys() != {STATE, *names}:
        raise not_as_written(path, "it holds other tensors")
    if hashes[STATE] != hashlib.sha256(state.encode(errors="replace")).hexdigest():
        raise not_as_written(path, "its state has another hash")
    for name, one in tensors.items():
        if hashes[name] != _hash(one):
            raise not_as_written(path, f"{name} has another hash")


def _hash(tensor: Tensor) -> str:
    """The hash of the type, the shape and the bytes of a tensor."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    raw: Any = tensor.cpu().reshape(-1).view(torch.uint8).numpy()  # the stubs of numpy 1 do not know it for a buffer
    digest.update(raw)
    return digest.hexdigest()


def load_weights(model: nn.Module, path: Path, *, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put the weights of a checkpoint into `model`; give its state (epoch, step, metrics, identity).

    Raises:
        CheckpointError: as `load_checkpoint`, or the weights of the model have other names or shapes.
        Diverged: a weight is not finite.
    """
    tensors, state = load_checkpoint(path, identity=identity, prefix="model.")
    refuse_infinite_weights(tensors, path)
    put_weights(model, with_todays_names(tensors, model), path)
    return state


def with_todays_names(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Name the learned biases of a checkpoint of version 0.1.0 as the model does: they stand in `scoring` now."""
    known = model.state_dict().keys()
    found = {}
    for name, tensor in tensors.items():
        group, dot, rest = name.partition("objective.objectives.")
        today = FORMER_BIAS.sub(r"\1.scoring.bias", rest)
        found[group + dot + today if dot + today in known else name] = tensor
    return found


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors named "model.*" into the model.

    Raises:
        CheckpointError: the weights of the model have other names or shapes than those of `path`; one of each kind is named.
    """
    weights = without_prefix(tensors, "model.")
    expected = model.state_dict()
    shapes = {
        name: (tuple(weights[name].shape), tuple(expected[name].shape)) for name in weights.keys() & expected.keys()
    }
    kinds = (
        [f"{name} is {there} in the checkpoint, {here} in the model" for name, (there, here) in shapes.items() if there != here],
        [f"{name} is not in the model" for name in weights.keys() - expected.keys()],
        [f"{name} is not in the checkpoint" for name in expected.keys() - weights.keys()],
    )  # fmt: skip
    if any(kinds):
        told = "; ".join(brief(min(kind), 100 - 40 * bool(n)) for n, kind in enumerate(kinds) if kind)
        more = sum(max(0, len(kind) - 1) for kind in kinds)
        raise CheckpointError(f"{path} belongs to another model: {told}" + (f" and {more} more" if more else ""))
    model.load_state_dict(weights)


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Pick the tensors whose names begin with a prefix, and name them without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Put a prefix before the names of tensors: the inverse of `without_prefix`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make tensors contiguous and without shared memory, as safetensors wants them; a tied one is copied."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return separate


def _check_identity(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    different = [
        f"{name} is {found.get(name)!r} in the checkpoint, {value!r} now"
        for name, value in expected.items()
        if found.get(name) != value
    ]
    if different:
        raise CheckpointError(
            f"{path} was made from other data: {'; '.join(different)}. "
            "Item ids would stand for other items; give the data and the options that it was made with."
        )
