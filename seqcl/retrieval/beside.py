"""The files of tensors in a bundle: weights, and the memories beside the vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqcl.disk import whole_file
from seqcl.encoders import Memories
from seqcl.errors import UserError, refuse_infinite_weights

FILE = "memories.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file that others may read as the umask says; safetensors alone lets nobody else read it."""
    with whole_file(path) as file:
        save_file(dict(tensors), file)


def write_memories(memories: Memories, folder: Path) -> dict[str, Any]:
    """Write memories, with everybody's weights alone; give the arguments that make them again."""
    tensors = {name: one.cpu().contiguous() for name, one in memories.state_dict().items()}
    tensors["mixture"] = tensors["mixture"][-1:].clone()
    write_tensors(folder / FILE, tensors)
    return memories.arguments() | {"folds": 0}


def read_memories(folder: Path, arguments: Mapping[str, Any]) -> Memories:
    """Read what `write_memories` wrote; it stays mapped into memory.

    Raises:
        UserError: the file does not fit its description.
    """
    with torch.device("meta"):
        memories = Memories(**arguments)
    weights = load_file(folder / FILE)
    if {name: one.shape for name, one in weights.items()} != {n: one.shape for n, one in memories.state_dict().items()}:
        raise UserError(f"{FILE} does not fit the manifest: its memories have other names or sizes")
    refuse_infinite_weights({name: one for name, one in weights.items() if one.is_floating_point()}, FILE)
    memories.load_state_dict(weights, assign=True)
    return memories
