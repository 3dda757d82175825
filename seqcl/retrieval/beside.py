"""Memories beside the vectors of a bundle: their file, and the best items by both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqcl.encoders import Memories
from seqcl.errors import UserError, refuse_infinite_weights

FILE = "memories.safetensors"


def write_memories(memories: Memories, folder: Path) -> dict[str, Any]:
    """Write memories, with everybody's weights alone; give the arguments that make them again."""
    tensors = {name: one.cpu().contiguous() for name, one in memories.state_dict().items()}
    tensors["mixture"] = tensors["mixture"][-1:].clone()
    save_file(tensors, folder / FILE)
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


def best_of_both(
    query: Tensor, vectors: Tensor, near: Tensor, bonus: Tensor, seen: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Find the k items with the largest sum of inner product and bonus: scores and ids (n,) each, best first.

    No bonus is below 0. So an item without one is among the best only if it is among the k best by inner product.

    Args:
        query: (D,).
        vectors: (N, D), of items 1..N.
        near: ids of the k best by inner product, none of them seen; PAD where there are fewer.
        bonus: (N,) of items 1..N.
        seen: ids that are left out.
        k: number of items.
    """
    items = torch.cat((near[near > 0], bonus.nonzero()[:, 0] + 1)).unique()
    items = items[~torch.isin(items, seen)]
    best = (vectors[items - 1] @ query + bonus[items - 1]).topk(min(k, len(items)))
    return best.values, items[best.indices]
