"""Checkpoints: one safetensors file each, its state as JSON in the file's own metadata, never a pickle.

One file, because one rename is atomic and a folder of files is not: whatever a crash, a full disk or `kill -9`
interrupts, the name in use stands for a whole checkpoint, the new one or the one before.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seqcl.errors import UserError

FORMAT = "seqcl-checkpoint-1"


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read, or used with this data or model."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Put tensors and a JSON-able state under `path` in one step: at any time the old or the new file is there, whole.

    Raises:
        CheckpointError: it could not be written; what stood under `path` is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_separate(tensors), temporary, {"format": FORMAT, "state": json.dumps(state)})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        kept = "; the checkpoint before it is whole" if path.exists() else ""
        raise CheckpointError(f"could not write {path}: {error}{kept}. Is the disk full?") from error


def load_checkpoint(
    path: Path, *, identity: Mapping[str, Any] | None = None, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors whose names begin with `prefix` (on the CPU) and the state.

    Raises:
        CheckpointError: no such file, not a whole checkpoint, or its `identity` is another one.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from error
    found = metadata.get("format", "unknown")
    if found != FORMAT:
        raise CheckpointError(f"{path} has the format {found!r}; this version reads {FORMAT!r}")
    state = json.loads(metadata["state"])
    _check_identity(path, state.get("identity", {}), identity or {})
    return tensors, state


def load_weights(model: nn.Module, path: Path, *, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put the weights of a checkpoint into `model`; the state comes back (epoch, step, metrics, identity).

    Raises:
        CheckpointError: as `load_checkpoint`, or the model's parameters have other names or shapes.
    """
    tensors, state = load_checkpoint(path, identity=identity, prefix="model.")
    put_weights(model, tensors, path)
    return state


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors named "model.*" into the model, or say in which names and shapes `path` differs from it."""
    weights = part(tensors, "model.")
    expected = model.state_dict()
    wrong = [f"{name} is not in the model" for name in weights.keys() - expected.keys()]
    wrong += [f"{name} is not in the checkpoint" for name in expected.keys() - weights.keys()]
    for name in weights.keys() & expected.keys():
        there, here = tuple(weights[name].shape), tuple(expected[name].shape)
        if there != here:
            wrong.append(f"{name} is {there} in the checkpoint, {here} in the model")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{path} belongs to another model: {'; '.join(sorted(wrong)[:5])}{more}")
    model.load_state_dict(weights)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named with a prefix: the inverse of `part`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def random_states(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every random state of this process: torch on the CPU and on `device`, numpy's and Python's global ones."""
    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    version, words, gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "python": torch.tensor(words),
    }
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    numbers = {
        "numpy": [int(legacy["state"]["pos"]), int(legacy["has_gauss"]), float(legacy["gauss"])],
        "python": [version, gauss],
    }
    return tensors, numbers


def set_random_states(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(tensors["torch"])
    position, has_gauss, gauss = numbers["numpy"]
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, gauss = numbers["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them; a tied one is copied."""
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


def _sync_folder(folder: Path) -> None:
    # The rename itself is only durable once the folder is; Windows has no such call and needs none.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
